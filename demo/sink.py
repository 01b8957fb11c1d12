"""The sink of single-write: brings the topics into PostgreSQL and keeps its offsets there, in the same transaction."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import asyncpg
import msgspec
import structlog
import uvloop
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from app.settings import read_settings
from app.stopping import told_to_stop
from app.telemetry import set_up_logs
from app.views import definition_of
from demo.servers.process import NotReadyError
from demo.tables import create_tables
from projectors.records.envelope import Undecodable, decoder
from schema.definition import Definition
from schema.fields import Row
from schema.sql import POSITIONS

log = structlog.stdlib.get_logger()


class OtherSink(Exception):
    """Another sink has gone on from where this one was; nothing of the batch was written."""


class Sink:
    """Every partition of the definition's topics into the tables. Records that are no change are skipped: the projector buries them."""

    def __init__(self, definition: Definition, consumer: AIOKafkaConsumer, connection: asyncpg.Connection) -> None:
        self._consumer, self._connection = consumer, connection
        self._rows = definition.topics
        self._decoders = {topic: decoder(row) for topic, row in definition.topics.items()}
        self.next: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        """Go on from the offsets in the tables."""
        partitions = [TopicPartition(topic, n) for topic in self._rows for n in self._consumer.partitions_for_topic(topic) or ()]
        self._consumer.assign(partitions)
        stored = await self._connection.fetch(f"SELECT topic, partition, next_offset FROM {POSITIONS}")  # noqa: S608  # a constant
        known = {TopicPartition(topic, partition): offset for topic, partition, offset in stored}
        for partition in partitions:
            self.next[partition] = known.get(partition, 0)
            self._consumer.seek(partition, self.next[partition])

    async def step(self) -> int:
        """Fetch once and write it; how many records. Raises OtherSink."""
        fetched: Mapping[TopicPartition, Sequence[ConsumerRecord]] = await self._consumer.getmany(timeout_ms=200)
        if fetched:
            async with self._connection.transaction():
                for topic in {partition.topic for partition in fetched}:
                    await self._write(topic, [record for p, records in fetched.items() if p.topic == topic for record in records])
                await self._advance({partition: records[-1].offset + 1 for partition, records in fetched.items()})
            self.next |= {partition: records[-1].offset + 1 for partition, records in fetched.items()}
        return sum(map(len, fetched.values()))

    async def _write(self, topic: str, records: Sequence[ConsumerRecord]) -> None:
        row = self._rows[topic]
        final, fresh = _final(row, self._decoders[topic], records)
        touched = [key for key in final if key not in fresh]
        if touched:
            await self._connection.execute(f'DELETE FROM "{row.source.table}" WHERE "{row.source.key}" = ANY($1)', touched)  # noqa: S608  # our own names
        rows = [msgspec.structs.astuple(after) for after in final.values() if after is not None]
        await self._connection.copy_records_to_table(row.source.table, records=rows, columns=[f.name for f in msgspec.structs.fields(row)])

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


def _final(row: type[Row], decode: Any, records: Sequence[ConsumerRecord]) -> tuple[dict[Any, Row | None], set[Any]]:
    """The last state of each row that the records touch, and the keys that were not there before them."""
    key_of = attrgetter(row.source.key)
    final: dict[Any, Row | None] = {}
    fresh = set()
    for record in records:
        if record.value is None:
            continue
        try:
            change = decode(record.value)
        except Undecodable:
            continue
        side = change.after if change.after is not None else change.before
        if side is None:
            continue
        key = key_of(side)
        if key not in final and change.op in "cr":
            fresh.add(key)
        final[key] = change.after
    return final, fresh


async def sink(definition: Definition, bootstrap: str, postgres_url: str, stop: asyncio.Event) -> None:
    """Make the tables, then keep them up to date until told to stop."""
    connection = await asyncpg.connect(postgres_url)
    consumer = AIOKafkaConsumer(
        *definition.topics,
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="none",
    )
    await create_tables(connection, definition)
    await consumer.start()
    try:
        consumer.unsubscribe()
        running = Sink(definition, consumer, connection)
        await running.start()
        while not stop.is_set():
            await running.step()
    finally:
        await consumer.stop()
        await connection.close()


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
    await sink(definition_of(settings), settings.kafka_bootstrap, settings.postgres_url, told_to_stop())


if __name__ == "__main__":
    uvloop.run(_main())
