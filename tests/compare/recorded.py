"""A comparison as one is recorded: every part of it, made up from a seed, with what could not be measured and what was discarded."""

import random
from collections.abc import Iterator

from hdrh.histogram import HdrHistogram

from bench.compare.results import Capacity, Discarded, Effort, Hits, Memory, Moment, Results, Staleness, Timeline, Timing
from schema.loader import Mode

MODES: list[Mode] = ["view", "cache-aside", "cache-invalidate", "sql"]
# reads a second that each can carry; the median of its reads in µs; how far they spread
CAPACITY: dict[Mode, float] = {"view": 9_000, "cache-aside": 7_000, "cache-invalidate": 6_500, "sql": 1_600}
MEDIAN: dict[Mode, float] = {"view": 700, "cache-aside": 760, "cache-invalidate": 770, "sql": 4_200}
SPREAD: dict[Mode, float] = {"view": 0.22, "cache-aside": 0.30, "cache-invalidate": 0.30, "sql": 0.35}
MISSES: dict[Mode, float] = {"view": 0.0, "cache-aside": 0.14, "cache-invalidate": 0.08, "sql": 0.0}
RATES = (200.0, 1_000.0, 2_000.0)
FRACTIONS = (0.5, 0.8, 0.95)
READS = 1_500
USERS = 20_000


def recorded(seed: int = 7, repeats: int = 5, quick: bool = False, modes: list[Mode] | None = None) -> Results:
    """The same for the same arguments."""
    chance, told = random.Random(seed), MODES if modes is None else modes
    return Results(
        scenario="profile",
        about="profiles of a social network: Zipf's skew of 1.0, 1 change for 20 reads",
        quick=quick,
        seed=seed,
        began="2026-11-27T08:00:00Z",
        took_seconds=2_460.0,
        command=f"viewgate compare --scenario profile --seed {seed}",
        machine="A made-up processor, 2 cores, Linux 6.1, Python 3.11.2",
        versions="Redis 7.0.15, PostgreSQL 15.14, Apache Kafka 4.3.0",
        publishing="single-write",
        cores=2,
        users=USERS,
        skew=1.0,
        reads_per_write=20.0,
        ttl_seconds=30.0,
        definition={"seconds": "10", "users": f"{USERS}", "fields": "username name <tweetCount> & followerCount"},
        order=["ABCD", "DCBA", "ABCD", "DCBA", "ABCD"][:repeats],
        equal=4_000,
        modes=told,
        capacities=[
            Capacity(mode=mode, reads_per_second=[CAPACITY[mode] * chance.gauss(1, 0.02) for _ in range(repeats)]) for mode in told
        ],
        timings=list(_timings(chance, repeats, told)),
        hits=list(_hits(chance, told)),
        staleness=list(_staleness(chance, told)),
        efforts=list(_efforts(chance, repeats, told)),
        memory=[memory for memory in _memory() if memory.mode in told],
        timelines=list(_timelines(chance, told)),
        discarded=[Discarded(cell="cache-aside, 1,000/s, repeat 2", reason="the generator sent 41 ms too late, of 10 that it may")],
    )


def _timings(chance: random.Random, repeats: int, modes: list[Mode]) -> Iterator[Timing]:
    for repeat in range(repeats):
        for mode in modes:
            for rate in RATES:
                yield _timing(chance, mode, rate, None, repeat)
            for fraction in FRACTIONS:
                yield _timing(chance, mode, round(fraction * CAPACITY[mode]), fraction, repeat)


def _timing(chance: random.Random, mode: Mode, rate: float, fraction: float | None, repeat: int) -> Timing:
    load = rate / CAPACITY[mode]
    wait = 1 / (1 - min(load, 0.97))
    errors = timeouts = 0
    histogram = HdrHistogram(1, 60_000_000, 3)
    for _ in range(READS):
        micros = MEDIAN[mode] * chance.lognormvariate(0, SPREAD[mode]) * (1 + (wait - 1) * chance.expovariate(3))
        if chance.random() < MISSES[mode]:
            micros += 3_800 * chance.lognormvariate(0, 0.3)
        if load > 1 and chance.random() < 0.02:
            timeouts, micros = timeouts + 1, 5_000_000
        elif load > 1:
            micros *= 20
            errors += chance.random() < 0.01
        histogram.record_value(int(micros))
    encoded = histogram.encode().decode()
    late = chance.uniform(0.1, 2)
    return Timing(
        mode=mode,
        rate=rate,
        fraction=fraction,
        repeat=repeat,
        seconds=10,
        reads=READS,
        errors=errors,
        timeouts=timeouts,
        late_ms=late,
        histogram=encoded,
    )


