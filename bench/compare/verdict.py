"""What the numbers of a comparison come to, in words, and what each sentence rests on. Rules and thresholds stand as data at the top."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.compare import models, statistics
from bench.compare.costs import BreakEven
from bench.compare.digest import Cell, Digest
from bench.compare.models import REFERENCE_RATE
from bench.compare.statistics import MAXIMUM, Estimate, Share
from bench.compare.tables import memory
from bench.compare.wording import interval, number, percent, told, whole
from schema.loader import Mode

LEAST_REPEATS = 5
# milliseconds at REFERENCE_RATE: the published service level
LEVEL = {95.0: 5.0, MAXIMUM: 10.0}
# a mode of whose reads more fail is not called fast, whatever the others took
MOST_FAILING = 0.001
NO_DIFFERENCE = "no difference that this run can tell"


@dataclass(frozen=True, slots=True)
class Sentence:
    """rests_on: names of the tables that hold its numbers. decides: whether it is one of the few that say what to take."""

    words: str
    rests_on: tuple[str, ...]
    decides: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """One number of the view by another mode's. of: the ratio, None where it was not measured. less: whether less is better."""

    name: str
    table: str
    less: bool
    of: Callable[[Digest, Mode], Estimate | None]


# by who is faster and who is cheaper, view or other; "" is no difference that can be told
DECISIONS = {
    ("view", "view"): "the view, which is faster and costs less",
    ("view", ""): "the view, which is faster; what they cost cannot be told apart",
    ("view", "other"): "a trade, for the view is faster and {other} costs less",
    ("", "view"): "the view, which costs less; their latency cannot be told apart",
    ("", ""): "either, for neither latency nor cost can be told apart",
    ("", "other"): "{other}, which costs less; their latency cannot be told apart",
    ("other", "view"): "a trade, for {other} is faster and the view costs less",
    ("other", ""): "{other}, which is faster; what they cost cannot be told apart",
    ("other", "other"): "{other}, which is faster and costs less",
}
# of each kind of break-even: its name in Evens, where it is, and what is said where there is none
EVENS = (
    ("ratio", "{at} reads per change", "However many reads there are per change"),
    ("skew", "a skew of {at}", "At each skew that was measured"),
    ("kept", "{percent} of users ever read", "However many of the users are ever read"),
)


def verdict(digest: Digest) -> list[Sentence]:
    """Empty where there is none: `why_none` says why."""
    if why_none(digest):
        return []
    others = [mode for mode in digest.results.modes if mode != "view"]
    return [
        *(sentence for mode in others for sentence in _decision(digest, mode)),
        *_levels(digest),
        *_wrong(digest),
        *_faults(digest),
        *(sentence for mode in others for sentence in (*_compared(digest, mode), *_break_evens(digest, mode), _won(digest, mode))),
    ]


def why_none(digest: Digest) -> str:
    """Why these numbers are shown and not judged; empty where they are."""
    if digest.results.quick:
        return "A quick look: pictures and numbers, no verdict."
    if "view" not in digest.results.modes:
        return "No verdict: the view was not measured, and it is what the others are held against."
    repeats = {timing.repeat for timing in digest.results.timings}
    if len(repeats) < LEAST_REPEATS:
        return f"No verdict: {len(repeats)} repeats, and it takes {LEAST_REPEATS}."
    return ""


def _decision(digest: Digest, other: Mode) -> Iterator[Sentence]:
    faster, cheaper = _faster(digest, other), _better(_cost(digest, other), less=True)
    if faster is None or cheaper is None:
        unknown = "their latency" if faster is None else "what they cost"
        yield Sentence(f"View or {other}: not decided, for {unknown} was not measured, or only once.", ("latency", "costs"), decides=True)
        return
    chosen = DECISIONS[faster, cheaper].format(other=other)
    yield Sentence(f"View or {other}, in this scenario and at these prices: {chosen}.", ("latency", "costs"), decides=True)


