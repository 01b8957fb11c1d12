"""Every number of a report, in tables: beneath its pictures, and in figures.json. Computes and formats nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.compare import hits
from bench.compare.costs import BreakEven, cost
from bench.compare.digest import PERCENTS, Cell, Digest, Wrong
from bench.compare.models import Evens, models, use
from bench.compare.results import Moment, Timeline
from bench.compare.statistics import MAXIMUM, Estimate
from bench.compare.units import WORKERS, unit
from schema.loader import Mode

NO_PART = "no part"
CENTS = 100.0


class Percent(float):
    """0 to 100."""


Value = Estimate | Percent | float | int | str | None


@dataclass(frozen=True, slots=True)
class Table:
    """columns: the first is what the rows are called. A value of None was not measured."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Value]]]


def latency(digest: Digest) -> Table:
    columns = [
        "",
        *(f"{_percentile(percent)}, ms" for percent in PERCENTS),
        "failed",
        "of them timed out",
        "reads",
        "sent late by up to, ms",
    ]
    cells = sorted((cell for cell in digest.cells if cell.fraction is None), key=lambda cell: cell.rate)
    rows = [(f"{cell.rate:,.0f}/s, {cell.mode}", [*_percentiles(cell), *_failures(cell), cell.reads, cell.late_ms]) for cell in cells]
    return Table("latency", "Latency at fixed rates, and reads that failed", columns, rows)


def saturation(digest: Digest) -> Table:
    columns = ["", "rate, reads/s", "of its capacity", "p99, ms", "failed", "of them timed out", "reads"]
    rows = [
        (_cell_name(cell), [cell.rate, _of_capacity(digest, cell), cell.at(99.0), *_failures(cell), cell.reads]) for cell in digest.cells
    ]
    return Table("saturation", "Each mode at each rate", columns, rows)


def capacities(digest: Digest) -> Table:
    rows = [(mode, [told]) for mode, told in digest.capacities.items()]
    return Table("capacities", "The most that was answered, in closed loop", ["", "reads/s"], rows)


def hits_by_skew(digest: Digest) -> Table:
    return _hits(digest, "hits-by-skew", f"Rows from Redis by skew, at a TTL of {digest.results.ttl_seconds:g} s", "skew", hits.by_skew)


def hits_by_ttl(digest: Digest) -> Table:
    return _hits(digest, "hits-by-ttl", f"Rows from Redis by TTL, at a skew of {digest.results.skew:g}", "TTL, s", hits.by_ttl)


def staleness(digest: Digest) -> Table:
    columns = ["", "answers", "wrong", "share that was wrong", *(f"age {_percentile(percent)}, ms" for percent in PERCENTS)]
    rows = [
        (f"{one.mode}, {one.changes_per_second:,.0f} changes/s", [one.answers, one.wrong, one.share, *_ages(one)]) for one in digest.wrongs
    ]
    return Table("staleness", "Answers that lacked a change when they were given, and how old the oldest of it was", columns, rows)


def load(digest: Digest) -> Table:
    return Table("load", "For 1,000 reads", ["", *(heading for heading, _, _ in _LOADS)], _efforts(digest, "reads"))


def writes(digest: Digest) -> Table:
    return Table("writes", "For 1,000 changes", ["", *(heading for heading, _, _ in _LOADS)], _efforts(digest, "writes"))


def memory(digest: Digest) -> Table:
    rows = [(mode, _kept(digest, mode)) for mode in digest.results.modes]
    return Table("memory", "What lies in Redis", ["", "rows", "MB", "bytes a row", "MB if all users were kept"], rows)


def costs(digest: Digest) -> Table:
    """In cents, at the prices that the page begins with."""
    made, how = models(digest.results), use(digest.results)
    rows: list[tuple[str, Sequence[Value]]] = []
    for mode in digest.results.modes:
        told = cost(made[mode], digest.prices, how)
        parts = [None] * 4 if told is None else [part * CENTS for part in (told.reads, told.writes, told.memory, told.beside)]
        total = digest.totals[mode]
        rows.append((mode, [total.scaled(CENTS) if total else None, *parts]))
    return Table("costs", "Cents for a million reads", ["", "total", "reads", "changes", "memory", "what the view alone needs"], rows)


def break_evens(digest: Digest) -> Table:
    columns = ["", "reads per change", "95 % interval", "skew", "share of users that are read, 0 to 1"]
    rows = [(f"view and {one.other}", [_even(one.ratio), _ends(one.ratio_ends), *_of_cache(one)]) for one in digest.evens]
    return Table("break-evens", "Where two modes cost the same", columns, rows)


def faults(digest: Digest) -> Table:
    columns = ["", *(f"{name} {phase}" for phase in ("before", "during", "after") for name in ("p99 of the worst second, ms,", "failed"))]
    rows: dict[str, Sequence[Value]] = {}
    for one in digest.results.timelines:
        again = sum(name.startswith(f"{one.fault}, {one.mode}") for name in rows)
        name = f"{one.fault}, {one.mode}" + (f", {again + 1}" if again else "")
        rows[name] = [value for part in phases(one) for value in (_worst(part), _failed(part))]
    return Table("faults", "Before, during and after each fault", columns, list(rows.items()))


def phases(line: Timeline) -> tuple[list[Moment], list[Moment], list[Moment]]:
    """Before, during and after the fault; a second belongs to it in which it began or ended."""
    before = [one for one in line.moments if one.second + 1 <= line.began]
    after = [one for one in line.moments if one.second >= line.ended]
    return before, [one for one in line.moments if one not in before and one not in after], after


