"""Metrics and logs: what each is called, and where logs go. docs/metrics.md has a line for each metric."""

import logging
import sys
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate
from typing import Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from loaders.cache_aside import Outcome
from schema.compile import Plans
from schema.loader import Mode
from schema.positions import Partition

REPEAT_SECONDS = 10.0
MOST_REMEMBERED = 1000
SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class GatewayMetrics(Collector):
    """The metrics of the road of a request, in a registry of their own. Also the Tally that loaders/cache_aside.py counts with."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.fallbacks = Counter(
            "viewgate_fallbacks", "Requests that another mode than the view answered, by reason.", ["reason"], registry=self.registry
        )
        self._refills = Histogram(
            "viewgate_cache_refill_seconds", "What a load of SQL for a cache took.", ["mode"], buckets=SECONDS, registry=self.registry
        )
        self.sql_in_flight = Gauge("viewgate_sql_in_flight", "Loads of SQL that are under way.", ["mode"], registry=self.registry)

        # counted for each request, so without the labels and the locks of a Counter
        self._requests: defaultdict[tuple[Mode, str], int] = defaultdict(int)
        self._operations: defaultdict[str, int] = defaultdict(int)
        self._cached: defaultdict[tuple[Mode, Outcome], int] = defaultdict(int)
        self._seconds: dict[Mode, _Histogram] = {}
        self.registry.register(self)

    def answered(self, mode: Mode, outcome: str, seconds: float) -> None:
        """A request: the mode that answered it, "ok" or the code of its error, how long it took."""
        self._requests[mode, outcome] += 1
        if (histogram := self._seconds.get(mode)) is None:
            histogram = self._seconds[mode] = _Histogram()
        histogram.observe(seconds)

    def operated(self, road: Literal["plan", "executor"]) -> None:
        """An operation, by what answered it."""
        self._operations[road] += 1

    def collect(self) -> Iterator[Metric]:
        """Asked at each /metrics."""
        requests = CounterMetricFamily(
            "viewgate_requests", "GraphQL requests by the mode that answered and the outcome.", labels=["mode", "outcome"]
        )
        for labels, times in self._requests.items():
            requests.add_metric(labels, times)
        seconds = HistogramMetricFamily("viewgate_request_seconds", "From the request's head to its answer.", labels=["mode"])
        for mode, histogram in self._seconds.items():
            seconds.add_metric([mode], histogram.buckets(), histogram.sum)
        operations = CounterMetricFamily(
            "viewgate_operations", "GraphQL operations by what answered: a plan or the executor.", labels=["road"]
        )
        for road, times in self._operations.items():
            operations.add_metric([road], times)
        cached = CounterMetricFamily("viewgate_cache_reads", "Entries that a mode with a cache looked for.", labels=["mode", "outcome"])
        for of, rows in self._cached.items():
            cached.add_metric(of, rows)
        yield from (requests, seconds, operations, cached)

    def count(self, mode: Mode, outcome: Outcome, rows: int) -> None:
        """Entries that a mode with a cache looked for."""
        self._cached[mode, outcome] += rows

    def refilled(self, mode: Mode, seconds: float) -> None:
        """What a load of SQL for a cache took."""
        self._refills.labels(mode).observe(seconds)


class _Histogram:
    """Of seconds, in the buckets that SECONDS bounds."""

    def __init__(self) -> None:
        self._times = [0] * (len(SECONDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self._times[bisect_left(SECONDS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """How many were in each and all below it, as Prometheus has them."""
        return list(zip([*map(str, SECONDS), "+Inf"], accumulate(self._times), strict=True))


class PlanMetrics(Collector):
    """How often the plans of a document were known."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def collect(self) -> Iterator[Metric]:
        """Asked at each /metrics."""
        found = CounterMetricFamily("viewgate_plans", "Documents by whether their plans were known.", labels=["outcome"])
        for outcome, times in (("hit", self._plans.hits), ("compiled", self._plans.compiled), ("evicted", self._plans.evicted)):
            found.add_metric([outcome], times)
        yield found


class ProjectorMetrics:
    """The metrics of the road of a message, in a registry of their own. Also the Observer that projectors/projector.py tells."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._applied = Counter("viewgate_changes_applied", "Changes that are in the view, exactly once.", registry=self.registry)
        self._duplicates = Counter("viewgate_duplicates_dropped", "Changes read again that some shard had already.", registry=self.registry)
        self._dead_letters = Counter(
            "viewgate_dead_letters", "Records that were no change, put into the dead-letter topic.", ["topic"], registry=self.registry
        )
        self._rewinds = Counter("viewgate_rewinds", "Times that Redis had lost writes and Kafka was read again.", registry=self.registry)
        self._lag = Gauge("viewgate_lag_records", "Records not yet in the view.", ["topic", "partition"], registry=self.registry)
        self._lag_seconds = Gauge(
            "viewgate_lag_seconds", "How long ago everything was that the view has.", ["topic", "partition"], registry=self.registry
        )

    def applied(self, changes: int) -> None:
        self._applied.inc(changes)

    def duplicates(self, changes: int) -> None:
        self._duplicates.inc(changes)

    def dead_letter(self, partition: Partition) -> None:
        self._dead_letters.labels(partition.topic).inc()

    def rewound(self, partition: Partition) -> None:
        self._rewinds.inc()

    def lag(self, partition: Partition, records: int, seconds: float) -> None:
        self._lag.labels(partition.topic, str(partition.number)).set(records)
        self._lag_seconds.labels(partition.topic, str(partition.number)).set(seconds)


class InvalidatorMetrics:
    """The metrics of `viewgate invalidate`, in a registry of their own; see Told in projectors/invalidate.py."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._entries = Counter("viewgate_invalidated_entries", "Entries of the cache that a change made stale.", registry=self.registry)
        self._behind = Gauge(
            "viewgate_invalidation_lag_records", "Records not yet seen by `invalidate`.", ["topic", "partition"], registry=self.registry
        )

    def invalidated(self, entries: int) -> None:
        self._entries.inc(entries)

    def behind(self, partition: Partition, records: int) -> None:
        self._behind.labels(partition.topic, str(partition.number)).set(records)


class _NotAgain(logging.Filter):
    """Leaves out what aiokafka said already: while Kafka is away it says the same ten times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] != "aiokafka":
            return True
        said = f"{record.name} {record.levelno} {record.getMessage()}"
        if record.created - self._said.get(said, 0.0) < REPEAT_SECONDS:
            return False
        if len(self._said) > MOST_REMEMBERED:
            self._said.clear()
        self._said[said] = record.created
        return True


def set_up_logs(level: str) -> None:
    """Everything to stderr, key=value on a terminal and a JSON object per line elsewhere; uvicorn's and other libraries' too."""
    terminal = sys.stderr.isatty()
    stamped: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()] if terminal else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=stamped, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered]
        )
    )
    handler.addFilter(_NotAgain())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    structlog.configure(
        processors=[*stamped, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
    )
