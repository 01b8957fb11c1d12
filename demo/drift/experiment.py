"""One way under its kills: bursts of changes, a kill in each but the first, and after each how far view and database are apart."""

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

from demo.drift.compare import Apart, Compared
from demo.drift.course import Course
from demo.drift.plan import WRITERS
from demo.drift.road import Road, Traffic
from demo.drift.writers import Kill
from demo.servers.process import ServerError
from projectors.audit import Report


@dataclass(frozen=True, slots=True)
class Point:
    """So many kills, so many changes begun by then, and what was found."""

    kills: int
    changes: int
    apart: Apart


@dataclass(slots=True)
class Outcome:
    """One way's points, by growing number of kills. lookups: users that a name does not find, at the end."""

    course: Course
    points: list[Point] = field(default_factory=list)
    lookups: int = 0

    @property
    def last(self) -> Point:
        return self.points[-1]

    @property
    def failed(self) -> bool:
        """Whether what should be alike is not."""
        return self.course.exact and bool(self.last.apart.differing or self.lookups)


async def run(road: Road, traffic: Traffic, outcome: Outcome) -> AsyncIterator[Point]:
    """A point after each burst, also kept in the outcome. Raises ServerError, where the two looks at the end do not agree."""
    compared = Compared(road.definition, road.redis, road.pool, traffic.users)
    begun = await compared.look(await road.settle(traffic.users))
    if begun.differing:
        raise ServerError(f"{road.course.way}: view and database differ before anything was killed: {dict(begun.differing)}")
    for number, kill in enumerate(kills(traffic)):
        await road.writers.drive((number + 1) * traffic.burst, kill, road.check)
        record = await road.settle(traffic.users)
        point = Point(number, road.writers.begun, await compared.look(record))
        outcome.points.append(point)
        yield point
    outcome.lookups = _agreed(road.course, outcome.last.apart, await compared.audit(record))


def kills(traffic: Traffic) -> Iterator[Kill | None]:
    """One for each burst, none in the first: the writers in turn, somewhere in the first two thirds of the burst."""
    dice = random.Random(f"kills of {traffic.seed}")
    yield None
    for number in range(1, traffic.rounds):
        yield Kill(number % WRITERS, number * traffic.burst + dice.randint(1, traffic.burst * 2 // 3))


def _agreed(course: Course, apart: Apart, report: Report) -> int:
    """How many users a name does not find. Raises ServerError where the audit sees other differences in the rows."""
    by_audit = sorted((m.id, m.field) for m in report.mismatches if not m.field.startswith("by "))
    by_look = sorted((key, name) for key, names in apart.differing.items() for name in names)
    if by_audit != by_look:
        raise ServerError(f"{course.way}: the audit finds {by_audit}, and one look at level {by_look}. That is a bug: please report it.")
    return len(report.mismatches) - len(by_audit)


def worst(outcomes: Sequence[Outcome]) -> int:
    """The most users that differ anywhere."""
    return max((len(point.apart.differing) for outcome in outcomes for point in outcome.points), default=0)
