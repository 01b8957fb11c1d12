"""The sink of single-write: whatever kills it, the tables are what the log says up to the offsets that lie beside them."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from app.feeds import open_consumer
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from demo.sink import OtherSink, Sink, end_offsets, sink, sunk
from projectors.log import end
from projectors.records import decoders
from projectors.topic_reader import KafkaReader
from schema.fields import Row
from schema.positions import Partition
from schema.sql import POSITIONS
from tests.faults.traffic import Traffic
from tests.road import Road, open_road

KILLS, CHANGES = 8, 3_000
Rows = dict[type[Row], dict[int, tuple[Any, ...]]]
Offsets = Mapping[Partition, int]


@pytest.fixture
async def road(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Road]:
    async with open_road(kafka_at, redis_at, postgres_at, partitions=3) as opened:
        yield opened


async def test_at_each_kill_the_tables_are_the_log_up_to_their_offsets(road: Road) -> None:
    traffic, dice, seen = Traffic(road, seed=5), random.Random(5), list[tuple[Offsets, Rows]]()
    for _ in range(KILLS):
        process = await road.start("-m", "demo.sink", VIEWGATE_LOG_LEVEL="warning")
        before, _ = await stored(road)
        traffic.publish(CHANGES)
        await until(lambda before=before: moved(road, before), 30)  # type: ignore[misc]  # the default binds the loop's value
        await asyncio.sleep(dice.random() * 0.2)
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        seen.append(await stored(road))
    await road.sunk()
    seen.append(await stored(road))
    for offsets, rows in seen:
        assert rows == await told(road, offsets)
    # a kill that never left anything to do has shown nothing
    ends = await end_offsets(road.settings.kafka_bootstrap, road.definition.topics)
    assert all(seen[-1][0][Partition(*at)] == offset for at, offset in ends.items())
    assert len({tuple(sorted(offsets.items())) for offsets, _ in seen}) > KILLS // 2


async def test_of_two_sinks_one_ends_and_the_tables_are_right(road: Road) -> None:
    Traffic(road, seed=6).publish(CHANGES)
    first, second = [await opened(road), await opened(road)]
    try:
        await first.step()
        with pytest.raises(OtherSink, match="another sink has gone on from"):
            await forever(second)
    finally:
        for one in (first, second):
            await end(one._consumer.stop())
            await one._connection.close()
    offsets, rows = await stored(road)
    assert rows == await told(road, offsets)


async def test_a_sink_whose_database_ends_its_session_goes_on(road: Road) -> None:
    traffic, stop = Traffic(road, seed=7), asyncio.Event()
    running = asyncio.create_task(sink(road.definition, road.settings.kafka_bootstrap, road.settings.postgres_url, stop))
    for _ in range(3):
        traffic.publish(CHANGES)
        before, _ = await stored(road)
        await until(lambda before=before: moved(road, before), 30)  # type: ignore[misc]  # the default binds the loop's value
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        connection = await asyncpg.connect(road.settings.postgres_url)
        await connection.execute(others)
        await connection.close()
        await road.pool.expire_connections()
    ends = await end_offsets(road.settings.kafka_bootstrap, road.definition.topics)
    await until(lambda: sunk(road.pool, ends), 60)
    stop.set()
    await running
    offsets, rows = await stored(road)
    assert rows == await told(road, offsets)


async def test_a_sink_whose_records_are_gone_says_so_and_writes_nothing(road: Road, apache_kafka_at: Server, tmp_path: Path) -> None:
    Traffic(road, seed=8).publish(CHANGES)
    ends = await end_offsets(road.settings.kafka_bootstrap, road.definition.topics)
    admin = AIOKafkaAdminClient(bootstrap_servers=apache_kafka_at.address)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(*at): RecordsToDelete(before_offset=offset) for at, offset in ends.items()})
    finally:
        await admin.close()
    said = tmp_path / "said"
    process = await road.start("-m", "demo.sink", said=said)
    async with asyncio.timeout(30):
        assert await process.wait() == 1
    words = said.read_text()  # the process that wrote it has ended
    assert "The sink has stopped: " in words
    assert "records were deleted. Fill the topics again" in words
    assert await stored(road) == ({}, {row: {} for row in road.definition.rows})


async def forever(one: Sink) -> None:
    while True:
        await one.step()


async def opened(road: Road) -> Sink:
    topics, bootstrap = road.definition.topics, road.settings.kafka_bootstrap
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="none")
    await consumer.start()
    consumer.unsubscribe()
    one = Sink(road.definition, consumer, await asyncpg.connect(road.settings.postgres_url))
    await one.start()
    return one


async def stored(road: Road) -> tuple[Offsets, Rows]:
    """The offsets and the rows, of one moment."""
    connection = await asyncpg.connect(road.settings.postgres_url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            offsets = {Partition(topic, n): at for topic, n, at in await connection.fetch(f"SELECT * FROM {POSITIONS}")}  # a constant
            rows = {row: await _rows(connection, row) for row in road.definition.rows}
    finally:
        await connection.close()
    return offsets, rows


async def _rows(connection: "asyncpg.Connection[asyncpg.Record]", row: type[Row]) -> dict[int, tuple[Any, ...]]:
    columns = ", ".join(f'"{column.name}"' for column in msgspec.structs.fields(row))
    found = await connection.fetch(f'SELECT {columns} FROM "{row.source.table}"')  # our own names
    return {one[row.source.key]: tuple(one) for one in found}


async def told(road: Road, offsets: Offsets) -> Rows:
    """The rows by the log, up to these offsets."""
    decode, rows = decoders(road.definition), Rows({row: {} for row in road.definition.rows})
    consumer = open_consumer(road.settings, None)
    await consumer.start()
    try:
        reader = KafkaReader(consumer, list(road.definition.topics))
        for partition, offset in offsets.items():
            table = rows[road.definition.topics[partition.topic]]
            async for record in reader.records(partition, 0, offset):
                change = decode[partition.topic](record)
                assert change is not None
                if change.after is not None:
                    table[getattr(change.after, change.after.source.key)] = msgspec.structs.astuple(change.after)
                elif change.before is not None:
                    del table[getattr(change.before, change.before.source.key)]
    finally:
        await end(consumer.stop())
    return rows


async def moved(road: Road, before: Offsets) -> None:
    if (await stored(road))[0] == before:
        raise NotReadyError("nothing was written")
