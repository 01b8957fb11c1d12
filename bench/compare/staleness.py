"""Which answers lacked a change that its writer had been told of before they were asked for, and how old it was. Pure."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bench.compare.reading import Read
from bench.compare.results import Staleness
from schema.loader import Mode

MOST_AGES = 5_000


@dataclass(slots=True)
class Log:
    """When each tweet of a user was acknowledged (time.monotonic), of the whole comparison."""

    at: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, tweets: Iterable[tuple[float, int]]) -> None:
        for moment, user in sorted(tweets):
            self.at[user].append(moment)


def staleness(mode: Mode, changes_per_second: float, reads: Iterable[Read], base: Mapping[int, int], log: Log) -> Staleness:
    """base: how many tweets each user had before the log begins. An answer may have more than was acknowledged, and is not wrong then."""
    answers, ages = 0, []
    for read in reads:
        if read.count < 0:
            continue
        answers += 1
        had = read.count - base.get(read.user, 0)
        acknowledged = log.at.get(read.user, ())
        if had < bisect_left(acknowledged, read.sent):
            ages.append((read.sent - acknowledged[max(0, had)]) * 1000)
    kept = ages[:: max(1, len(ages) // MOST_AGES)][:MOST_AGES]
    return Staleness(mode=mode, changes_per_second=changes_per_second, answers=answers, wrong=len(ages), ages_ms=kept)
