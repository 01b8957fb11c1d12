"""Change data capture, exactly once and at least once: eight services write at once, and the worker is killed in the midst of it."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from app.feeds import open_consumer
from demo.servers import connect
from demo.servers.server import Server
from projectors.log import end
from projectors.topic_reader import KafkaReader
from tests.cdc.captured import SINCE, Captured, open_captured
from tests.cdc.paired import UserView
from tests.cdc.writers import USERS, write_through_kills
from tests.conftest import open_connect

KILLS = 3


async def test_every_field_equals_sql_after_eight_writers_and_kills_of_the_worker(road: Captured) -> None:
    await _begun(road)
    # the rows of a COPY share an LSN, in the midst of which even an exactly-once connector sends one again
    await write_through_kills(road, KILLS, copies=False)
    assert await road.agree() == USERS


async def test_by_their_pairs_rows_of_a_copy_are_counted_once_too(
    connect_at: connect.Connect, apache_kafka_at: Server, redis_at: Server, postgres_at: Server, tmp_path: Path
) -> None:
    async with open_captured(connect_at, apache_kafka_at, redis_at, postgres_at, tmp_path, UserView) as road:
        await _begun(road)
        await write_through_kills(road, KILLS, copies=True)
        assert await road.agree() == USERS


@pytest.fixture
async def paired(apache_kafka_at: Server, redis_at: Server, postgres_at: Server, tmp_path: Path) -> AsyncIterator[Captured]:
    """By an at-least-once worker."""
    async with (
        open_connect(apache_kafka_at, exactly_once=False) as worker,
        open_captured(worker, apache_kafka_at, redis_at, postgres_at, tmp_path, UserView) as opened,
    ):
        yield opened


async def test_what_an_at_least_once_worker_sends_again_is_counted_once(paired: Captured) -> None:
    await _begun(paired)
    await write_through_kills(paired, KILLS, copies=True)
    assert await paired.agree() == USERS
    # a worker that has sent nothing again would show nothing
    assert await sent_again(paired) > 0


async def _begun(road: Captured) -> None:
    users = [(number, f"user{number}", SINCE) for number in range(USERS)]
    await road.pool.copy_records_to_table("users", records=users, columns=["user_id", "username", "joined_at"])
    await road.capture()
    await road.project()


async def sent_again(road: Captured) -> int:
    """How many records have the pair, the key and the operation of another one before."""
    consumer = open_consumer(road.settings, None)
    await consumer.start()
    try:
        reader, sent = KafkaReader(consumer, list(road.definition.topics)), Counter[object]()
        for partition, (first, last) in (await reader.bounds()).items():
            async for record in reader.records(partition, first, last):
                if record.value is not None:
                    change = msgspec.json.decode(record.value)
                    sent[partition, record.key, change["op"], change["source"]["sequence"]] += 1
    finally:
        await end(consumer.stop())
    return sum(sent.values()) - len(sent)
