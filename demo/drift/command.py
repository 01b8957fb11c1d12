"""`viewgate drift`: its options, and how what came out is shown. What is run, and on what, is lanes.py's."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import asyncpg
import typer
import uvloop
from rich.live import Live

from app.cli import CommandError
from app.console import console
from app.stopping import until_told
from app.telemetry import set_up_logs
from demo.drift import picture, report
from demo.drift.course import COURSES, Course
from demo.drift.experiment import Outcome
from demo.drift.lanes import run_all
from demo.drift.road import Traffic
from demo.servers.process import ServerError

CACHE = Path(".cache").absolute()
# acts of each writer from one look to the next, and a second
BURST, RATE = 250, 500.0
USERS, KILLS = 1000, 10
QUICK_USERS, QUICK_KILLS = 400, 3
ALL = ",".join(COURSES)
# publish-first fails like dual-write does
QUICK = ",".join(way for way in COURSES if way != "publish-first")


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command."""

    courses: Sequence[Course]
    traffic: Traffic
    as_json: bool
    picture: Path | None


def drift(
    seed: Annotated[int, typer.Option(help="Of the changes and of the kills: the same for every way.")] = 1,
    kills: Annotated[int | None, typer.Option(help=f"How many times a writer is killed in each way; without it {KILLS}.", min=0)] = None,
    users: Annotated[int | None, typer.Option(help=f"How many are seeded; without it {USERS:,}.", min=100)] = None,
    ways: Annotated[str, typer.Option(help=f"Which, and in which order; without it {ALL}.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="A look: fewer users, kills and ways, where they are not given.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, with every point of every way.")] = False,
    drawing: Annotated[Path | None, typer.Option("--picture", help="Where to draw the curves, as SVG.", dir_okay=False)] = None,
) -> None:
    """Publish the same changes in each way, kill the services that do it, and count the users whose view is wrong.

    Two writers run beside each other, and are killed with SIGKILL in the midst of their work. After each kill all is let come to rest,
    and every field of every user is compared with PostgreSQL. Exits with 1 if a way that must be exact has parted.

    Servers of its own are started, and their data is gone at the end; cdc and outbox need Java and Maven, for Kafka Connect.

    \b
    Examples:
      viewgate drift
      viewgate drift --quick --seed 7
      viewgate drift --ways dual-write,outbox --kills 30 --picture drift.svg
    """
    rounds = (kills if kills is not None else QUICK_KILLS if quick else KILLS) + 1
    traffic = Traffic(users or (QUICK_USERS if quick else USERS), seed, rounds, BURST, RATE)
    asked = Asked(chosen(ways or (QUICK if quick else ALL)), traffic, as_json, drawing)
    set_up_logs("critical")
    try:
        outcomes = uvloop.run(until_told(_run(asked)))
    except (ServerError, asyncpg.PostgresError) as error:
        raise CommandError(str(error)) from error
    if any(outcome.failed for outcome in outcomes):
        sys.exit(1)


def chosen(ways: str) -> list[Course]:
    """Raises typer.BadParameter."""
    names = list(dict.fromkeys(ways.split(",")))
    if unknown := [name for name in names if name not in COURSES]:
        raise typer.BadParameter(f"{', '.join(map(repr, unknown))}: there is {', '.join(COURSES)}.", param_hint="--ways")
    return [COURSES[name] for name in names]


async def _run(asked: Asked) -> Sequence[Outcome]:
    out, told = console(), console(stderr=True)
    with Live(console=told, auto_refresh=False, transient=True) as live:
        show = partial(_show, live) if told.is_terminal else _show_nothing
        result = await run_all(asked.courses, asked.traffic, CACHE, told.print, show)
    if asked.picture and result.outcomes:
        asked.picture.write_text(_picture(result.outcomes, asked.traffic))
    if asked.as_json:
        out.print(report.as_json(result, asked.traffic), markup=False)
    else:
        out.print(report.shown(result.outcomes))
    return result.outcomes


def _show(live: Live, outcomes: Sequence[Outcome]) -> None:
    live.update(report.shown(outcomes), refresh=True)


def _show_nothing(_: Sequence[Outcome]) -> None:
    pass


def _picture(outcomes: Sequence[Outcome], traffic: Traffic) -> str:
    lines = [picture.Line(outcome.course.way, [len(point.apart.differing) for point in outcome.points]) for outcome in outcomes]
    changes = outcomes[0].last.changes
    return picture.drawn(
        "Users whose view is wrong, by the way of publishing",
        f"{traffic.users:,} users, {changes:,} changes by two writers, the same in each way; seed {traffic.seed}",
        "how often a writer has been killed (kill -9)",
        lines,
    )
