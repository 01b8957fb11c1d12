"""The verdict says what the numbers say, and nothing where they say nothing."""

import io
from itertools import product

import msgspec
import pytest
from hdrh.histogram import HdrHistogram
from rich.console import Console

from bench.compare import lines
from bench.compare.digest import Digest
from bench.compare.results import Results, Timing
from bench.compare.verdict import DECISIONS, NO_DIFFERENCE, verdict, why_none
from schema.loader import Mode
from tests.compare.recorded import recorded

TWO: list[Mode] = ["view", "cache-aside"]


def words(results: Results) -> list[str]:
    return [sentence.words for sentence in verdict(Digest(results))]


def decision(results: Results) -> str:
    (decided,) = (sentence.words for sentence in verdict(Digest(results)) if sentence.decides)
    return decided


def shown(results: Results, width: int) -> str:
    written = io.StringIO()
    lines.show(results, Console(file=written, width=width))
    return written.getvalue()


def alike() -> Results:
    """As if cache-aside had measured what the view did."""
    results, parts = recorded(modes=TWO), {}
    for name in ("capacities", "timings", "efforts", "memory"):
        ours = [one for one in getattr(results, name) if one.mode == "view"]
        parts[name] = [*ours, *(msgspec.structs.replace(one, mode="cache-aside") for one in ours)]
    efforts = [msgspec.structs.replace(one, projector_cpu=0.0) for one in parts["efforts"]]
    return msgspec.structs.replace(results, **(parts | {"efforts": efforts}))


def swapped() -> Results:
    """As if each of the two had measured what the other did."""
    results = recorded(modes=TWO)
    other: dict[Mode, Mode] = {"view": "cache-aside", "cache-aside": "view"}
    parts = {
        name: [msgspec.structs.replace(one, mode=other[one.mode]) for one in getattr(results, name)]
        for name in ("capacities", "timings", "efforts", "memory")
    }
    efforts = [msgspec.structs.replace(one, projector_cpu=one.projector_cpu or 0.0) for one in parts["efforts"]]
    return msgspec.structs.replace(results, **(parts | {"efforts": efforts}))


def all_took(micros: int, timing: Timing) -> Timing:
    made = HdrHistogram(1, 60_000_000, 3)
    made.record_value(micros, timing.reads)
    return msgspec.structs.replace(timing, histogram=made.encode().decode())


def test_a_recorded_run_is_judged_with_its_numbers(results: Results) -> None:
    told = words(results)
    assert "View or cache-aside, in this scenario and at these prices: the view, which is faster and costs less." in told
    assert "View or cache-invalidate: not decided, for what they cost was not measured, or only once." in told
    assert any(one.startswith("Mode view keeps the published level at 1,000/s: p95 1.0") for one in told)
    assert any(one.startswith("Mode sql misses the published level") for one in told)
    assert any("cache-aside 23 % (2,300 of 10,000)" in one for one in told)
    won = next(one for one in told if one.startswith("Where cache-aside does better than the view:"))
    assert "CPU of one change" in won
    assert "memory (2.62 MB against 6.36 MB)" in won
    assert "Cost" not in won
    assert any(
        one.startswith("Below ") and one.endswith("reads per change (95 %: 0.0791 to 0.112), cache-aside costs less; above, view.")
        for one in told
    )


def test_a_cache_that_is_faster_and_cheaper_is_what_to_take() -> None:
    told = swapped()
    assert decision(told).endswith("cache-aside, which is faster and costs less.")
    (won,) = (one for one in words(told) if one.startswith("Where cache-aside does better"))
    assert all(name in won for name in ("Median latency", "p99 at 1,000/s", "Most reads a second", "Cost of a million reads"))
    assert "CPU of one change" not in won


def test_what_cannot_be_told_apart_is_said_to_be_so() -> None:
    told = words(alike())
    assert decision(alike()).endswith("either, for neither latency nor cost can be told apart.")
    assert sum(NO_DIFFERENCE in one for one in told) == 6
    assert "In nothing that was compared did cache-aside do better." in told
    assert f"Where view and cache-aside cost the same: {NO_DIFFERENCE} between them, at the scenario's own reads." in told


