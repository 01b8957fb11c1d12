"""What `viewgate rebuild --from sql` asks of database, slot and topics, and what it says where one of them does not fit."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from app.sql_rows import source_of
from demo.servers import postgres
from demo.servers.account import scratch
from demo.servers.server import Server
from projectors.captured import CapturedRows, NotCaptured, slot_of
from projectors.rows_at import NoOffsets, SinkRows
from schema import sql
from schema.positions import Partition
from tests.demos import CACHE
from tests.road import Road, open_road

CAPTURED = {"txId": 700, "sequence": '["10","20"]'}


@pytest.fixture
async def road(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Road]:
    async with open_road(kafka_at, redis_at, postgres_at, partitions=1) as opened:
        yield opened
        for (slot,) in await opened.pool.fetch("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"):
            await opened.pool.execute("SELECT pg_drop_replication_slot($1)", slot)


async def choose(road: Road, slot: str | None = None) -> SinkRows | CapturedRows:
    source = await source_of(road.settings, road.definition, road.pool, slot, lambda *_: None)
    assert isinstance(source, SinkRows | CapturedRows)
    return source


async def captured_by(road: Road, *slots: str) -> None:
    for slot in slots:
        await road.pool.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot)


async def publish(road: Road, table: str, **source: object) -> None:
    """A change as a connector sends it, and a tombstone."""
    topic = next(topic for topic in road.definition.topics if topic.endswith(table))
    async with AIOKafkaProducer(bootstrap_servers=road.settings.kafka_bootstrap) as producer:
        await producer.send_and_wait(topic, json.dumps({"op": "c", "source": source}).encode(), key=b"1")
        await producer.send_and_wait(topic, None, key=b"1")


async def sunk(road: Road) -> None:
    """A sink has written what it keeps of our topics."""
    await road.pool.executemany(f"INSERT INTO {sql.POSITIONS} VALUES ($1, 0, 5)", [(topic,) for topic in road.definition.topics])


async def test_the_one_slot_of_the_database_is_the_connectors(road: Road) -> None:
    await captured_by(road, "app")
    assert (await choose(road)).slot == "app"
    await publish(road, "users", db=road.settings.postgres_url.rpartition("/")[2], **CAPTURED)
    assert (await choose(road)).slot == "app"


async def test_of_several_slots_one_has_to_be_named(road: Road) -> None:
    await captured_by(road, "app", "billing")
    await publish(road, "users", **CAPTURED)
    with pytest.raises(NotCaptured, match=r"several logical replication slots, app, billing: name the connector's by --slot\."):
        await choose(road)
    assert (await choose(road, "billing")).slot == "billing"
    with pytest.raises(NotCaptured, match=r"no logical replication slot shop \(there is app, billing\)"):
        await choose(road, "shop")


async def test_without_a_slot_nobody_captures(road: Road) -> None:
    await publish(road, "users", **CAPTURED)
    with pytest.raises(
        NotCaptured, match=r"has no logical replication slot.*see VIEWGATE_POSTGRES_URL, and that the connector was started"
    ):
        await choose(road)


async def test_a_sinks_offsets_are_what_counts_where_no_connector_wrote_the_topics(road: Road) -> None:
    await sunk(road)
    await captured_by(road, "analytics")
    await publish(road, "users", name="nobody's")
    assert isinstance(await choose(road), SinkRows)


async def test_offsets_of_a_sink_beside_changes_of_a_connector_are_refused(road: Road) -> None:
    await sunk(road)
    await captured_by(road, "app")
    with pytest.raises(NotCaptured, match=r"and slot app was named: only one of them can be right"):
        await choose(road, "app")
    await publish(road, "users", **CAPTURED)
    with pytest.raises(NotCaptured, match=r"users has changes that a connector captured.*delete its offsets from sink_positions"):
        await choose(road)


async def test_changes_that_tell_no_transaction_are_refused(road: Road) -> None:
    await captured_by(road, "app")
    await publish(road, "users", **CAPTURED)
    await publish(road, "likes", name="app")
    with pytest.raises(NotCaptured, match=r"likes do not tell which transaction wrote them \(source\.txId and source\.sequence\)"):
        await choose(road)


async def test_topics_of_nobody_need_a_sinks_offsets(road: Road) -> None:
    await captured_by(road, "app")
    await publish(road, "users", name="nobody's")
    await road.pool.execute(f"DROP TABLE {sql.POSITIONS}")
    with pytest.raises(NoOffsets, match="keeps no offsets beside its rows"):
        async with (await choose(road)).open():
            pass


async def test_changes_of_another_database_are_refused(road: Road) -> None:
    await captured_by(road, "app")
    await publish(road, "users", db="elsewhere", **CAPTURED)
    with pytest.raises(NotCaptured, match=r"changes of database elsewhere, and VIEWGATE_POSTGRES_URL names database road\d+"):
        await choose(road)


async def test_who_may_read_the_tables_may_do_it(road: Road) -> None:
    await road.pool.execute("CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    await road.pool.execute("INSERT INTO users (user_id, username, joined_at) VALUES (1, 'ada', now())")
    noted = {Partition(topic, 0): 0 for topic in road.definition.topics}

    async def ends() -> Mapping[Partition, int]:
        return noted

    async with asyncpg.create_pool(road.settings.postgres_url.replace("postgres@", "reader@"), min_size=0) as pool:
        source = CapturedRows(pool, road.definition, "app", ends, lambda *_: None)
        async with source.open() as rows:
            (ada,) = await rows.of([1])
        # a new slot is where the log of the database ends
        await captured_by(road, "app")
        assert (await slot_of(pool, None), await source.level(rows)) == ("app", noted)
    assert ada.row is not None
    await road.pool.execute("DROP OWNED BY reader; DROP ROLE reader")


async def test_a_standby_is_refused() -> None:
    with scratch() as folder:
        async with postgres.start(folder, CACHE, say=print) as server:
            primary = await asyncpg.connect(server.address)
            data = Path(await primary.fetchval("SHOW data_directory"))
            await primary.close()
        signal = data / "standby.signal"
        signal.touch()
        signal.chmod(0o666)
        async with postgres.start(folder, CACHE, say=print) as server, asyncpg.create_pool(server.address, min_size=0) as pool:
            with pytest.raises(NotCaptured, match=r"is a standby.*name the primary in VIEWGATE_POSTGRES_URL"):
                await slot_of(pool, None)
