"""Single-write: a service that publishes each change to Kafka, in the envelope, and writes nowhere else."""

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
from confluent_kafka import KafkaException, Producer
from rich.console import Console
from rich.progress import Progress

from schema.fields import Row

Record = tuple[str, bytes, bytes]
SHOWN_EVERY = 5_000
_ENCODE = msgspec.json.Encoder().encode


def envelope(op: str, before: Row | None, after: Row | None, ts_ms: int) -> bytes:
    """A change as it goes over the wire."""
    return _ENCODE({"op": op, "before": before, "after": after, "ts_ms": ts_ms})


def record(op: str, before: Row | None, after: Row | None, ts_ms: int) -> Record:
    """A change as topic (before any prefix), key and value. ts_ms: when it happened, in Unix ms."""
    row = after if after is not None else before
    if row is None:
        raise ValueError("a change has a before or an after")
    source = type(row).source
    return source.topic, str(getattr(row, source.key)).encode(), envelope(op, before, after, ts_ms)


class Publisher:
    """Publishes to `prefix` + the row's topic, keyed by the row's key, so that a row's changes stay in order; idempotent, lz4."""

    def __init__(self, bootstrap: str, prefix: str = "") -> None:
        self._prefix = prefix
        self._failed: list[str] = []
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": 200_000,
                # what librdkafka tries again by itself is not news; what fails in the end is told by `flush`
                "log_level": 2,
            }
        )

    def publish(self, op: str, before: Row | None, after: Row | None, ts_ms: int) -> None:
        """Queue one change; `flush` says whether all arrived."""
        self.send(*record(op, before, after, ts_ms))

    def send(self, topic: str, key: bytes, value: bytes | None) -> None:
        """Queue any bytes; waits where the queue is full."""
        while True:
            try:
                self._producer.produce(self._prefix + topic, value, key, on_delivery=self._delivered)
            except BufferError:
                self._producer.poll(0.5)
            else:
                self._producer.poll(0)
                return

    def send_all(self, records: Iterable[Record]) -> int:
        """Queue (topic, key, value) records; how many."""
        count = 0
        for topic, key, value in records:
            self.send(topic, key, value)
            count += 1
        return count

    def flush(self, seconds: float = 60) -> None:
        """Return when everything has been acknowledged. Raises KafkaException."""
        left = self._producer.flush(seconds)
        if left or self._failed:
            raise KafkaException(f"{left} records not acknowledged in {seconds} s, failed: {self._failed[:3]}")

    def _delivered(self, error: Any, _record: Any) -> None:
        if error is not None:
            self._failed.append(str(error))


async def publish_all(publisher: Publisher, records: Iterable[Record], count: int, console: Console) -> None:
    """Send so many records under a progress bar; return when all have arrived. Can be cancelled. Raises KafkaException."""
    told = f"Publishing {count:,} changes to Kafka"
    if not console.is_terminal:
        console.print(told)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(told, total=count)
        for number, one in enumerate(records, 1):
            publisher.send(*one)
            if number % SHOWN_EVERY == 0:
                progress.update(bar, completed=number)
                await asyncio.sleep(0)
        await asyncio.to_thread(publisher.flush)
        progress.update(bar, completed=count)
