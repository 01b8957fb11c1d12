"""Single-write: a service that publishes each change to Kafka, in the form of its row, and writes nowhere else."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec
from confluent_kafka import KafkaException, Producer
from rich.console import Console
from rich.progress import Progress

from schema.definition import Definition
from schema.fields import Facts, Row
from schema.positions import Partition, Token

Record = tuple[str, bytes, bytes]
Headers = Sequence[tuple[str, bytes]]
SHOWN_EVERY = 5_000
POLL_SECONDS = 0.001
_ENCODE = msgspec.json.Encoder().encode


def envelope(op: str, before: Row | None, after: Row | None, ts_ms: int) -> bytes:
    """A change as it goes over the wire."""
    return _ENCODE({"op": op, "before": before, "after": after, "ts_ms": ts_ms})


def fact(op: str, row: Row, ts_ms: int) -> tuple[bytes, Headers]:
    """That a row came or went, as value and headers. Raises ValueError for any other op, and a row whose form is another."""
    form = type(row).source.form
    if not isinstance(form, Facts) or op not in {"c", "d"}:
        raise ValueError(f"op {op!r} of {type(row).__name__} is no fact: a fact says that a row came or went, and is never changed")
    kind = (form.created if op == "c" else form.deleted)[0]
    told = {form.at: ts_ms} if form.header is not None else {form.field: kind, form.at: ts_ms}
    headers = [] if form.header is None else [(form.header, kind.encode())]
    return _ENCODE(told | msgspec.structs.asdict(row)), headers


def record(op: str, before: Row | None, after: Row | None, ts_ms: int) -> Record:
    """A change as topic (before any prefix), key and value. ts_ms: when it happened, in Unix ms.

    Raises ValueError where the row's form tells it in headers too: `Publisher.publish` sends those.
    """
    topic, key, value, headers = _message(op, before, after, ts_ms)
    if headers:
        raise ValueError(f"a fact of {topic} is not told by key and value alone, but by a header too")
    return topic, key, value


def unpublished(definition: Definition) -> str:
    """Why this definition's rows are not all published here, with what to do; "" if they are."""
    others = [f"{row.__name__} (form={row.source.form!r})" for row in definition.rows if row.source.form in {"changelog", "outbox"}]
    if not others:
        return ""
    return f"Only envelopes and facts are published here: have {', '.join(others)} published by a service of yours; see docs/publishing.md."


def _message(op: str, before: Row | None, after: Row | None, ts_ms: int) -> tuple[str, bytes, bytes, Headers]:
    row = after if after is not None else before
    if row is None:
        raise ValueError("a change has a before or an after")
    source = type(row).source
    value, headers = fact(op, row, ts_ms) if isinstance(source.form, Facts) else (envelope(op, before, after, ts_ms), ())
    return source.topic, str(getattr(row, source.key)).encode(), value, headers


class Publisher:
    """Publishes to `prefix` + the row's topic, keyed by the row's key, so that a row's changes stay in order; idempotent, lz4."""

    def __init__(self, bootstrap: str, prefix: str = "") -> None:
        self._prefix = prefix
        self._failed: list[str] = []
        self._awaited = 0
        self._polling: asyncio.Task[None] | None = None
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

    def publish(self, op: str, before: Row | None, after: Row | None, ts_ms: int, arrived: Callable[[], None] | None = None) -> None:
        """Queue one change; `flush` says whether all arrived. arrived: called once Kafka has it, by `poll`, `send` or `flush`."""
        self.send(*_message(op, before, after, ts_ms), arrived)

    async def acknowledged(self, op: str, before: Row | None, after: Row | None, ts_ms: int, seconds: float = 10) -> Token:
        """Publish one change; once Kafka has acknowledged it, the token by which a reader can wait for it. Raises KafkaException."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[tuple[Any, Any]] = loop.create_future()

        def delivered(error: Any, stored: Any) -> None:
            # `flush` may run in another thread
            loop.call_soon_threadsafe(_settle, arrived, (error, stored))

        topic, key, value, headers = _message(op, before, after, ts_ms)
        self._producer.produce(self._prefix + topic, value, key, headers=list(headers), on_delivery=delivered)
        self._polling = self._polling or asyncio.create_task(self._poll())
        self._awaited += 1
        try:
            error, stored = await asyncio.wait_for(arrived, seconds)
        except TimeoutError as late:
            raise KafkaException(f"a change of {topic} was not acknowledged in {seconds} s") from late
        finally:
            self._awaited -= 1
        if error is not None:
            raise KafkaException(error)
        return Token(Partition(stored.topic(), stored.partition()), stored.offset())

    async def _poll(self) -> None:
        """Callbacks come from `poll` alone, whoever calls it."""
        while self._awaited:
            self._producer.poll(0)
            await asyncio.sleep(POLL_SECONDS)
        self._polling = None

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = (), arrived: Callable[[], None] | None = None
    ) -> None:
        """Queue any bytes; waits where the queue is full."""
        delivered = self._delivered if arrived is None else partial(self._delivered, arrived=arrived)
        while True:
            try:
                self._producer.produce(self._prefix + topic, value, key, headers=list(headers), on_delivery=delivered)
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

    def poll(self) -> None:
        """Hear of what has arrived."""
        self._producer.poll(0)

    def flush(self, seconds: float = 60) -> None:
        """Return when everything has been acknowledged. Raises KafkaException."""
        left = self._producer.flush(seconds)
        if left or self._failed:
            raise KafkaException(f"{left} records not acknowledged in {seconds} s, failed: {self._failed[:3]}")

    def _delivered(self, error: Any, _record: Any, arrived: Callable[[], None] = lambda: None) -> None:
        if error is not None:
            self._failed.append(str(error))
        else:
            arrived()


def _settle(arrived: "asyncio.Future[tuple[Any, Any]]", answer: tuple[Any, Any]) -> None:
    if not arrived.done():
        arrived.set_result(answer)


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