def test_what_was_measured_once_is_told_and_decides_nothing() -> None:
    told = recorded(modes=TWO)
    once = [
        next(one for one in told.efforts if (one.mode, one.kind) == (mode, kind)) for mode in TWO for kind in ("reads", "writes", "idle")
    ]
    told = msgspec.structs.replace(told, efforts=once)
    assert decision(told) == "View or cache-aside: not decided, for what they cost was not measured, or only once."
    assert any(one.startswith("Cost of a million reads: the view's is 0.1") and "one repeat, no interval" in one for one in words(told))


def test_a_mode_that_is_less_often_wrong_does_better_there(results: Results) -> None:
    (sql,) = (one for one in words(results) if one.startswith("Where sql does better"))
    assert "answers wrong at 1,000 changes/s (0 % against 0.4 %, measured once)" in sql
    repeated = [
        msgspec.structs.replace(one, wrong=one.wrong + shift) for one in results.staleness for shift in range(5) if one.mode != "sql"
    ]
    near = [msgspec.structs.replace(one, mode="sql", wrong=one.wrong - 1) for one in repeated if one.mode == "view"]
    (sql,) = (one for one in words(msgspec.structs.replace(results, staleness=repeated + near)) if one.startswith("Where sql does better"))
    assert "answers wrong" not in sql


def test_a_mode_whose_reads_fail_is_not_the_faster_one() -> None:
    told = recorded(modes=TWO)
    failing = [
        msgspec.structs.replace(timing, errors=timing.reads // 100) if timing.mode == "view" and timing.rate == 1_000.0 else timing
        for timing in told.timings
    ]
    told = msgspec.structs.replace(told, timings=failing)
    assert decision(told).endswith("a trade, for cache-aside is faster and the view costs less.")
    assert any(one.startswith("Mode view misses the published level") and one.endswith(", 1 % of reads failed.") for one in words(told))


@pytest.mark.parametrize(
    ("micros", "does"),
    [
        ([3_000] * 5, "keeps"),
        ([6_000] * 5, "misses"),
        ([11_000, 1_000, 1_000, 1_000, 1_000], "misses"),
        ([4_000, 4_500, 5_500, 6_000, 4_000], "may"),
    ],
)
def test_the_level_is_kept_missed_or_not_to_be_told(results: Results, micros: list[int], does: str) -> None:
    timings = [all_took(micros[one.repeat], one) for one in results.timings if (one.mode, one.rate) == ("view", 1_000.0)]
    told = words(msgspec.structs.replace(recorded(modes=["view"]), timings=timings))
    assert any(one.startswith(f"Mode view {does}") for one in told)


def test_a_level_that_no_rate_was_measured_for_is_not_judged(results: Results) -> None:
    slow = [timing for timing in results.timings if timing.rate != 1_000.0]
    told = words(msgspec.structs.replace(results, timings=slow))
    assert "The published level is of 1,000 reads a second, a rate that was not measured." in told
    assert not any("keeps" in one or "misses" in one for one in told)


@pytest.mark.parametrize(
    ("results", "why"),
    [
        (recorded(quick=True), "A quick look"),
        (recorded(repeats=4), "4 repeats, and it takes 5"),
        (recorded(modes=["cache-aside", "sql"]), "the view was not measured"),
    ],
)
def test_there_is_no_verdict_where_there_cannot_be_one(results: Results, why: str) -> None:
    assert words(results) == []
    assert why in why_none(Digest(results))
    assert why in shown(results, 90)


def test_every_decision_has_its_words() -> None:
    assert set(DECISIONS) == set(product(("view", "", "other"), repeat=2))


def test_the_terminal_has_the_numbers_and_what_to_take(results: Results) -> None:
    told = shown(results, 160)
    assert "not measured" in told
    assert "the view, which is faster and costs less." in told
    (p99,) = (line for line in told.splitlines() if line.startswith("p99 at 1,000/s, ms"))
    assert "1.23 (1.21 to 1.24)" in p99
    assert len(told.splitlines()) < 20
