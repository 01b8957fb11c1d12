"""What every contender is given and gives back, and the consumer that all of them read with."""

import resource
import time
from dataclasses import dataclass, field
from typing import Protocol

from aiokafka import AIOKafkaConsumer

from bench.events import Counts

# of each partition, compressed: what aiokafka asks for when it is told nothing, and so what app/worker.py asks for
FETCH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Task:
    """What to project: `events` records on the follows topic, from the beginning, as a consumer group that is new."""

    kafka: str
    redis: str
    topic_prefix: str
    group: str
    events: int


@dataclass(frozen=True, slots=True)
class Run:
    """How it went. seconds: from the first record in hand to the last effect acknowledged. cpu_seconds: Python's, between the same."""

    seconds: float
    cpu_seconds: float
    peak_mb: int
    fetches: int


@dataclass(slots=True)
class Stopwatch:
    """Started by the first records in hand, stopped by the last acknowledgement."""

    events: int
    fetches: int = 0
    applied: int = 0
    _started: tuple[float, float] = (0.0, 0.0)
    _stopped: tuple[float, float] | None = field(default=None)

    def in_hand(self) -> None:
        if not self.fetches:
            self._started = _now()
        self.fetches += 1

    def acknowledged(self, events: int) -> bool:
        """Whether these were the last."""
        self.applied += events
        if self.applied >= self.events and self._stopped is None:
            self._stopped = _now()
        return self._stopped is not None

    def run(self) -> Run:
        if self._stopped is None or self.applied != self.events:
            raise RuntimeError(f"{self.applied} events were applied, and there are {self.events}")
        wall, cpu = (end - start for start, end in zip(self._started, self._stopped, strict=True))
        return Run(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, self.fetches)


class Contender(Protocol):
    """A way to keep the counts; each run is in a process of its own."""

    def measure(self, task: Task) -> Run:
        """Project all of it into an empty Redis."""
        ...

    async def stored(self, redis_url: str) -> Counts:
        """The counts of every user in Redis."""
        ...


def open_consumer(task: Task, reset: str) -> AIOKafkaConsumer:
    """The production consumer's settings (app/worker.py)."""
    return AIOKafkaConsumer(
        bootstrap_servers=task.kafka,
        group_id=task.group,
        enable_auto_commit=False,
        auto_offset_reset=reset,
        isolation_level="read_committed",
        max_partition_fetch_bytes=FETCH_BYTES,
    )


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