def summary(digest: Digest) -> Table:
    """A row for each number, a column for each mode."""
    reference, told = digest.reference, {mode: digest.cell(mode, digest.reference) for mode in digest.results.modes}
    wrongs = {one.mode: one for one in digest.wrongs}

    def row(name: str, of: Callable[[Mode], Value]) -> tuple[str, Sequence[Value]]:
        return name, [of(mode) for mode in digest.results.modes]

    def at(percent: float) -> Callable[[Mode], Value]:
        return lambda mode: cell.at(percent) if (cell := told[mode]) else None

    rows = [
        *(row(f"{_percentile(percent)} at {reference:,.0f}/s, ms", at(percent)) for percent in (50.0, 99.0, MAXIMUM) if reference),
        *([row(f"failed at {reference:,.0f}/s", lambda mode: cell.failing if (cell := told[mode]) else None)] if reference else []),
        row("most reads/s", lambda mode: digest.capacities[mode]),
        row("rows from Redis", lambda mode: _percent(digest.hits(mode))),
        row("wrong when given", lambda mode: wrongs[mode].share if mode in wrongs else None),
        row("SQL queries for 1,000 reads", lambda mode: _unit(digest, mode, "reads", "postgres_queries", 1_000)),
        row("MB in Redis", lambda mode: dict(memory(digest).rows)[mode][1]),
        row("cents for a million reads", lambda mode: total.scaled(CENTS) if (total := digest.totals[mode]) else None),
    ]
    return Table("summary", "All modes at a glance", ["", *digest.results.modes], rows)


# heading, number of Effort, and in how many of its units for 1,000 reads or changes it is told
_LOADS = (
    ("SQL queries", "postgres_queries", 1e3),
    ("SQL rows", "postgres_rows", 1e3),
    ("PostgreSQL, CPU ms", "postgres_cpu", 1e6),
    ("Redis commands", "redis_commands", 1e3),
    ("Redis, kB", "redis_bytes", 1.0),
    ("Redis, CPU ms", "redis_cpu", 1e6),
    ("gateway, CPU ms", "gateway_cpu", 1e6),
    ("projector, CPU ms", "projector_cpu", 1e6),
)


def _efforts(digest: Digest, kind: str) -> list[tuple[str, Sequence[Value]]]:
    return [(mode, [_unit(digest, mode, kind, name, factor) for _, name, factor in _LOADS]) for mode in digest.results.modes]


def _unit(digest: Digest, mode: Mode, kind: str, name: str, factor: float) -> Value:
    if name.partition("_")[0] not in WORKERS[mode]:
        return NO_PART
    told = unit(digest.results, mode, kind, name, digest.results.seed)
    return told.scaled(factor) if told else None


def _hits(digest: Digest, name: str, title: str, axis: str, points: Callable[..., hits.Shares]) -> Table:
    told = {(mode, cold): dict(points(digest.results, mode, cold=cold)) for mode in digest.caches for cold in (False, True)}
    columns = [
        axis,
        *(["view"] if "view" in digest.results.modes else []),
        *(f"{mode}, {'cold' if cold else 'warm'}" for mode, cold in told),
    ]
    whole: list[Value] = [Percent(100)] if "view" in digest.results.modes else []
    places = sorted({place for one in told.values() for place in one})
    return Table(name, title, columns, [(f"{place:g}", [*whole, *(one.get(place) for one in told.values())]) for place in places])


def _cell_name(cell: Cell) -> str:
    return f"{cell.mode}, {cell.rate:,.0f}/s" if cell.fraction is None else f"{cell.mode}, at {cell.fraction:.0%}"


def _percentiles(cell: Cell) -> list[Value]:
    return list(cell.percentiles) if cell.percentiles else [None] * len(PERCENTS)


def _failures(cell: Cell) -> list[Value]:
    return [cell.failing, cell.timeouts]


def _of_capacity(digest: Digest, cell: Cell) -> Value:
    most = digest.capacities[cell.mode]
    share = cell.fraction or (cell.rate / most.value if most else None)
    return None if share is None else f"{100 * share:.0f} %"


def _ages(one: Wrong) -> list[Value]:
    """By the same rule as the histograms': the smallest age that so many are not above."""
    if not one.ages_ms:
        return ["none wrong" if one.answers and not one.wrong else None] * len(PERCENTS)
    count = len(one.ages_ms)
    return [one.ages_ms[max(int(percent * count / 100 + 0.5), 1) - 1] for percent in PERCENTS]


def _kept(digest: Digest, mode: Mode) -> list[Value]:
    """Of several measurements the mean."""
    kept = [one for one in digest.results.memory if one.mode == mode]
    rows, size = sum(one.rows for one in kept), sum(one.redis_bytes for one in kept)
    if not rows:
        return [0 if mode == "sql" else None] * 4
    return [rows / len(kept), size / len(kept) / 1e6, size / rows, size / rows * digest.results.users / 1e6]


def _even(even: BreakEven | None) -> Value:
    if even is None:
        return None
    return even.at if even.at is not None else f"{even.below} is always cheaper"


def _of_cache(one: Evens) -> list[Value]:
    return ["no cache", "no cache"] if one.other == "sql" else [_even(one.skew), _even(one.kept)]


def _ends(ends: Estimate | None) -> Value:
    if ends is None or ends.low is None or ends.high is None:
        return None
    return f"{ends.low:.3g} to {ends.high:.3g}"


def _worst(part: Sequence[Moment]) -> Value:
    return max((moment.p99_ms for moment in part if moment.p99_ms is not None), default=None)


def _failed(part: Sequence[Moment]) -> int:
    return sum(moment.failed for moment in part)


def _percent(share: float | None) -> Value:
    return None if share is None else Percent(100 * share)


def _percentile(percent: float) -> str:
    return "max" if percent == MAXIMUM else f"p{percent:g}"
