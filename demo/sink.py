"""The sink of single-write: brings the topics into PostgreSQL and keeps its offsets there, in the same transaction."""

import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec
import structlog
import uvloop
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, OffsetOutOfRangeError, RequestTimedOutError

from app.settings import read_settings
from app.stopping import pause, told_to_stop
from app.telemetry import set_up_logs
from app.views import definition_of
from demo.servers.process import NotReadyError
from demo.tables import create_tables
from projectors.connections import steadied
from projectors.log import end
from projectors.records import Decode, decoders
from projectors.records.envelope import Undecodable
from schema.definition import Definition
from schema.fields import Row
from schema.sql import POSITIONS

AWAY: tuple[type[Exception], ...] = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    # a full disk, or too many connections
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    KafkaConnectionError,
    NodeNotReadyError,
    RequestTimedOutError,
)
RETRY_SECONDS = 0.5
log = structlog.stdlib.get_logger()


class OtherSink(Exception):
    """Another sink has gone on from where this one was; nothing of the batch was written."""


class RecordsGone(Exception):
    """Kafka no longer has what comes next; the message says what to do."""


class Sink:
    """Every partition of the definition's topics into the tables. Records that are no change are skipped: the projector buries them."""

    def __init__(self, definition: Definition, consumer: AIOKafkaConsumer, connection: asyncpg.Connection) -> None:
        self._consumer, self._connection = consumer, connection
        self._decoders = decoders(definition)
        self.next: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        """Go on from the offsets in the tables. Raises RecordsGone."""
        partitions = [TopicPartition(topic, n) for topic in self._decoders for n in self._consumer.partitions_for_topic(topic) or ()]
        self._consumer.assign(partitions)
        stored = await self._connection.fetch(f"SELECT topic, partition, next_offset FROM {POSITIONS}")  # noqa: S608  # a constant
        known = {TopicPartition(topic, partition): offset for topic, partition, offset in stored}
        for partition in partitions:
            self.next[partition] = known.get(partition, 0)
            self._consumer.seek(partition, self.next[partition])
        await self._check(partitions)

    async def _check(self, partitions: Sequence[TopicPartition]) -> None:
        firsts, ends = await asyncio.gather(self._consumer.beginning_offsets(partitions), self._consumer.end_offsets(partitions))
        for partition, offset in self.next.items():
            first, last = firsts[partition], ends[partition]
            if not first <= offset <= last:
                raise RecordsGone(
                    f"{partition.topic}:{partition.partition} has offsets {first} to {last}, and the tables have it up to {offset}: "
                    f"records were deleted. Fill the topics again, empty the tables and {POSITIONS}, and start the sink again."
                )

    async def step(self) -> int:
        """Fetch once and write it; how many records. Raises OtherSink."""
        fetched: Mapping[TopicPartition, Sequence[ConsumerRecord]] = await self._consumer.getmany(timeout_ms=200)
        # past the markers of transactions too, which no record tells of
        reached = {partition: await self._consumer.position(partition) for partition in self.next}
        moved = {partition: offset for partition, offset in reached.items() if offset > self.next[partition]}
        if moved:
            async with self._connection.transaction():
                # first: it locks out another sink, whose rows would stand in the way of ours
                await self._advance(moved)
                for topic in {partition.topic for partition in fetched}:
                    await self._write(topic, [record for p, records in fetched.items() if p.topic == topic for record in records])
            self.next |= moved
        return sum(map(len, fetched.values()))

    async def _write(self, topic: str, records: Sequence[ConsumerRecord]) -> None:
        for row, final in _final(self._decoders[topic], records).items():
            source = row.source
            touched = [key for key, (_, is_fresh) in final.items() if not is_fresh]
            if touched:
                await self._connection.execute(f'DELETE FROM "{source.table}" WHERE "{source.key}" = ANY($1)', touched)  # noqa: S608  # our own names
            rows = [msgspec.structs.astuple(after) for after, _ in final.values() if after is not None]
            await self._connection.copy_records_to_table(source.table, records=rows, columns=[f.name for f in msgspec.structs.fields(row)])

    async def _advance(self, offsets: Mapping[TopicPartition, int]) -> None:
        for partition, offset in offsets.items():
            done = await self._connection.execute(
                f"INSERT INTO {POSITIONS} AS p VALUES ($1, $2, $3) ON CONFLICT (topic, partition) "  # noqa: S608  # a constant
                "DO UPDATE SET next_offset = $3 WHERE p.next_offset = $4",
                partition.topic,
                partition.partition,
                offset,
                self.next[partition],
            )
            if done != "INSERT 0 1":
                raise OtherSink(f"another sink has gone on from {partition.topic}:{partition.partition}")


