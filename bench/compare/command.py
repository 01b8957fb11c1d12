"""`viewgate compare`: its options, the run with its progress, and where the report goes."""

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
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
from app.settings import read_settings
from app.stopping import until_told
from app.telemetry import set_up_logs
from bench.compare.cells import Cell, Comparison
from bench.compare.deployed import Deployed, deployed
from bench.compare.generators import Generators
from bench.compare.inside import Inside
from bench.compare.journal import Head, Journal, Measured, Other, capacities
from bench.compare.residence import Writes
from bench.compare.results import Results
from bench.compare.scenario import Scenario, ScenarioError, find
from bench.compare.stack import Compared, compared
from bench.machine import machine, versions
from demo.servers import connect
from demo.servers.account import scratch
from demo.servers.process import ServerError
from demo.servers.server import MissingError
from schema.loader import MODES

CACHE = Path(".cache").absolute()
LIBRARIES = ("uvicorn", "uvloop", "httptools", "redis", "hiredis", "asyncpg", "aiokafka", "strawberry-graphql")
LISTS = ("timings", "hits", "staleness", "efforts", "memory", "timelines", "discarded")
shown = console(stderr=True)


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command. folder: of the report."""

    name: str
    scenario: Scenario
    seed: int
    folder: Path
    quick: bool
    url: str
    writes: bool

    @property
    def command(self) -> Sequence[str]:
        """That repeats it."""
        options = [*(["--quick"] if self.quick else []), *(["--url", self.url] if self.url else []), *(["--writes"] if self.writes else [])]
        return ["viewgate", "compare", self.name, *options, "--seed", str(self.seed)]


def compare(
    scenario: Annotated[str, typer.Argument(help="One that comes with it, or the path of a TOML file.")] = "heavy-tailed",
    quick: Annotated[bool, typer.Option("--quick", help="A look of three minutes: pictures, and no verdict.")] = False,
    seed: Annotated[int, typer.Option(help="Of who reads and writes what.")] = 1,
    report: Annotated[Path, typer.Option(help="The folder of the report.", file_okay=False)] = Path("report"),
    url: Annotated[str, typer.Option(help="Of a gateway that runs already, http://host:port; without it a stack of its own.")] = "",
    writes: Annotated[
        bool, typer.Option("--writes", help="With --url: publish changes to the Kafka of the settings, which stay there.")
    ] = False,
) -> None:
    """Answer the same reads in every mode, beside the same changes, and write a report of what it cost and how right it was.

    Starts servers of its own, which are gone at the end. A run that was broken off goes on where it was, if it is told the same.
    With --url it asks a gateway that runs, whose modes a request may choose: how long reads take, and nothing from within.

    \b
    Examples:
      viewgate compare --quick
      viewgate compare celebrity --seed 7 --report /tmp/celebrity
      viewgate compare even --quick --url http://127.0.0.1:8000
    """
    set_up_logs("critical")
    try:
        name, asked = find(scenario)
    except ScenarioError as error:
        raise CommandError(str(error)) from error
    asked = asked.quick() if quick else asked
    try:
        results = uvloop.run(until_told(_run(Asked(name, asked, seed, report, quick, url, writes)), partial(shown.print, "Stopping …")))
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


async def _run(asked: Asked) -> Results:
    scenario = asked.scenario if asked.url else await _possible(asked.scenario)
    began, since = datetime.now(UTC), time.monotonic()
    head = Head(scenario=repr(scenario), seed=asked.seed, version=version("viewgate"), url=asked.url)
    journal = Journal(asked.folder / "cells.jsonl", head)
    async with AsyncExitStack() as opened:
        made: Compared | Deployed
        if asked.url:
            settings = read_settings()
            writes = Writes(settings.kafka_bootstrap, settings.topic_prefix, settings.postgres_url) if asked.writes else None
            made = await opened.enter_async_context(deployed(scenario, asked.url, writes))
        else:
            made = await opened.enter_async_context(compared(scenario, opened.enter_context(scratch()), CACHE, shown))
        generators = Generators(made, asked.seed)
        cells = [*Comparison(made, generators, journal.cells).cells()]
        if isinstance(made, Compared):
            cells += Inside(made, generators).cells()
        await _measure(cells, journal)
        return _results(asked, made, journal.cells, began, time.monotonic() - since)


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


def _results(asked: Asked, made: Compared | Deployed, cells: Mapping[str, Measured], began: datetime, took: float) -> Results:
    one, measured = made.scenario, list(cells.values())
    servers = [server.what for server in made.servers.servers] if isinstance(made, Compared) else [f"a gateway at {asked.url}"]
    return Results(
        scenario=asked.name,
        about=one.about,
        quick=asked.quick,
        seed=asked.seed,
        began=began.isoformat(timespec="seconds"),
        took_seconds=round(took, 1),
        command=shlex.join(asked.command),
        machine=machine(),
        versions=", ".join([*servers, versions(*LIBRARIES)]),
        publishing=_publishing(made),
        cores=len(os.sched_getaffinity(0)),
        users=one.users,
        skew=one.skew,
        reads_per_write=one.reads_per_write,
        ttl_seconds=one.ttl_seconds,
        definition={field: str(getattr(one, field)) for field in one.__struct_fields__},
        order=[", ".join(Comparison.order(repeat)) for repeat in range(one.repeats)],
        equal=one.users,
        modes=list(MODES),
        capacities=capacities(dict(cells)),
        **{name: list(chain.from_iterable(getattr(cell, name) for cell in measured)) for name in LISTS},  # type: ignore[arg-type]  # by name
    )


def _publishing(made: Compared | Deployed) -> str:
    if isinstance(made, Deployed):
        return "single-write" if made.writes else "nothing was written"
    return "change data capture" if made.captured else "single-write"
