"""`viewgate compare`: its options, the run with its progress, and where the report goes."""

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Annotated

import asyncpg
import msgspec
import typer
import uvloop
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from app.cli import CommandError
from app.console import console
from app.stopping import told_to_stop
from app.telemetry import set_up_logs
from bench.compare.cells import Cell, Comparison
from bench.compare.journal import Head, Journal, Measured, Other, capacities
from bench.compare.results import Results
from bench.compare.scenario import Scenario, ScenarioError, find
from bench.compare.stack import MODES, Compared, compared
from bench.machine import machine, versions
from demo.servers import connect
from demo.servers.account import scratch
from demo.servers.process import ServerError
from demo.servers.server import MissingError

CACHE = Path(".cache").absolute()
LIBRARIES = ("uvicorn", "uvloop", "httptools", "redis", "hiredis", "asyncpg", "aiokafka", "strawberry-graphql")
shown = console(stderr=True)


def compare(
    scenario: Annotated[str, typer.Argument(help="One that comes with it, or the path of a TOML file.")] = "heavy-tailed",
    quick: Annotated[bool, typer.Option("--quick", help="A look of three minutes: pictures, and no verdict.")] = False,
    seed: Annotated[int, typer.Option(help="Of who reads and writes what.")] = 1,
    report: Annotated[Path, typer.Option(help="The folder of the report.", file_okay=False)] = Path("report"),
) -> None:
    """Answer the same reads in every mode, beside the same changes, and write a report of what it cost and how right it was.

    Starts servers of its own, which are gone at the end. A run that was broken off goes on where it was, if it is told the same.

    \b
    Examples:
      viewgate compare --quick
      viewgate compare celebrity --seed 7 --report /tmp/celebrity
    """
    set_up_logs("critical")
    try:
        name, asked = find(scenario)
    except ScenarioError as error:
        raise CommandError(str(error)) from error
    asked = asked.quick() if quick else asked
    try:
        results = uvloop.run(_until_stopped(name, asked, seed, report, quick=quick))
    except (ServerError, Other, asyncpg.PostgresError, OSError) as error:
        raise CommandError(str(error)) from error
    _tell(results, report)


def _tell(results: Results, folder: Path) -> None:
    # matplotlib takes a second, which a mistyped name need not wait for
    from bench.compare.lines import show  # noqa: PLC0415
    from bench.compare.report import write  # noqa: PLC0415

    write(results, folder)
    show(results, console())
    typer.echo(f"\nThe report: {folder / 'index.html'}")


async def _until_stopped(name: str, scenario: Scenario, seed: int, folder: Path, *, quick: bool) -> Results:
    stop = told_to_stop()
    running = asyncio.create_task(_run(name, scenario, seed, folder, quick=quick))
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not running.done():
        shown.print("Stopping …")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        sys.exit(130)
    return running.result()


async def _run(name: str, scenario: Scenario, seed: int, folder: Path, *, quick: bool) -> Results:
    scenario = await _possible(scenario)
    began, since = datetime.now(UTC), time.monotonic()
    journal = Journal(folder / "cells.jsonl", Head(scenario=repr(scenario), seed=seed, version=version("viewgate")))
    with scratch() as place:
        async with compared(scenario, place, CACHE, shown) as made:
            comparison = Comparison(made, seed, journal.cells)
            await _measure(list(comparison.cells()), journal)
            return _results(name, made, comparison, journal.cells, began, time.monotonic() - since, quick=quick)


async def _possible(scenario: Scenario) -> Scenario:
    """Without Kafka Connect there is no change data capture."""
    if scenario.publishing == "capture":
        try:
            await connect.find(CACHE, shown.print)
        except MissingError as missing:
            shown.print(f"Changes are published by single-write: {missing}")
            return msgspec.structs.replace(scenario, publishing="single-write")
    return scenario


async def _measure(cells: Sequence[Cell], journal: Journal) -> None:
    left = [cell for cell in cells if cell.name not in journal.cells]
    if len(left) < len(cells):
        shown.print(f"{len(cells) - len(left)} of {len(cells)} cells were measured before.")
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=shown, disable=not shown.is_terminal) as progress:
        bar = progress.add_task("", total=sum(cell.seconds for cell in left))
        for number, cell in enumerate(left, 1):
            progress.update(bar, description=cell.name)
            if not shown.is_terminal:
                shown.print(f"{number} of {len(left)}: {cell.name}, about {cell.seconds:.0f} s")
            journal.add(await cell.run())
            progress.update(bar, advance=cell.seconds)


def _results(
    name: str,
    made: Compared,
    comparison: Comparison,
    cells: Mapping[str, Measured],
    began: datetime,
    took: float,
    *,
    quick: bool,
) -> Results:
    one, measured = made.scenario, list(cells.values())
    return Results(
        scenario=name,
        about=one.about,
        quick=quick,
        seed=comparison.seed,
        began=began.isoformat(timespec="seconds"),
        took_seconds=round(took, 1),
        command=shlex.join(["viewgate", "compare", name, *(["--quick"] if quick else []), "--seed", str(comparison.seed)]),
        machine=machine(),
        versions=", ".join([*(server.what for server in made.servers.servers), versions(*LIBRARIES)]),
        publishing="change data capture" if made.captured else "single-write",
        cores=len(os.sched_getaffinity(0)),
        users=one.users,
        skew=one.skew,
        reads_per_write=one.reads_per_write,
        ttl_seconds=one.ttl_seconds,
        definition={field: str(getattr(one, field)) for field in one.__struct_fields__},
        order=[", ".join(comparison.order(repeat)) for repeat in range(one.repeats)],
        equal=one.users,
        modes=list(MODES),
        capacities=capacities(dict(cells)),
        timings=list(chain.from_iterable(cell.timings for cell in measured)),
        hits=list(chain.from_iterable(cell.hits for cell in measured)),
        staleness=list(chain.from_iterable(cell.staleness for cell in measured)),
        efforts=list(chain.from_iterable(cell.efforts for cell in measured)),
        memory=list(chain.from_iterable(cell.memory for cell in measured)),
        timelines=list(chain.from_iterable(cell.timelines for cell in measured)),
        discarded=list(chain.from_iterable(cell.discarded for cell in measured)),
    )
