"""The models of costs out of what was measured, and how sure what they say is. The model itself is in costs.py."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.compare import hits
from bench.compare.costs import BreakEven, Model, Prices, Use, break_even_kept, break_even_ratio, break_even_skew, cost
from bench.compare.results import Results
from bench.compare.statistics import Estimate, Floats, Integers, bootstrap
from bench.compare.units import repeats, seconds, work
from schema.loader import Mode

REFERENCE_RATE = 1_000.0
Models = dict[Mode, Model]


@dataclass(frozen=True, slots=True)
class Evens:
    """Where the view and one other mode cost the same; None: not measured, or there is no such thing. ratio_ends: 95 %."""

    other: Mode
    ratio: BreakEven | None
    ratio_ends: Estimate | None
    skew: BreakEven | None
    kept: BreakEven | None


def use(results: Results) -> Use:
    """As the scenario has it, at the rate that all modes are held to."""
    return Use(reads_per_second=REFERENCE_RATE, reads_per_write=results.reads_per_write)


def models(results: Results, weights: Integers | None = None) -> Models:
    """weights: how often each repeat of the efforts counts; None: once."""
    return {mode: _model(results, mode, weights) for mode in results.modes}


def _model(results: Results, mode: Mode, weights: Integers | None) -> Model:
    kept = [memory for memory in results.memory if memory.mode == mode]
    rows, total = sum(memory.rows for memory in kept), sum(memory.redis_bytes for memory in kept)
    return Model(
        mode=mode,
        read=work(results, mode, "reads", weights),
        write=work(results, mode, "writes", weights),
        memory=0.0 if mode == "sql" else total / len(kept) if kept else None,
        full=0.0 if mode == "sql" else total / rows * results.users if rows else None,
        hits=hits.of_scenario(results, mode) if mode.startswith("cache") else None,
    )


def evens(results: Results, other: Mode, prices: Prices) -> Evens:
    """other: any but the view. Without a view in the results all is None."""
    made, how = models(results), use(results)
    if "view" not in made or other not in made:
        return Evens(other, None, None, None, None)
    view, theirs, cached = made["view"], made[other], other != "sql"
    points = hits.plain(hits.by_skew(results, other, cold=False))
    return Evens(
        other,
        break_even_ratio(view, theirs, prices, how),
        _ratio_ends(results, other, prices),
        break_even_skew(view, theirs, made["sql"], points, prices, how) if cached and "sql" in made else None,
        break_even_kept(view, theirs, prices, how) if cached else None,
    )


def total(results: Results, mode: Mode, prices: Prices) -> Estimate | None:
    """Of a million reads of the scenario, in money. None: not measured."""

    def of(made: Models) -> float | None:
        found = cost(made[mode], prices, use(results))
        return found.total if found else None

    return _estimated(results, [mode], of)


def by(results: Results, one: Mode, other: Mode, prices: Prices) -> Estimate | None:
    """What the one costs for each unit of what the other does. None: not measured."""

    def of(made: Models) -> float | None:
        above, below = (cost(made[mode], prices, use(results)) for mode in (one, other))
        return above.total / below.total if above and below and below.total else None

    return _estimated(results, [one, other], of)


def changes_by(results: Results, one: Mode, other: Mode) -> Estimate | None:
    """CPU of one change, all servers, by what the other's costs. None: not measured."""

    def of(made: Models) -> float | None:
        above, below = (seconds(made[mode].write) for mode in (one, other))
        return above / below if above is not None and below else None

    return _estimated(results, [one, other], of)


def _ratio_ends(results: Results, other: Mode, prices: Prices) -> Estimate | None:
    """Infinite where the other is always cheaper, 0 where the view is. None: in some draw the view is the one for few reads."""

    def of(made: Models) -> float | None:
        found = break_even_ratio(made["view"], made[other], prices, use(results))
        if found is None or (found.below, found.above) == ("view", other):
            return None
        return found.at if found.at is not None else np.inf if found.below == other else 0.0

    return _estimated(results, ["view", other], of)


def _estimated(results: Results, modes: list[Mode], of: Callable[[Models], float | None]) -> Estimate | None:
    narrowed = {mode: mode for mode in modes}

    def statistic(weights: Integers) -> Floats:
        told = [of({mode: _model(results, mode, row) for mode in narrowed}) for row in weights]
        return np.array([np.nan if value is None else value for value in told], dtype=np.float64)

    count = repeats(results, modes)
    if count == 1:
        value = of(models(results))
        return None if value is None else Estimate(value, None, None, 1)
    found = bootstrap(count, statistic, results.seed)
    return None if np.isnan([found.value, found.low or 0.0, found.high or 0.0]).any() else found
