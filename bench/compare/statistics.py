"""Percentiles of repeats, with intervals: histograms are merged, percentiles never are. Knows times, shares and weights, and no modes.

An interval is a bootstrap over repeats: repeats are drawn again with replacement, each draw is merged, and its percentile taken. Of few
repeats the plain percentile interval is too narrow (of five it covers some 84 of 100), so its tails are those of Hesterberg's expanded
one: what Student's t would add is added.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from bench.compare.results import Timing

DRAWS = 10_000
CONFIDENCE_PERCENT = 95
MAXIMUM = 100.0
# Student's t at 97.5 %, of 1, 2, 3, … degrees of freedom; beyond them the normal one is near enough
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101)
NORMAL = 1.960
# draws that are merged at once: more would be gigabytes
AT_ONCE = 256

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Statistic = Callable[[Integers], Floats]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value of all repeats together. low, high: of its 95 % interval; None where there is one repeat only."""

    value: float
    low: float | None
    high: float | None
    repeats: int

    def scaled(self, factor: float) -> "Estimate":
        """factor: above 0."""
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return Estimate(self.value * factor, low, high, self.repeats)

    def apart_from(self, value: float) -> int:
        """-1 or 1: the whole interval lies below or above; 0: it does not, or there is none."""
        if self.low is None or self.high is None or self.low <= value <= self.high:
            return 0
        return -1 if self.high < value else 1


@dataclass(frozen=True, slots=True)
class Share(Estimate):
    """A part of a whole, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """Reads of one cell. counts: a row for each repeat of `numbers`, a column for each of `values` (µs); both are growing."""

    numbers: tuple[int, ...]
    values: Integers
    counts: Integers

    @property
    def reads(self) -> int:
        return int(self.counts.sum())

    def of(self, numbers: Sequence[int]) -> "Repeats":
        """Only those repeats."""
        return Repeats(tuple(numbers), self.values, self.counts[[self.numbers.index(number) for number in numbers]])

    def levels(self, weights: Integers, percents: Sequence[float]) -> Floats:
        """In ms, by the library's own rule. weights: how often each repeat counts, in rows; of each a row of all percents."""
        chunks = [self._levels(weights[start : start + AT_ONCE], percents) for start in range(0, len(weights), AT_ONCE)]
        return np.concatenate(chunks) / 1000

    def _levels(self, weights: Integers, percents: Sequence[float]) -> Floats:
        below = np.cumsum(weights @ self.counts, axis=1)
        columns = []
        for percent in percents:
            wanted = np.maximum((percent * below[:, -1] / 100 + 0.5).astype(np.int64), 1)
            columns.append(self.values[(below < wanted[:, None]).sum(axis=1)])
        return np.column_stack(columns).astype(np.float64)


def repeats(timings: Sequence[Timing]) -> Repeats | None:
    """Of one cell; several of one number are one repeat. A repeat without reads is left out; None: there is none with reads."""
    rows: dict[int, Integers] = {}
    form = None
    for timing in sorted(timings, key=lambda timing: timing.repeat):
        form = one = HdrHistogram.decode(timing.histogram)
        row = np.array([one.get_count_at_index(place) for place in range(one.counts_len)], dtype=np.int64)
        rows[timing.repeat] = rows.get(timing.repeat, np.zeros_like(row)) + row
    counted = {number: row for number, row in rows.items() if row.any()}
    if form is None or not counted:
        return None
    counts = np.array(list(counted.values()))
    places = np.flatnonzero(counts.any(axis=0))
    values = [form.get_highest_equivalent_value(form.get_value_from_index(int(place))) for place in places]
    return Repeats(tuple(counted), np.array(values, dtype=np.int64), counts[:, places])


def percentiles(found: Repeats, percents: Sequence[float], seed: int) -> list[Estimate]:
    """In ms. A percent of 100 is the maximum, whose interval can only end at it."""

    def at(percent: float) -> Statistic:
        return lambda weights: found.levels(weights, [percent])[:, 0]

    return [bootstrap(len(found.numbers), at(percent), seed) for percent in percents]


