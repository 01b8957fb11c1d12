"""Merged percentiles and their intervals, on reads whose answer is known."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from bench.compare import statistics
from bench.compare.results import Timing
from bench.compare.statistics import MAXIMUM, Estimate

PERCENTS = (50.0, 95.0, 99.0, 99.9, MAXIMUM)


def histogram(micros: Sequence[int]) -> HdrHistogram:
    made = HdrHistogram(1, 60_000_000, 3)
    for one in micros:
        made.record_value(one)
    return made


def timing(repeat: int, micros: Sequence[int]) -> Timing:
    return Timing(
        mode="view",
        rate=1000.0,
        fraction=None,
        repeat=repeat,
        seconds=1.0,
        reads=len(micros),
        errors=0,
        timeouts=0,
        late_ms=0.0,
        histogram=histogram(micros).encode().decode(),
    )


def found(*rounds: Sequence[int]) -> statistics.Repeats:
    made = statistics.repeats([timing(number, micros) for number, micros in enumerate(rounds)])
    assert made
    return made


def drawn(seed: int, count: int, middle: float = 6.5) -> list[int]:
    chance = random.Random(seed)
    return [int(chance.lognormvariate(middle, 0.7)) + 1 for _ in range(count)]


def test_merged_repeats_are_what_one_histogram_of_all_reads_would_be() -> None:
    rounds = [drawn(seed, 1_000 + 501 * seed, 6 + seed / 4) for seed in range(5)]
    whole = histogram([micros for one in rounds for micros in one])
    told = [estimate.value for estimate in statistics.percentiles(found(*rounds), PERCENTS, 1)]
    assert told == [whole.get_value_at_percentile(percent) / 1000 for percent in PERCENTS]
    assert told[-1] == whole.get_max_value() / 1000


def test_a_merged_percentile_is_not_the_mean_of_percentiles() -> None:
    quiet, slow = [1_000] * 990 + [2_000] * 10, [50_000] * 1_000
    (p99,) = statistics.percentiles(found(quiet, slow), [99.0], 1)
    assert p99.value == pytest.approx(50, rel=0.001)


def test_several_timings_of_one_repeat_are_one_repeat_and_one_without_reads_is_none() -> None:
    made = statistics.repeats([timing(1, [1_000]), timing(1, [3_000] * 9), timing(2, []), timing(3, [2_000])])
    assert made
    assert (made.numbers, made.reads) == ((1, 3), 11)
    assert statistics.repeats([timing(1, [])]) is None
    assert statistics.repeats([]) is None


def test_the_interval_of_repeats_that_are_alike_has_no_width() -> None:
    same = drawn(3, 2_000)
    for estimate in statistics.percentiles(found(*[same] * 5), PERCENTS, 1):
        assert estimate.low == estimate.value == estimate.high
    assert statistics.mean([7.0] * 5, 1) == Estimate(7.0, 7.0, 7.0, 5)


def test_one_repeat_has_no_interval_and_is_apart_from_nothing() -> None:
    (p50,) = statistics.percentiles(found([1_000] * 10), [50.0], 1)
    assert (p50.low, p50.high, p50.repeats) == (None, None, 1)
    assert p50.apart_from(900.0) == 0


def test_an_interval_is_apart_only_from_what_lies_outside_of_it() -> None:
    estimate = Estimate(2.0, 1.0, 3.0, 5)
    assert [estimate.apart_from(value) for value in (0.9, 1.0, 2.5, 3.0, 3.1)] == [1, 0, 0, 0, -1]


def test_the_same_reads_have_the_same_intervals_each_time() -> None:
    reads = found(*[drawn(seed, 500) for seed in range(5)])
    assert statistics.percentiles(reads, PERCENTS, 4) == statistics.percentiles(reads, PERCENTS, 4)


def test_an_interval_holds_its_value_and_lies_within_what_repeats_gave() -> None:
    rounds = [drawn(seed, 800) for seed in range(5)]
    alone = [histogram(one).get_value_at_percentile(99.0) / 1000 for one in rounds]
    (p99,) = statistics.percentiles(found(*rounds), [99.0], 1)
    assert p99.low is not None
    assert p99.high is not None
    assert min(alone) <= p99.low <= p99.value <= p99.high <= max(alone)
    assert p99.low < p99.high


def test_intervals_of_five_and_of_ten_hold_the_truth_about_as_often_as_they_say() -> None:
    chance = np.random.default_rng(2026)
    for repeats, least in ((5, 0.88), (10, 0.90)):
        held = 0
        for seed in range(100):
            estimate = statistics.mean(chance.normal(10.0, 1.0, repeats).tolist(), seed)
            assert estimate
            held += estimate.apart_from(10.0) == 0
        assert least <= held / 100 <= 1


def test_a_ratio_takes_both_from_the_same_rounds() -> None:
    """Round by round the one takes twice as long: what is slow for both says nothing of the two."""
    rounds = [[1_000 * (number + 1)] * 100 for number in range(5)]
    twice = [[2 * micros for micros in one] for one in rounds]
    told = statistics.ratio(found(*twice), found(*rounds), 99.0, 1)
    assert told
    assert told.low == pytest.approx(2.0, rel=0.002)
    assert told.high == pytest.approx(2.0, rel=0.002)
    (p99,) = statistics.percentiles(found(*rounds), [99.0], 1)
    assert p99.apart_from(4.9) == 0


def test_a_ratio_is_of_the_rounds_that_both_have() -> None:
    one = statistics.repeats([timing(number, [2_000] * 10) for number in (1, 2, 3)])
    other = statistics.repeats([timing(number, [micros] * 10) for number, micros in ((2, 1_000), (3, 1_000), (4, 9_000))])
    stranger = statistics.repeats([timing(9, [1_000])])
    assert one
    assert other
    assert stranger
    told = statistics.ratio(one, other, 50.0, 1)
    assert told
    assert (told.repeats, round(told.value, 2)) == (2, 2.0)
    assert statistics.ratio(one, stranger, 50.0, 1) is None


def test_a_share_is_of_all_together() -> None:
    told = statistics.share([1, 0, 0], [10, 90, 0], 1)
    assert told
    assert (told.value, told.repeats) == (0.01, 2)
    assert statistics.share([], [], 1) is None
    assert statistics.share([0], [0], 1) is None


def test_curves_go_up_to_the_last_read() -> None:
    reads = found([1_000] * 99 + [9_000])
    tail = statistics.curve(reads)
    assert tail[0][0] == 1.0
    assert list(tail[-1]) == pytest.approx([100.0, 9.0], rel=0.001)
    assert [part for _, part in statistics.cumulated(reads)] == [0.99, 1.0]