def _faster(digest: Digest, other: Mode) -> str | None:
    """By p99, unless the reads of one of the two alone fail. None: not measured."""
    cells = [digest.cell(mode, digest.reference) for mode in ("view", other)]
    failing = [cell is not None and _fails(cell) for cell in cells]
    if failing[0] != failing[1]:
        return "other" if failing[0] else "view"
    return _better(_latency(99.0)(digest, other), less=True)


def _fails(cell: Cell) -> bool:
    return bool(cell.reads) and cell.failed / cell.reads > MOST_FAILING


def _better(by: Estimate | None, *, less: bool) -> str | None:
    """Who does better, "view" or "other"; "": no difference that can be told; None: not measured, or only once."""
    if by is None or by.low is None:
        return None
    return {0: "", -1: "view" if less else "other", 1: "other" if less else "view"}[by.apart_from(1.0)]


def _levels(digest: Digest) -> Iterator[Sentence]:
    if digest.reference != REFERENCE_RATE:
        yield Sentence(f"The published level is of {REFERENCE_RATE:,.0f} reads a second, a rate that was not measured.", ("latency",))
        return
    for mode in digest.results.modes:
        cell = digest.cell(mode, digest.reference)
        if cell is None or not cell.percentiles:
            yield Sentence(f"Whether mode {mode} keeps the published level was not measured.", ("latency",))
            continue
        told_of = [("p95", cell.at(95.0), LEVEL[95.0]), ("maximum", cell.at(MAXIMUM), LEVEL[MAXIMUM])]
        numbers = ", ".join(f"{name} {whole(found)} ms of {most:g}" for name, found, most in told_of if found)
        failed = f", {percent(100 * cell.failed / cell.reads)} of reads failed" if cell.failed else ""
        does = _keeping(cell)
        yield Sentence(f"Mode {mode} {does} the published level at {REFERENCE_RATE:,.0f}/s: {numbers}{failed}.", ("latency",))


def _keeping(cell: Cell) -> str:
    """A maximum was met or it was not; a percentile has an interval."""
    p95, most = cell.at(95.0), cell.at(MAXIMUM)
    if p95 is None or most is None or _fails(cell) or most.value >= LEVEL[MAXIMUM]:
        return "misses"
    return {-1: "keeps", 0: "may keep or miss (its interval holds the limit)", 1: "misses"}[p95.apart_from(LEVEL[95.0])]


def _wrong(digest: Digest) -> Iterator[Sentence]:
    told_of = [one for one in digest.wrongs if one.answers]
    for rate in sorted({one.changes_per_second for one in told_of}):
        parts = [f"{one.mode} {told(one.share)} ({one.wrong:,} of {one.answers:,})" for one in told_of if one.changes_per_second == rate]
        yield Sentence(f"Wrong when given, at {rate:,.0f} changes/s: {', '.join(parts)}.", ("staleness",))


def _faults(digest: Digest) -> Iterator[Sentence]:
    for fault in dict.fromkeys(one.fault for one in digest.results.timelines):
        lines = [one for one in digest.results.timelines if one.fault == fault]
        parts = [f"{one.mode} {sum(moment.failed for moment in one.moments):,}" for one in lines]
        yield Sentence(f"Reads that failed, {fault}, at {lines[0].rate:,.0f} reads/s: {', '.join(parts)}.", ("faults",))


def _compared(digest: Digest, other: Mode) -> Iterator[Sentence]:
    for comparison in COMPARISONS:
        by, name = comparison.of(digest, other), _name(comparison, digest)
        if by is None:
            yield Sentence(f"{name}, view and {other}: not measured.", (comparison.table,))
        elif by.apart_from(1.0) or by.low is None:
            yield Sentence(f"{name}: the view's is {whole(by)} times that of {other}.", (comparison.table,))
        else:
            yield Sentence(f"{name}, view and {other}: {NO_DIFFERENCE}: {whole(by)} times.", (comparison.table,))


def _name(comparison: Comparison, digest: Digest) -> str:
    return comparison.name.format(rate=number(digest.reference or REFERENCE_RATE))