def _final(decode: Decode, records: Sequence[ConsumerRecord]) -> dict[type[Row], dict[Any, tuple[Row | None, bool]]]:
    """By table and key, the last state of each row that the records touch, and whether it was not there before them."""
    final: dict[type[Row], dict[Any, tuple[Row | None, bool]]] = {}
    for record in records:
        try:
            change = decode(record)
        except Undecodable:
            continue
        side = None if change is None else change.after if change.after is not None else change.before
        if change is None or side is None:
            continue
        rows, key = final.setdefault(type(side), {}), getattr(side, side.source.key)
        is_fresh = rows[key][1] if key in rows else change.op in "cr"
        rows[key] = change.after, is_fresh
    return final


async def sink(definition: Definition, bootstrap: str, postgres_url: str, stop: asyncio.Event) -> None:
    """Make the tables, then keep them up to date until told to stop. PostgreSQL or Kafka being away is waited for.

    Raises OtherSink, RecordsGone.
    """
    while not stop.is_set():
        try:
            await _keep(definition, bootstrap, postgres_url, stop)
        except AWAY as away:
            log.warning("sink_waits", error=repr(away))
            await pause(stop, RETRY_SECONDS)


async def _keep(definition: Definition, bootstrap: str, postgres_url: str, stop: asyncio.Event) -> None:
    connection = await asyncpg.connect(postgres_url)
    consumer = AIOKafkaConsumer(
        *definition.topics,
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="none",
    )
    steadied(consumer._client)
    try:
        await create_tables(connection, definition)
        await consumer.start()
        consumer.unsubscribe()
        running = Sink(definition, consumer, connection)
        await running.start()
        while not stop.is_set():
            await running.step()
    except OffsetOutOfRangeError as gone:
        raise RecordsGone(f"Kafka no longer has what the tables need next ({gone}): start the sink again, and it says what.") from gone
    finally:
        await end(consumer.stop())
        connection.terminate()


async def end_offsets(bootstrap: str, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """The end offset of every partition, by topic and number."""
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        return {(partition.topic, partition.partition): end for partition, end in ends.items()}
    finally:
        await consumer.stop()


async def sunk(connection: asyncpg.Connection | asyncpg.Pool, ends: Mapping[tuple[str, int], int]) -> None:
    """Raises NotReadyError until the tables have everything below these offsets."""
    try:
        stored = await connection.fetch(f"SELECT topic, partition, next_offset FROM {POSITIONS}")  # noqa: S608  # a constant
    except asyncpg.UndefinedTableError as error:
        raise NotReadyError("the sink has made no tables yet") from error
    reached = {(topic, number): offset for topic, number, offset in stored}
    behind = sum(end - reached.get(partition, 0) for partition, end in ends.items())
    if behind > 0:
        raise NotReadyError(f"the sink is {behind} records behind")


async def _main() -> None:
    settings = read_settings()
    set_up_logs(settings.log_level)
    try:
        await sink(definition_of(settings), settings.kafka_bootstrap, settings.postgres_url, told_to_stop())
    except (OtherSink, RecordsGone) as stopped:
        sys.exit(f"The sink has stopped: {stopped}")


if __name__ == "__main__":
    uvloop.run(_main())
