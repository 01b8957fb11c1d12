"""The commands on a road whose view lies in a Redis Cluster, while its slots move."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from redis.crc import key_slot

from demo.servers import redis_cluster
from demo.servers.process import NotReadyError, until
from demo.servers.redis_cluster import Cluster
from demo.servers.server import Server
from schema import layout
from schema.loader import Read
from tests.commands.running import run
from tests.commands.test_generations import reading, told
from tests.conftest import CACHE
from tests.faults.test_copy_processes import live
from tests.faults.traffic import Traffic
from tests.road import Road, client_of, open_road, variables


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with redis_cluster.start(tmp_path / "first", CACHE, say=print) as started:
        yield started


@asynccontextmanager
async def moving(cluster: Cluster) -> AsyncIterator[None]:
    """Slots of the view and of its records go to and fro until the block ends."""
    rng, stop = random.Random(8), asyncio.Event()
    slots = [key_slot(b"{user}"), *(key_slot(tag.encode()) for tag in layout.tags(layout.SHARDS))]

    async def move() -> None:
        while not stop.is_set():
            await cluster.move(rng.choice(slots), rng.choice(cluster.masters), pause_seconds=0.01)
            await asyncio.sleep(0.2)

    running = asyncio.create_task(move())
    try:
        yield
    finally:
        stop.set()
        await running


async def test_generations_are_built_compared_promoted_and_dropped_while_slots_move(
    kafka_at: Server, cluster: Cluster, postgres_at: Server
) -> None:
    async with open_road(kafka_at, cluster.server, postgres_at) as road:
        traffic = Traffic(road, seed=1)
        traffic.publish(2000)
        await road.project()
        await road.sunk()
        rows = await road.agree()
        async with reading(road) as reader, moving(cluster):
            assert "g2 is live" in await told(road, "rebuild", "--from", "sql", "--promote")
            assert "g3 is live" in await told(road, "rebuild", "--promote")
            assert f"{rows} rows checked" in await told(road, "audit")
            assert "g3" in await told(road, "generations")
            assert "g3" in await told(road, "lag", "--once")
        assert reader.reads > 50
        assert "g1 is gone" in await told(road, "drop", "g1", "--yes")
        assert [key async for key in road.redis.scan_iter("user:g1*", count=5000)] == []
        assert "0 mismatches" in await told(road, "audit", "--against", "log")
        code, out, err = await run("user", "7", **variables(road.settings))
        assert code == 0, out + err
        await road.agree()


async def test_a_cluster_is_copied_into_another_while_slots_of_both_move(
    apache_kafka_at: Server, cluster: Cluster, postgres_at: Server, tmp_path: Path
) -> None:
    async with (
        redis_cluster.start(tmp_path / "second", CACHE, masters=2, say=print) as second,
        open_road(apache_kafka_at, cluster.server, postgres_at) as road,
    ):
        road.settings = road.settings.model_copy(update={"view_topic": f"{road.settings.topic_prefix}view"})
        copy = replace(
            road, redis=client_of(second.server.address), settings=road.settings.model_copy(update={"redis_url": second.server.address})
        )
        said = tmp_path / "said"
        await road.start("-m", "app", "project", said=said)
        await copy.start("-m", "app", "populate", said=said)
        traffic = Traffic(road, seed=3, users=120)
        async with moving(cluster), moving(second):
            for _ in range(5):
                traffic.publish(300)
                await asyncio.sleep(1)
            await until(lambda: live(copy), 60)
        await road.sunk()
        assert await road.agree() == await copy.agree()
        await until(lambda: _told_as_of(copy), 20)
        restarted = second.masters[0]
        assert restarted.process
        await restarted.process.restart()
        await until(lambda: redis_cluster.serves(restarted), 20)
        traffic.publish(300)
        await road.sunk()
        assert await road.agree() == await copy.agree()
        # the process has met the one that was restarted, and says so
        await until(lambda: _told_as_of(copy), 20)
        assert "Traceback" not in said.read_text()
        await copy.redis.aclose()


async def _told_as_of(road: Road) -> None:
    """Raises NotReadyError until answers tell what they are as of."""
    rows = await road.view.load([Read("id", str(number), ("username",)) for number in range(100)])
    if not rows.as_of_ms:
        raise NotReadyError("as of no moment")