def ratio(one: Repeats, other: Repeats, percent: float, seed: int) -> Estimate | None:
    """The percentile of the one by the other's. Repeats were interleaved: those of one number are drawn together. None: none are common."""
    common = sorted(set(one.numbers) & set(other.numbers))
    if not common:
        return None
    above, below = one.of(common), other.of(common)
    return bootstrap(len(common), lambda weights: above.levels(weights, [percent])[:, 0] / below.levels(weights, [percent])[:, 0], seed)


def mean(values: Sequence[float], seed: int) -> Estimate | None:
    """None: there are no values."""
    told = np.array(values, dtype=np.float64)
    return bootstrap(len(told), lambda weights: weights @ told / len(told), seed) if len(told) else None


def share(parts: Sequence[float], wholes: Sequence[float], seed: int) -> Share | None:
    """Of all parts in all wholes, one of each a repeat. None: the wholes are nothing."""
    found = ratio_of_sums(parts, wholes, seed)
    return Share(found.value, found.low, found.high, found.repeats) if found else None


def ratio_of_sums(ones: Sequence[float], others: Sequence[float], seed: int) -> Estimate | None:
    """One of each a repeat, drawn together; of means too. A repeat whose other is 0 is left out. None: there is no other."""
    above, below = np.array(ones, dtype=np.float64), np.array(others, dtype=np.float64)
    kept = below > 0
    above, below = above[kept], below[kept]
    return bootstrap(len(above), lambda weights: (weights @ above) / (weights @ below), seed) if len(above) else None


def curve(found: Repeats, points: int = 240) -> list[tuple[float, float]]:
    """(1 / (1 - p), ms), from 1 on, evenly on a logarithmic axis, up to the slowest read: there p has as many reads as there are."""
    ends = np.logspace(0, np.log10(max(found.reads, 2)), points)
    percents = [*(100 * (1 - 1 / end) for end in ends[:-1]), MAXIMUM]
    ms = found.levels(np.ones((1, len(found.numbers)), dtype=np.int64), percents)[0]
    return [(float(end), float(value)) for end, value in zip(ends, ms, strict=True)]


def cumulated(found: Repeats) -> list[tuple[float, float]]:
    """(ms, share of reads that took no longer), a point for each value that came."""
    below = np.cumsum(found.counts.sum(axis=0)) / found.reads
    return [(float(value) / 1000, float(part)) for value, part in zip(found.values, below, strict=True)]


def bootstrap(count: int, statistic: Statistic, seed: int) -> Estimate:
    """statistic: of rows of weights, which say how often each of `count` repeats counts, a value for each row."""
    value = float(statistic(np.ones((1, count), dtype=np.int64))[0])
    if count < 2:
        return Estimate(value, None, None, count)
    weights, times = _drawn(count, seed)
    low, high = _ends(statistic(weights), times, _tail(count))
    return Estimate(value, low, high, count)


@lru_cache(maxsize=16)
def _drawn(count: int, seed: int) -> tuple[Integers, Integers]:
    """How often each repeat was drawn, and how often so: of few repeats there are few different draws, and each is looked at once."""
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    weights, times = np.unique(drawn, axis=0, return_counts=True)
    return weights, times


def _tail(count: int) -> float:
    student = STUDENT[count - 2] if count - 2 < len(STUDENT) else NORMAL
    return NormalDist().cdf(-student * (count / (count - 1)) ** 0.5)


def _ends(values: Floats, times: Integers, tail: float) -> tuple[float, float]:
    order = np.argsort(values)
    below = np.cumsum(times[order])
    low, high = np.searchsorted(below, [max(tail * below[-1], 1), min((1 - tail) * below[-1], below[-1])])
    return float(values[order][low]), float(values[order][high])