def _break_evens(digest: Digest, other: Mode) -> Iterator[Sentence]:
    evens = next(one for one in digest.evens if one.other == other)
    if _better(_cost(digest, other), less=True) == "":
        yield Sentence(f"Where view and {other} cost the same: {NO_DIFFERENCE} between them, at the scenario's own reads.", ("costs",))
        return
    for name, place, everywhere in EVENS:
        found: BreakEven | None = getattr(evens, name)
        if found is None:
            continue
        if found.at is None:
            yield Sentence(f"{everywhere}, {found.below} costs less, of view and {other}.", ("break-evens",))
            continue
        where = place.format(at=number(found.at), percent=percent(100 * found.at))
        ends = f" (95 %: {interval(evens.ratio_ends)})" if name == "ratio" and evens.ratio_ends and interval(evens.ratio_ends) else ""
        yield Sentence(f"Below {where}{ends}, {found.below} costs less; above, {found.above}.", ("break-evens",))


def _won(digest: Digest, other: Mode) -> Sentence:
    """Where the view loses, whatever the decision was."""
    won = [
        f"{_name(comparison, digest)} (the view's is {whole(by)} times)"
        for comparison in COMPARISONS
        if (by := comparison.of(digest, other)) and _better(by, less=comparison.less) == "other"
    ]
    won += [*_less_wrong(digest, other), *_smaller(digest, other)]
    words = f"Where {other} does better than the view: {'; '.join(won)}." if won else f"In nothing that was compared did {other} do better."
    return Sentence(words, (*dict.fromkeys(comparison.table for comparison in COMPARISONS), "staleness", "memory"))


def _less_wrong(digest: Digest, other: Mode) -> Iterator[str]:
    """Where the intervals of both lie apart; what was measured once is told as it was seen."""
    for rate in sorted({one.changes_per_second for one in digest.wrongs}):
        shares = [
            next((one.share for one in digest.wrongs if (one.mode, one.changes_per_second) == (mode, rate)), None)
            for mode in ("view", other)
        ]
        ours, theirs = shares
        if ours and theirs and _low(ours) > _high(theirs):
            once = ", measured once" if ours.low is None else ""
            yield f"answers wrong at {rate:,.0f} changes/s ({told(theirs)} against {told(ours)}{once})"


def _low(share: Share) -> float:
    return share.value if share.low is None else share.low


def _high(share: Share) -> float:
    return share.value if share.high is None else share.high


def _smaller(digest: Digest, other: Mode) -> Iterator[str]:
    sizes = {mode: values[1] for mode, values in memory(digest).rows}
    ours, theirs = sizes.get("view"), sizes.get(other)
    if isinstance(ours, float) and isinstance(theirs, float | int) and theirs < ours:
        yield f"memory ({told(theirs)} MB against {told(ours)} MB)"


def _latency(percentile: float) -> Callable[[Digest, Mode], Estimate | None]:
    def of(digest: Digest, other: Mode) -> Estimate | None:
        cells = [digest.cell(mode, digest.reference) for mode in ("view", other)]
        found = [cell.repeats for cell in cells if cell and cell.repeats]
        return statistics.ratio(found[0], found[1], percentile, digest.results.seed) if len(found) == 2 else None

    return of


def _capacity(digest: Digest, other: Mode) -> Estimate | None:
    ours, theirs = (
        [rate for one in digest.results.capacities if one.mode == mode for rate in one.reads_per_second] for mode in ("view", other)
    )
    return statistics.ratio_of_sums(ours, theirs, digest.results.seed) if len(ours) == len(theirs) else None


def _cost(digest: Digest, other: Mode) -> Estimate | None:
    return models.by(digest.results, "view", other, digest.prices)


def _changes(digest: Digest, other: Mode) -> Estimate | None:
    return models.changes_by(digest.results, "view", other)


COMPARISONS = (
    Comparison("Median latency at {rate}/s", "latency", True, _latency(50.0)),
    Comparison("p99 at {rate}/s", "latency", True, _latency(99.0)),
    Comparison("Most reads a second", "capacities", False, _capacity),
    Comparison("CPU of one change", "writes", True, _changes),
    Comparison("Cost of a million reads", "costs", True, _cost),
)
