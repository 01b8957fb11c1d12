"""The view in a Redis Cluster is exact while slots move, and when a master comes back empty."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from app.clients import open_redis
from app.cluster.client import ClusterClient
from app.settings import Settings
from demo.servers import redis_cluster
from demo.servers.redis_cluster import Cluster
from loaders.view import ViewLoader
from schema import layout
from schema.loader import Read
from tests.conftest import CACHE
from tests.faults.arranged import NAMES, Fields, Tables, World, user

SHARDS = 32


@pytest.fixture(scope="module")
async def cluster(servers_folder: Path) -> AsyncIterator[Cluster]:
    options = ("--appendonly", "no", "--save", "")
    async with redis_cluster.start(servers_folder / "cluster", CACHE, options=options, prefer="installed", say=print) as started:
        yield started


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[ClusterClient]:
    """A client of an empty cluster."""
    async with opened(cluster) as client:
        await client.flushall()
        yield client


@asynccontextmanager
async def opened(cluster: Cluster) -> AsyncIterator[ClusterClient]:
    client = open_redis(Settings(redis_url=cluster.server.address, redis_timeout_seconds=5), cluster.server.address)
    assert isinstance(client, ClusterClient)
    try:
        yield client
    finally:
        await client.aclose()


async def test_a_view_on_three_masters_is_read_whole(client: ClusterClient, cluster: Cluster) -> None:
    world = World(client, shards=SHARDS)
    await world.open()
    tables = Tables(world, random.Random(1), users=60)
    for _ in range(300):
        tables.change()
    await (await world.owner()).level()
    await world.exact()
    sizes = []
    for master in cluster.masters:
        async with Redis.from_url(master.address) as one:
            sizes.append(await one.dbsize())
    assert min(sizes) > 10
    assert await client.dbsize() == sum(sizes)


async def test_counts_are_exact_and_readers_see_no_error_while_slots_move_back_and_forth(client: ClusterClient, cluster: Cluster) -> None:
    world = World(client, shards=SHARDS)
    await world.open()
    for number in range(100, 200):
        world.put(user(number, f"stays{number}"))
    owner = await world.owner()
    await owner.level()
    stay = await world.shown()
    tables, rng, moves = Tables(world, random.Random(2), users=60), random.Random(3), 0
    async with opened(cluster) as readers, asyncio.TaskGroup() as group:
        moving = group.create_task(_move(cluster, rng, 60))
        reading = group.create_task(_read(ViewLoader(readers, world.definition), stay, moving))
        while not moving.done():
            tables.change()
            await owner.step()
            await asyncio.sleep(0)
    moves, reads = moving.result(), reading.result()
    await owner.level()
    await world.exact()
    assert moves == 60
    assert reads > 100
    # each way of a master to say that the slot is not, or not wholly, with it has been met, also by those who read
    assert set(client.redirected) == {"MOVED", "ASK", "TRYAGAIN"}
    assert {"MOVED", "ASK"} <= set(readers.redirected)


async def _move(cluster: Cluster, rng: random.Random, times: int) -> int:
    """Slots of the view, and that of its records, one after the other to another master and back."""
    slots = [key_slot(b"{user}"), *(key_slot(tag.encode()) for tag in layout.tags(SHARDS))]
    for number in range(times):
        await cluster.move(rng.choice(slots), cluster.masters[number % len(cluster.masters)], keys=1, pause_seconds=0.01)
    return times


async def _read(reader: ViewLoader, stay: dict[str, Fields | None], moving: "asyncio.Task[int]") -> int:
    reads = 0
    while not moving.done():
        rows = (await reader.load([Read("id", key, NAMES) for key in stay])).rows
        assert {key: None if row is None else dict(zip(NAMES, row, strict=True)) for key, row in zip(stay, rows, strict=True)} == stay
        reads += 1
        await asyncio.sleep(0)
    return reads
