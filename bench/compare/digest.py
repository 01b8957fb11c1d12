"""What pictures, tables and verdict all need of a comparison, computed once: its cells, merged. Says nothing in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from bench.compare import hits, models, statistics
from bench.compare.costs import Prices
from bench.compare.models import REFERENCE_RATE, Evens
from bench.compare.results import Results, Staleness, Timing
from bench.compare.statistics import MAXIMUM, Estimate, Repeats, Share
from schema.loader import Mode

Part = TypeVar("Part", Timing, Staleness)
PERCENTS = (50.0, 95.0, 99.0, 99.9, MAXIMUM)


@dataclass(frozen=True, slots=True)
class Cell:
    """Reads of one mode at one rate, all repeats. percentiles: of PERCENTS, in ms; empty: nothing was read.

    fraction: of the mode's capacity; None: a rate given as such. late_ms: the generator's, at most. failing: the share that failed.
    """

    mode: Mode
    rate: float
    fraction: float | None
    repeats: Repeats | None
    percentiles: Sequence[Estimate]
    reads: int
    errors: int
    timeouts: int
    late_ms: float
    failing: Share | None

    @property
    def failed(self) -> int:
        return self.errors + self.timeouts

    def at(self, percent: float) -> Estimate | None:
        return self.percentiles[PERCENTS.index(percent)] if self.percentiles else None


@dataclass(frozen=True, slots=True)
class Wrong:
    """Answers of one mode at one rate of changes, all measurements together. ages_ms: growing, a sample perhaps."""

    mode: Mode
    changes_per_second: float
    answers: int
    wrong: int
    share: Share | None
    ages_ms: Sequence[float]


class Digest:
    """One comparison."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.prices = Prices()

    @cached_property
    def cells(self) -> list[Cell]:
        """By mode, then by rate."""
        groups: dict[tuple[Mode, float, float | None], list[Timing]] = {}
        for timing in _of_modes(self.results.timings, self.results.modes):
            key = (timing.mode, timing.rate if timing.fraction is None else 0.0, timing.fraction)
            groups.setdefault(key, []).append(timing)
        cells = [self._cell(group) for group in groups.values()]
        return sorted(cells, key=lambda cell: (self.results.modes.index(cell.mode), cell.rate))

    @cached_property
    def fixed(self) -> list[float]:
        """The rates that were given as such, growing."""
        return sorted({cell.rate for cell in self.cells if cell.fraction is None})

    @cached_property
    def reference(self) -> float | None:
        """The fixed rate that is nearest to the one of the published level. None: there is none."""
        return min(self.fixed, key=lambda rate: abs(math.log(rate / REFERENCE_RATE)), default=None)

    def cell(self, mode: Mode, rate: float | None) -> Cell | None:
        """At a fixed rate."""
        return next((cell for cell in self.cells if (cell.mode, cell.rate, cell.fraction) == (mode, rate, None)), None)

    @cached_property
    def capacities(self) -> dict[Mode, Estimate | None]:
        """Reads a second, the mean of the repeats."""
        told = {
            mode: [rate for one in self.results.capacities if one.mode == mode for rate in one.reads_per_second]
            for mode in self.results.modes
        }
        return {mode: statistics.mean(rates, self.results.seed) for mode, rates in told.items()}

    @cached_property
    def wrongs(self) -> list[Wrong]:
        groups: dict[tuple[Mode, float], list[Staleness]] = {}
        for one in _of_modes(self.results.staleness, self.results.modes):
            groups.setdefault((one.mode, one.changes_per_second), []).append(one)
        ordered = sorted(groups.items(), key=lambda item: (item[0][1], self.results.modes.index(item[0][0])))
        return [self._wrong(mode, rate, group) for (mode, rate), group in ordered]

    @cached_property
    def evens(self) -> list[Evens]:
        return [models.evens(self.results, mode, self.prices) for mode in self.results.modes if mode != "view"]

    @cached_property
    def totals(self) -> dict[Mode, Estimate | None]:
        """Of a million reads, in money."""
        return {mode: models.total(self.results, mode, self.prices) for mode in self.results.modes}

    @property
    def caches(self) -> list[Mode]:
        return [mode for mode in self.results.modes if mode.startswith("cache")]

    def hits(self, mode: Mode) -> float | None:
        """The share of rows that Redis had, at the scenario's skew and TTL, warm. The view has all, mode sql none."""
        return hits.of_scenario(self.results, mode) if mode in self.caches else float(mode == "view")

    def _cell(self, group: list[Timing]) -> Cell:
        first, merged = group[0], statistics.repeats(group)
        failed = [timing.errors + timing.timeouts for timing in group]
        reads = [timing.reads for timing in group]
        return Cell(
            first.mode,
            sum(timing.rate for timing in group) / len(group),
            first.fraction,
            merged,
            statistics.percentiles(merged, PERCENTS, self.results.seed) if merged else [],
            sum(reads),
            sum(timing.errors for timing in group),
            sum(timing.timeouts for timing in group),
            max(timing.late_ms for timing in group),
            statistics.share(failed, reads, self.results.seed),
        )

    def _wrong(self, mode: Mode, rate: float, group: Sequence[Staleness]) -> Wrong:
        wrong, answers = [one.wrong for one in group], [one.answers for one in group]
        ages = sorted(age for one in group for age in one.ages_ms)
        return Wrong(mode, rate, sum(answers), sum(wrong), statistics.share(wrong, answers, self.results.seed), ages)


def _of_modes(parts: Sequence[Part], modes: Sequence[Mode]) -> list[Part]:
    return [part for part in parts if part.mode in modes]
