"""What reads cost and where two ways cost the same: against models whose answers were computed by hand."""

from typing import Any

import msgspec
import pytest

from bench.compare import hits, models
from bench.compare.costs import BreakEven, Model, Prices, Use, break_even_kept, break_even_ratio, break_even_skew, cost, with_hits
from bench.compare.results import Effort, Results
from bench.compare.units import Work, unit, work
from schema.loader import Mode
from tests.compare.recorded import recorded

# one money for a vCPU second; and a month has a million reads at this rate
PRICES = Prices(gateway_vcpu_hour=3600, redis_vcpu_hour=3600, postgres_vcpu_hour=3600, gb_month=1.0)
USE = Use(reads_per_second=1e6 / (730 * 3600), reads_per_write=10)


def seconds(gateway: float | None = 0, projector: float | None = 0, redis: float | None = 0, postgres: float | None = 0) -> Work:
    return Work(gateway=gateway, projector=projector, redis=redis, postgres=postgres)


def model(mode: Mode, read: Work, write: Work, gigabytes: float | None = 0.0, hit: float | None = None, full: float | None = None) -> Model:
    kept = None if gigabytes is None else gigabytes * 1e9
    return Model(mode=mode, read=read, write=write, memory=kept, full=None if full is None else full * 1e9, hits=hit)


VIEW = model("view", seconds(gateway=1e-6, redis=1e-6), seconds(projector=20e-6, redis=20e-6), 3.0)
CACHE = model("cache-aside", seconds(gateway=2e-6, redis=1e-6, postgres=3e-6), seconds(), 1.0, hit=0.5, full=4.0)
SQL = model("sql", seconds(gateway=3e-6, postgres=6e-6), seconds())


def test_a_million_reads_cost_what_a_hand_computes() -> None:
    told = cost(VIEW, msgspec.structs.replace(PRICES, view_month=7.0), USE)
    assert told
    # 2 µs a read; 40 µs a change, one for ten reads; 3 GB for a month of a million reads; what the view needs beside
    assert [told.reads, told.writes, told.memory, told.beside] == pytest.approx([2, 4, 3, 7])
    assert told.total == pytest.approx(16)
    theirs = cost(CACHE, msgspec.structs.replace(PRICES, view_month=7.0), USE)
    assert theirs
    assert [theirs.reads, theirs.writes, theirs.memory, theirs.beside] == pytest.approx([6, 0, 1, 0])


@pytest.mark.parametrize("hidden", [seconds(gateway=None), seconds(redis=None), seconds(postgres=None), seconds(projector=None)])
def test_what_was_not_measured_costs_nobody_knows_what(hidden: Work) -> None:
    assert cost(msgspec.structs.replace(VIEW, read=hidden), PRICES, USE) is None
    assert cost(msgspec.structs.replace(VIEW, write=hidden), PRICES, USE) is None
    assert cost(msgspec.structs.replace(VIEW, memory=None), PRICES, USE) is None
    assert break_even_ratio(msgspec.structs.replace(VIEW, read=hidden), CACHE, PRICES, USE) is None


def test_the_break_even_of_reads_and_changes_is_where_both_cost_the_same() -> None:
    # the view: 5 + 40 / ratio; the cache: 7 + 0 / ratio
    even = break_even_ratio(VIEW, CACHE, PRICES, USE)
    assert even
    assert even.at == pytest.approx(20)
    assert (even.below, even.above) == ("cache-aside", "view")
    there = Use(reads_per_second=USE.reads_per_second, reads_per_write=20)
    ours, theirs = cost(VIEW, PRICES, there), cost(CACHE, PRICES, there)
    assert ours
    assert theirs
    assert ours.total == pytest.approx(theirs.total)


@pytest.mark.parametrize(("beside", "write", "cheaper"), [(0.0, 0.0, "view"), (3.0, 40e-6, "cache-aside"), (3.0, 0.0, "cache-aside")])
def test_one_that_is_always_cheaper_is_named(beside: float, write: float, cheaper: Mode) -> None:
    view, prices = msgspec.structs.replace(VIEW, write=seconds(redis=write)), msgspec.structs.replace(PRICES, view_month=beside)
    assert break_even_ratio(view, CACHE, prices, USE) == BreakEven(None, cheaper, cheaper)


def test_a_read_of_a_cache_is_a_hit_or_a_miss() -> None:
    # half of them were hits at 3 + 3 µs beside Redis's: a miss is 3 + 6 of mode sql, so a hit is 1 of the gateway
    assert with_hits(CACHE, SQL, 0.5).read == CACHE.read
    all_hits, none = (msgspec.structs.astuple(with_hits(CACHE, SQL, share).read) for share in (1.0, 0.0))
    assert all_hits == pytest.approx((1e-6, 0, 1e-6, 0))
    assert none == pytest.approx((3e-6, 0, 1e-6, 6e-6))


def test_misses_that_cost_less_than_a_read_of_sql_are_all_that_was_measured() -> None:
    dear = msgspec.structs.replace(SQL, read=seconds(gateway=3e-6, postgres=60e-6))
    assert with_hits(CACHE, dear, 0.5).read == CACHE.read
    assert with_hits(CACHE, dear, 1.0).read.postgres == 0
    assert with_hits(CACHE, dear, 0.0).read.postgres == pytest.approx(6e-6)


