"""What a gateway counts of its experiments: for /metrics, and by run for Redis, where the counts of all gateways come together."""

import heapq
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Histogram, Metric
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from app.difference import Verdict
from app.experiment import Experiment
from schema.loader import Mode

# of the names that were on trial last; each has a series for each mode
NAMES = 16
# distinct subjects that the ratio is judged by: those with the smallest hashes, so a fair sample of all of them
SUBJECTS = 8192
MISMATCHES = 100
# of the second half of a subject's digest: a double has room for it
SCORE_BYTES = 6
SCORES = 1 << 8 * SCORE_BYTES
# a Redis that has lost them is told again, after so many times
TAKES = 60
STALE_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

Outcome = Literal["equal", "stale", "wrong", "error", "dropped"]


class Run:
    """The counts of one run at this gateway. counts: what it has come to, by what is counted, as Redis has it.

    mismatches: the newest that are not in Redis yet.
    """

    def __init__(self, experiment: Experiment, metrics: "ExperimentMetrics") -> None:
        self.experiment, self._metrics = experiment, metrics
        self.counts: Counter[str] = Counter()
        self.exposures: Counter[Mode] = Counter()
        self.mismatches: deque[Mapping[str, Any]] = deque(maxlen=MISMATCHES)
        # with their scores; a member is a subject's digest and its mode
        self._subjects: dict[bytes, int] = {}
        self._taken: set[bytes] = set()
        self._takes = 0
        self._bound = math.inf

    def exposed(self, mode: Mode, digest: bytes) -> None:
        """A request of this subject has been given this mode."""
        self.exposures[mode] += 1
        self._metrics.exposures[self.experiment.name, mode] += 1
        score = int.from_bytes(digest[8 : 8 + SCORE_BYTES], "big")
        if score < self._bound:
            member = digest[:8] + mode.encode()
            if member not in self._taken:
                self._subjects[member] = score
                if len(self._subjects) > 2 * SUBJECTS:
                    self._subjects = dict(heapq.nsmallest(SUBJECTS, self._subjects.items(), key=lambda one: one[1]))
                    self.bounded(max(self._subjects.values()))

    def take(self) -> Mapping[bytes, int]:
        """The subjects that Redis has not been told of."""
        taken, self._subjects = self._subjects, {}
        self._takes += 1
        if self._takes % TAKES == 0 or len(self._taken) > 4 * SUBJECTS:
            self._taken.clear()
        self._taken |= taken.keys()
        return taken

    def put_back(self, subjects: Mapping[bytes, int]) -> None:
        """They were taken in vain."""
        self._taken -= subjects.keys()
        self._subjects = {**subjects, **self._subjects}

    def bounded(self, score: float) -> None:
        """Subjects from this score on are not among the smallest."""
        self._bound = min(self._bound, score)

    def compared(self, candidate: Mode, outcome: Outcome, *, control: bool) -> None:
        """A request that was to be answered by the candidate too, by the worst that came of it."""
        self._metrics.shadow.labels(candidate, outcome, str(control).lower()).inc()
        self.counts[f"shadow:{candidate}:{'control' if control else 'candidate'}:{outcome}"] += 1

    def differed(self, candidate: Mode, name: str, verdict: Verdict, age_ms: int, *, control: bool) -> None:
        """A field, once it is known what became of it."""
        if verdict == "stale":
            self._metrics.staleness.labels(candidate, str(control).lower()).observe(age_ms / 1000)
        self.counts[f"field:{candidate}:{'control' if control else 'candidate'}:{verdict}:{name}"] += 1


class ExperimentMetrics(Collector):
    """registry: of the gateway. Names are bounded, and modes are, so series are."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.shadow = PrometheusCounter(
            "viewgate_shadow",
            "Requests that a second mode was to answer too, by what came of it.",
            ["candidate", "outcome", "control"],
            registry=registry,
        )
        self.staleness = Histogram(
            "viewgate_shadow_staleness_seconds",
            "How long a stale field was seen to be behind, or how old the older answer said it was.",
            ["candidate", "control"],
            buckets=STALE_SECONDS,
            registry=registry,
        )
        # counted for each request, so without the labels and the locks of a Counter
        self.exposures: Counter[tuple[str, Mode]] = Counter()
        self._names: OrderedDict[str, None] = OrderedDict()
        registry.register(self)

    def run(self, experiment: Experiment) -> Run:
        """A new one."""
        self._names[experiment.name] = None
        self._names.move_to_end(experiment.name)
        if len(self._names) > NAMES:
            oldest, _ = self._names.popitem(last=False)
            for labels in [labels for labels in self.exposures if labels[0] == oldest]:
                del self.exposures[labels]
        return Run(experiment, self)

    def collect(self) -> Iterator[Metric]:
        """Asked at each /metrics."""
        exposures = CounterMetricFamily(
            "viewgate_exposures", "Requests that an experiment has given a mode.", labels=["experiment", "mode"]
        )
        for labels, times in self.exposures.items():
            exposures.add_metric(labels, times)
        yield exposures
