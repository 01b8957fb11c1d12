"""The share of rows that came from the cache, by skew and by how long it keeps them. Measurements of one kind are its repeats."""

from collections.abc import Callable, Sequence

import numpy as np

from bench.compare.results import Hits, Results
from bench.compare.statistics import Share, share
from schema.loader import Mode

Points = list[tuple[float, float]]
Shares = list[tuple[float, Share]]


def by_skew(results: Results, mode: Mode, *, cold: bool) -> Shares:
    """(Zipf's exponent, share), growing, at the scenario's TTL."""
    return _shares(results.seed, _of(results, mode, cold, lambda hits: hits.ttl_seconds == results.ttl_seconds), lambda hits: hits.skew)


def by_ttl(results: Results, mode: Mode, *, cold: bool) -> Shares:
    """(seconds, share), growing, at the scenario's skew."""
    return _shares(results.seed, _of(results, mode, cold, lambda hits: hits.skew == results.skew), lambda hits: hits.ttl_seconds)


def of_scenario(results: Results, mode: Mode, *, cold: bool = False) -> float | None:
    """At the scenario's skew and TTL; between two measured skews straight. None: not measured there."""
    points = plain(by_skew(results, mode, cold=cold))
    if not points or not points[0][0] <= results.skew <= points[-1][0]:
        return None
    skews, shares = zip(*points, strict=True)
    return float(np.interp(results.skew, skews, shares))


def plain(shares: Shares) -> Points:
    """Without their intervals."""
    return [(place, share.value) for place, share in shares]


def _of(results: Results, mode: Mode, cold: bool, there: Callable[[Hits], bool]) -> list[Hits]:
    return [hits for hits in results.hits if (hits.mode, hits.cold) == (mode, cold) and hits.rows and there(hits)]


def _shares(seed: int, found: Sequence[Hits], place: Callable[[Hits], float]) -> Shares:
    groups = [(at, [hits for hits in found if place(hits) == at]) for at in sorted({place(hits) for hits in found})]
    shares = [(at, share([hits.hits for hits in group], [hits.rows for hits in group], seed)) for at, group in groups]
    return [(at, one) for at, one in shares if one]