def test_the_skew_of_the_break_even_lies_between_the_measured_ones() -> None:
    # the view costs 9; the cache 2 µs at all hits, 10 at none, and 1 for its memory: 11 less 8 for all hits, so 25 % of hits
    points = [(0.0, 0.1), (0.5, 0.2), (1.0, 0.3), (1.5, 0.9)]
    even = break_even_skew(VIEW, CACHE, SQL, points, PRICES, USE)
    assert even
    assert even.at == pytest.approx(0.75)
    assert (even.below, even.above) == ("view", "cache-aside")
    assert break_even_skew(VIEW, CACHE, SQL, points[2:], PRICES, USE) == BreakEven(None, "cache-aside", "cache-aside")
    assert break_even_skew(VIEW, CACHE, SQL, points[:2], PRICES, USE) == BreakEven(None, "view", "view")
    assert break_even_skew(VIEW, CACHE, SQL, [], PRICES, USE) is None


def test_the_share_of_users_that_are_read_decides_for_a_cache_that_keeps_only_those() -> None:
    # the view costs 9; the cache 6 and 4 for the memory of everybody
    even = break_even_kept(VIEW, CACHE, PRICES, USE)
    assert even
    assert even.at == pytest.approx(0.75)
    assert (even.below, even.above) == ("cache-aside", "view")
    assert break_even_kept(VIEW, msgspec.structs.replace(CACHE, full=2.0e9), PRICES, USE) == BreakEven(None, "cache-aside", "cache-aside")
    assert break_even_kept(VIEW, msgspec.structs.replace(CACHE, full=None), PRICES, USE) is None


def effort(kind: str, seconds: float, **given: Any) -> Effort:
    names = (
        "postgres_queries",
        "postgres_rows",
        "redis_commands",
        "redis_bytes",
        "gateway_cpu",
        "projector_cpu",
        "redis_cpu",
        "postgres_cpu",
    )
    counts: dict[str, Any] = {"reads": 0, "changes": 0} | dict.fromkeys(names)
    return Effort(mode="view", kind=kind, seconds=seconds, **(counts | given))


def results(efforts: list[Effort]) -> Results:
    return msgspec.structs.replace(recorded(repeats=1), efforts=efforts)


def test_what_the_idle_stack_costs_is_taken_off_in_proportion_to_the_seconds() -> None:
    reads = effort("reads", 10.0, reads=1_000, gateway_cpu=0.7, redis_cpu=0.05, redis_commands=1_050)
    idle = effort("idle", 5.0, gateway_cpu=0.1, redis_cpu=0.5, redis_commands=25)
    told = work(results([reads, idle]), "view", "reads")
    assert told.gateway == pytest.approx(0.5e-3)
    assert told.redis == 0.0
    assert told.postgres is None
    commands = unit(results([reads, idle]), "view", "reads", "redis_commands", 1)
    assert commands
    assert (commands.value, commands.low) == (1.0, None)
    assert unit(results([reads, idle]), "view", "writes", "redis_commands", 1) is None


def test_a_server_without_a_part_in_a_mode_costs_it_nothing() -> None:
    assert work(recorded(), "sql", "reads").redis == 0.0
    assert work(recorded(), "cache-aside", "writes").projector == 0.0
    assert work(recorded(), "cache-invalidate", "writes").postgres is None


def test_intervals_of_repeats_that_are_alike_have_no_width() -> None:
    told = recorded(repeats=1)
    alike = msgspec.structs.replace(told, efforts=told.efforts * 5)
    for found in (models.total(alike, "view", Prices()), models.by(alike, "view", "sql", Prices())):
        assert found
        assert found.repeats == 5
        assert found.low == pytest.approx(found.value)
        assert found.high == pytest.approx(found.value)
    once = models.total(told, "view", Prices())
    assert once
    assert once.low is None


def test_a_recorded_run_has_its_break_evens() -> None:
    told = recorded()
    aside, invalidate, sql = (models.evens(told, mode, Prices()) for mode in told.modes[1:])
    assert aside.ratio
    assert aside.ratio.at
    assert aside.ratio_ends
    assert aside.ratio_ends.low
    assert aside.ratio_ends.high
    assert aside.ratio_ends.low < aside.ratio.at < aside.ratio_ends.high
    assert aside.skew
    assert aside.kept
    assert (invalidate.ratio, invalidate.ratio_ends, invalidate.skew, invalidate.kept) == (None,) * 4
    assert sql.ratio
    assert (sql.skew, sql.kept) == (None, None)
    assert models.total(told, "cache-invalidate", Prices()) is None


def test_hits_between_two_skews_are_read_off_a_straight_line_and_beyond_them_not_at_all() -> None:
    told = recorded()
    points = dict(hits.plain(hits.by_skew(told, "cache-aside", cold=False)))
    assert hits.of_scenario(told, "cache-aside") == points[1.0]
    between = msgspec.structs.replace(told, skew=1.2, hits=[one for one in told.hits if one.ttl_seconds == 30.0])
    assert hits.of_scenario(between, "cache-aside") == pytest.approx((points[1.0] + points[1.4]) / 2)
    assert hits.of_scenario(msgspec.structs.replace(told, skew=1.5), "cache-aside") is None
    assert hits.of_scenario(told, "sql") is None


def test_a_comparison_without_a_view_or_without_sql_has_no_break_even_that_needs_it() -> None:
    assert models.evens(recorded(modes=["cache-aside", "sql"]), "cache-aside", Prices()).ratio is None
    assert models.evens(recorded(modes=["view", "cache-aside"]), "cache-aside", Prices()).skew is None
