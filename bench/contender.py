"""What every contender is given and gives back, and the consumer with which those of aiokafka read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aiokafka import AIOKafkaConsumer

from bench.events import Counts
from bench.stopwatch import Run
from demo.servers.server import Say

# of each partition, compressed: what aiokafka asks for when it is told nothing, and so what app/worker.py asks for
FETCH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Task:
    """What to project: `events` records on the follows topic, from the beginning, as a consumer group that is new. home: for its files."""

    kafka: str
    redis: str
    topic_prefix: str
    group: str
    events: int
    home: Path = Path()


class Contender(Protocol):
    """A way to keep the counts; each run is in a process of its own, into an empty Redis, if it uses Redis.

    promise: how often an event counts, and where the counts are."""

    promise: str

    async def prepare(self, say: Say) -> None:
        """Bring what it needs to this machine. Raises MissingError where it cannot be had."""
        ...

    def measure(self, task: Task) -> Run:
        """Project all of it."""
        ...

    async def stored(self, task: Task) -> Counts:
        """The counts of every user, from where it keeps them; a user with neither is left out."""
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
