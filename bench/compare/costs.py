"""What a million reads cost, by a linear model of measured units and given prices; page/costs.js is the same in the browser. Pure.

Of one read, in money: its CPU seconds, and those of one change by reads per change, each times its server's price of a vCPU second; and
what Redis keeps, with whatever the view alone needs, by the reads of a month. Left out: what servers cost that stand idle, disks, network.
A read of a cache is a hit or a miss, and a miss costs what a read of mode sql costs: so the share of hits, and with it the skew, can be
varied. Hits are taken as measured where reads per change vary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from bench.compare.units import SERVERS, Work
from schema.loader import Mode

HOURS_OF_MONTH = 730.0
GIGABYTE = 1e9
MILLION = 1_000_000


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """In one currency, an example: about what managed servers are listed for. gateway: its vCPUs and the projector's. gb_month: of
    Redis's memory. view_month: what only the view needs beside, such as Kafka where there is none yet.
    """

    gateway_vcpu_hour: float = 0.04
    redis_vcpu_hour: float = 0.05
    postgres_vcpu_hour: float = 0.09
    gb_month: float = 10.0
    view_month: float = 0.0


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """reads_per_second: over a whole month; reads_per_write: above 0."""

    reads_per_second: float
    reads_per_write: float


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Units of a mode, as measured. read, write: CPU seconds of one. memory: bytes in Redis; full: if every user were kept.

    hits: the share of rows from the cache while `read` was measured; None: there is no cache, or it was not measured.
    """

    mode: Mode
    read: Work
    write: Work
    memory: float | None
    full: float | None
    hits: float | None


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a million reads, in money."""

    reads: float
    writes: float
    memory: float
    beside: float

    @property
    def total(self) -> float:
        return self.reads + self.writes + self.memory + self.beside


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Where two cost the same. at: None where the one in `below` (which is the one in `above`) is cheaper wherever it was looked."""

    at: float | None
    below: Mode
    above: Mode


def cost(model: Model, prices: Prices, use: Use) -> Cost | None:
    """None: a part of it was not measured."""
    read, write = _money(model.read, prices), _money(model.write, prices)
    if read is None or write is None or model.memory is None:
        return None
    monthly = prices.view_month if model.mode == "view" else 0.0
    kept = model.memory / GIGABYTE * prices.gb_month
    a_month = MILLION / _reads_of_month(use)
    return Cost(read * MILLION, write * MILLION / use.reads_per_write, kept * a_month, monthly * a_month)


def break_even_ratio(view: Model, other: Model, prices: Prices, use: Use) -> BreakEven | None:
    """In reads per change. None: not measured."""
    ours, theirs = cost(view, prices, use), cost(other, prices, use)
    if ours is None or theirs is None:
        return None
    # of a million reads: what changes cost at one read per change, and what the rest costs whatever the ratio
    changes = (ours.writes - theirs.writes) * use.reads_per_write
    rest = (ours.total - ours.writes) - (theirs.total - theirs.writes)
    few, many = _cheaper(changes or rest, view, other), _cheaper(rest or changes, view, other)
    return BreakEven(None if few == many else -changes / rest, few, many)


def break_even_skew(
    view: Model, cache: Model, sql: Model, hits: Sequence[tuple[float, float]], prices: Prices, use: Use
) -> BreakEven | None:
    """Within the skews that were measured. hits: (skew, share of rows from the cache), growing. None: not measured."""
    ours, told = cost(view, prices, use), [(skew, cost(with_hits(cache, sql, share), prices, use)) for skew, share in hits]
    theirs = [(skew, one.total) for skew, one in told if one is not None]
    return None if ours is None or len(theirs) < len(told) or not told else _crossing(theirs, ours.total, view, cache)


def break_even_kept(view: Model, cache: Model, prices: Prices, use: Use) -> BreakEven | None:
    """In the share of users that are ever read, 0 to 1: the view keeps all, a cache those. Hits as measured. None: not measured."""
    ours, theirs = cost(view, prices, use), cost(cache, prices, use)
    if ours is None or theirs is None or cache.full is None:
        return None
    all_kept = cache.full / GIGABYTE * prices.gb_month * MILLION / _reads_of_month(use)
    empty = theirs.total - theirs.memory
    return _crossing([(0.0, empty), (1.0, empty + all_kept)], ours.total, view, cache)


def with_hits(cache: Model, sql: Model, share: float) -> Model:
    """The cache's units at another share of hits; those of its servers that cannot be told are None."""
    read = Work(**{server: _mixed(cache, sql, server, share) for server in SERVERS})
    return msgspec.structs.replace(cache, read=read, hits=share)


def _mixed(cache: Model, sql: Model, server: str, share: float) -> float | None:
    """In CPU seconds. Redis is asked for a hit and for a miss; so is the projector, which has no part in either."""
    measured: float | None = getattr(cache.read, server)
    miss: float | None = measured if server in {"redis", "projector"} else getattr(sql.read, server)
    if measured is None or miss is None or not cache.hits:
        return None
    missed = 1 - cache.hits
    hit = (measured - missed * miss) / cache.hits
    if hit < 0:
        # misses cost less than mode sql says: then they alone are all of it
        hit, miss = 0.0, measured / missed
    return hit + (1 - share) * (miss - hit)


def _crossing(theirs: Sequence[tuple[float, float]], ours: float, view: Model, other: Model) -> BreakEven:
    """The first place where the others' cost, straight between its points, is ours."""
    first = theirs[0]
    for last in theirs[1:]:
        before, after = first[1] - ours, last[1] - ours
        if (before < 0) != (after < 0):
            at = first[0] + (last[0] - first[0]) * before / (before - after)
            return BreakEven(at, _cheaper(-before, view, other), _cheaper(-after, view, other))
        first = last
    cheaper = _cheaper(ours - theirs[0][1], view, other)
    return BreakEven(None, cheaper, cheaper)


def _cheaper(difference: float, view: Model, other: Model) -> Mode:
    """difference: what the view costs more."""
    return other.mode if difference > 0 else view.mode


def _money(work: Work, prices: Prices) -> float | None:
    parts = (
        (work.gateway, prices.gateway_vcpu_hour),
        (work.projector, prices.gateway_vcpu_hour),
        (work.redis, prices.redis_vcpu_hour),
        (work.postgres, prices.postgres_vcpu_hour),
    )
    told = [seconds * price / 3600 for seconds, price in parts if seconds is not None]
    return sum(told) if len(told) == len(parts) else None


def _reads_of_month(use: Use) -> float:
    return use.reads_per_second * 3600 * HOURS_OF_MONTH
