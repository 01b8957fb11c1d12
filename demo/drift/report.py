"""What came out, as a table for people and as JSON for programs. Measures nothing."""

from collections.abc import Sequence

import msgspec
from rich.table import Table

from app.console import table
from bench.machine import machine
from demo.drift.experiment import Outcome, Point, worst
from demo.drift.lanes import Result
from demo.drift.plan import RACE_EVERY
from demo.drift.road import Traffic

BARS = "▁▂▃▄▅▆▇█"


def shown(outcomes: Sequence[Outcome]) -> Table:
    """A line for each way, as far as it is."""
    made = table("way", "changes", "kills", "users", "users that differ", "as the kills come", "fields", "names", "largest", "reads right")
    for place in (1, 2, 3, 4, 6, 7, 8, 9):
        made.columns[place].justify = "right"
    top = worst(outcomes)
    for outcome in outcomes:
        made.add_row(*_line(outcome, top))
    return made


def _line(outcome: Outcome, top: int) -> list[str]:
    if not outcome.points:
        return [outcome.course.way, "…"]
    last, apart = outcome.last, outcome.last.apart
    colour = "bold red" if apart.differing else "bold green"
    return [
        outcome.course.way,
        f"{last.changes:,}",
        f"{last.kills}",
        f"{apart.users:,}",
        f"[{colour}]{len(apart.differing):,}[/]",
        f"[{colour}]{curve([len(point.apart.differing) for point in outcome.points], top)}[/]",
        f"{apart.fields:,}",
        f"{outcome.lookups:,}",
        f"{apart.largest:,}",
        f"{percent(apart.right_percent)} %",
    ]


def percent(value: float) -> str:
    """Never 100 where something is wrong."""
    return "100" if value >= 100 else f"{min(value, 99.99):.2f}"


def curve(values: Sequence[int], top: int) -> str:
    """A bar for each value, the highest for `top`; 0 is the lowest, and alone has it."""
    return "".join(BARS[-(-value * (len(BARS) - 1) // top)] if value else BARS[0] for value in values)


def as_json(result: Result, traffic: Traffic) -> str:
    """One object: what was run, where, and all points of every way; the fields that differ at the end, by user."""
    about: dict[str, object] = {
        "seed": traffic.seed,
        "seeded_users": traffic.users,
        "acts_per_writer_and_burst": traffic.burst,
        "acts_per_second": traffic.rate,
    }
    about |= {"race_every": RACE_EVERY, "machine": machine(), "servers": result.servers, "not_run": result.skipped}
    return msgspec.json.encode({**about, "ways": [_way(outcome) for outcome in result.outcomes]}).decode()


def _way(outcome: Outcome) -> dict[str, object]:
    differing = outcome.last.apart.differing
    return {
        "way": outcome.course.way,
        **_point(outcome.last),
        "lookups": outcome.lookups,
        "differing": differing,
        "points": [_point(point) for point in outcome.points],
    }


def _point(point: Point) -> dict[str, object]:
    apart = point.apart
    return {
        "kills": point.kills,
        "changes": point.changes,
        "users": apart.users,
        "users_that_differ": len(apart.differing),
        "fields_that_differ": apart.fields,
        "largest_difference": apart.largest,
        "reads_right_percent": round(apart.right_percent, 3),
    }
