"""The sections of a report in their order: what each says, which pictures and tables it has. How they look is page.py's."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.compare import plots, plots_of_costs, tables
from bench.compare.digest import Digest
from bench.compare.models import REFERENCE_RATE
from bench.compare.pictures import Plot
from bench.compare.statistics import CONFIDENCE_PERCENT, DRAWS
from bench.compare.tables import Table

COSTS = "costs"


@dataclass(frozen=True, slots=True)
class Section:
    """name: of its anchor. words: paragraphs."""

    name: str
    title: str
    words: Sequence[str]
    plots: Sequence[Plot]
    tables: Sequence[Table]


def sections(digest: Digest) -> list[Section]:
    """All but the summary, the verdict and the method. A part that was not measured says so."""
    return [
        Section("latency", "Latency at fixed rates", _LATENCY, list(plots.latency(digest)), [tables.latency(digest)]),
        Section(
            "throughput",
            "Throughput against p99",
            _SATURATION,
            [plots.saturation(digest)],
            [tables.saturation(digest), tables.capacities(digest)],
        ),
        Section(
            "hits",
            "Hits, by skew and TTL",
            _HITS,
            list(plots.hit_ratios(digest)),
            [tables.hits_by_skew(digest), tables.hits_by_ttl(digest)],
        ),
        Section("staleness", "Staleness", _STALENESS, list(plots.staleness(digest)), [tables.staleness(digest)]),
        Section("load", "Load of reads", _LOAD, list(plots_of_costs.efforts(digest, "reads")), [tables.load(digest)]),
        Section(
            "changes",
            "What changes cost, and memory",
            _WRITES,
            [*plots_of_costs.efforts(digest, "writes"), plots_of_costs.kept(digest)],
            [tables.writes(digest), tables.memory(digest)],
        ),
        Section(
            COSTS,
            "Cost, and where a cache is cheaper",
            _COSTS,
            [plots_of_costs.costs(digest)],
            [tables.costs(digest), tables.break_evens(digest)],
        ),
        Section("faults", "A fault while readers read", _FAULTS, list(plots_of_costs.faults(digest)), [tables.faults(digest)]),
    ]


def method(digest: Digest) -> list[tuple[str, str]]:
    """What is to be known to repeat the run, or to doubt it: name and text."""
    told = digest.results
    repeats = len({timing.repeat for timing in told.timings})
    late = max((timing.late_ms for timing in told.timings), default=0.0)
    compared = "nothing: what was timed has not been proven right"
    return [
        ("command", told.command),
        ("seed", f"{told.seed}"),
        ("began", f"{told.began}, took {told.took_seconds:,.0f} s"),
        ("machine", f"{told.machine}; {told.cores} cores for all of it, load generator and servers included"),
        ("versions", told.versions),
        ("changes came by", told.publishing),
        ("scenario", f"{told.users:,} users, skew {told.skew:g}, {told.reads_per_write:g} reads per change, TTL {told.ttl_seconds:g} s"),
        *((name, text) for name, text in told.definition.items()),
        ("fixed rates", ", ".join(f"{rate:,.0f}/s" for rate in digest.fixed) or "none"),
        ("repeats", f"{repeats}, interleaved: the modes of each came in the order {', '.join(told.order) or 'that is not recorded'}"),
        ("reads sent late by up to", f"{late:.3g} ms; it counts, for reads are timed from when they were due"),
        ("answers compared before", f"{told.equal:,}, of all modes, field by field: equal" if told.equal else compared),
        ("discarded, and measured again", "; ".join(f"{one.cell}: {one.reason}" for one in told.discarded) or "nothing"),
        ("percentiles", _PERCENTILES),
        ("intervals", _INTERVALS),
        ("a difference", "is told where the interval of the ratio, both modes drawn from the same repeats, leaves out 1."),
        ("raw files", "results.json: every histogram and count. figures.json: every number of this page. Pictures are beside them."),
    ]


_LATENCY = [
    "Open loop: each read is timed from when it was due, so one that waits behind another is as slow as it seemed to whoever asked. "
    "Reads that failed and reads that timed out count with the time that they took, and are told beside.",
    f"The published level of this service is p95 below 5 ms and no read above 10 ms, at {REFERENCE_RATE:,.0f} reads a second.",
]
_SATURATION = [
    "Each mode at fixed rates and at shares of what it can answer at most. "
    "A mode saturates where its line turns upwards. Bars are 95 % intervals.",
]
_HITS = [
    "Of the rows that reads asked for, the share that Redis had. Warm: after the cache had filled. Cold: it was empty at the beginning. "
    "The view holds every user, so its share is 100 % whatever the skew is, and it has no TTL.",
]
_STALENESS = [
    "An answer is wrong when it lacks a change that had been acknowledged to its writer before it was given. "
    "Its age is that of the oldest such change. "
    "The line says how many of all answers lacked a change at least so old. Ages are a sample where there are very many.",
]
_LOAD = [
    "Reads alone, with what the idle stack costs taken off in proportion to the seconds; what is less than that shows as 0. "
    "A server that has no part in a mode is not charged to it.",
]
_WRITES = [
    "Changes alone, with what the idle stack costs taken off. This is what the view pays for fast reads and a cache does not: "
    "each change is folded and written whether or not anybody reads it, and every user lies in memory. "
    "The write to PostgreSQL itself is the same in each mode and is counted in all.",
]
_COSTS = [
    "CPU seconds by the price of a vCPU, and Redis's memory by the month. Change the prices and the tables follow; "
    "the picture and the intervals do not.",
    "Reads per change: with hits as they were measured. Skew: along the warm hits above. Users that are ever read: "
    "the view keeps all of them, a cache only those. A miss is taken to cost what a read of mode sql costs. "
    "Below a break-even use a cache, unless the verdict says otherwise.",
    "Left out: servers that stand idle, replicas, disks, network, Kafka (unless you enter it) and people.",
]
_FAULTS = ["Second by second, while the reads went on at the same rate. Percentiles are of the reads that were due in that second."]
_PERCENTILES = (
    "Of all repeats' reads together: histograms are merged, percentiles never averaged. Reads that failed or timed out are among them."
)
_INTERVALS = (
    f"{CONFIDENCE_PERCENT} %, by bootstrap over repeats ({DRAWS:,} draws), widened as Student's t is for few repeats. "
    "A maximum's ends at what was seen."
)