def _hits(chance: random.Random, modes: list[Mode]) -> Iterator[Hits]:
    for mode in modes:
        if not mode.startswith("cache"):
            continue
        better = 0.05 if mode == "cache-invalidate" else 0.0
        for skew in (0.0, 0.6, 1.0, 1.4):
            for ttl in (5.0, 30.0, 120.0):
                for cold in (False, True):
                    if skew == 1.0 or ttl == 30.0:
                        share = min(0.99, 0.35 + 0.33 * skew + 0.0016 * ttl + better - 0.25 * cold) + chance.gauss(0, 0.004)
                        yield Hits(mode=mode, skew=skew, ttl_seconds=ttl, cold=cold, rows=10_000, hits=round(10_000 * share))


def _staleness(chance: random.Random, modes: list[Mode]) -> Iterator[Staleness]:
    wrong = {"view": 40, "cache-aside": 2_300, "cache-invalidate": 120, "sql": 0}
    middle = {"view": 3.0, "cache-aside": 9.2, "cache-invalidate": 3.6, "sql": 0.0}
    for mode in modes:
        ages = sorted(chance.lognormvariate(middle[mode], 0.6) for _ in range(wrong[mode]))
        yield Staleness(mode=mode, changes_per_second=1_000.0, answers=10_000, wrong=wrong[mode], ages_ms=ages)


# of one read and one change, in µs: gateway, projector, redis, postgres; and queries, rows, commands, bytes
READ_COST: dict[Mode, tuple[float, ...]] = {
    "view": (27, 0, 6, 0, 0, 0, 1, 420),
    "cache-aside": (46, 0, 8, 110, 0.27, 1.1, 1.27, 610),
    "cache-invalidate": (42, 0, 8, 90, 0.22, 0.9, 1.22, 590),
    "sql": (90, 0, 0, 420, 1, 4, 0, 0),
}
WRITE_COST: dict[Mode, tuple[float, ...]] = {
    "view": (0, 9, 11, 45, 2, 2, 2.2, 380),
    "cache-aside": (0, 0, 0, 44, 2, 2, 0, 0),
    "cache-invalidate": (0, 5, 3, 45, 2, 2, 1.6, 90),
    "sql": (0, 0, 0, 44, 2, 2, 0, 0),
}
IDLE = (0.004, 0.010, 0.006, 0.005)


def _efforts(chance: random.Random, repeats: int, modes: list[Mode]) -> Iterator[Effort]:
    for mode in modes:
        for _ in range(repeats):
            yield _effort(chance, mode, "reads", 20_000, READ_COST[mode])
            yield _effort(chance, mode, "writes", 10_000, WRITE_COST[mode])
            yield _effort(chance, mode, "idle", 0, (0.0,) * 8)


def _effort(chance: random.Random, mode: Mode, kind: str, count: int, costs: tuple[float, ...]) -> Effort:
    cpu = [(idle * 10 + cost * count / 1e6) * chance.gauss(1, 0.03) for cost, idle in zip(costs[:4], IDLE, strict=True)]
    queries, rows, commands, size = (round(cost * count) for cost in costs[4:])
    # this machine cannot see the CPU of PostgreSQL where it invalidates
    hidden = mode == "cache-invalidate" and kind == "writes"
    return Effort(
        mode=mode, kind=kind, seconds=10.0, reads=count if kind == "reads" else 0, changes=count if kind == "writes" else 0,
        postgres_queries=queries, postgres_rows=rows, redis_commands=commands, redis_bytes=size,
        gateway_cpu=cpu[0], projector_cpu=cpu[1] if mode in {"view", "cache-invalidate"} else None, redis_cpu=cpu[2],
        postgres_cpu=None if hidden else cpu[3],
    )  # fmt: skip


def _memory() -> Iterator[Memory]:
    yield Memory(mode="view", rows=USERS, redis_bytes=USERS * 318)
    yield Memory(mode="cache-aside", rows=6_400, redis_bytes=6_400 * 410)
    yield Memory(mode="cache-invalidate", rows=7_100, redis_bytes=7_100 * 410)


def _timelines(chance: random.Random, modes: list[Mode]) -> Iterator[Timeline]:
    for fault in ("redis restarts", "cache cold"):
        for mode in modes:
            moments = [_moment(chance, mode, second, second in range(10, 14) and mode != "sql") for second in range(30)]
            yield Timeline(mode=mode, fault=fault, rate=500.0, began=10.0, ended=14.0, moments=moments)


def _moment(chance: random.Random, mode: Mode, second: int, hurt: bool) -> Moment:
    if hurt and mode == "view" and second == 11:
        return Moment(second, 0, 500, None, None)
    middle = MEDIAN[mode] / 1000 * (8 if hurt else 1) * chance.gauss(1, 0.05)
    failed = 120 if hurt else 0
    return Moment(second, 500 - failed, failed, middle, middle * 3)
