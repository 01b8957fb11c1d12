"""Faults of a Redis Cluster: its slots move, and masters come back empty."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.crc import key_slot

from demo.servers import redis_cluster
from demo.servers.account import scratch
from demo.servers.redis_cluster import Cluster
from demo.servers.server import Server
from schema import layout
from tests.chaos.conftest import OpenScene
from tests.chaos.scene import Scene
from tests.conftest import CACHE

ANSWERS = ("MOVED", "ASK", "TRYAGAIN")
MOVES = 60
REGISTER = key_slot(b"{user}")


async def test_f7_redis_cluster_slots_moved_and_a_master_back_empty(scene_with: OpenScene) -> None:
    """The view lies in a Redis Cluster of three masters without replicas. Under load, slots of the view and that of its records move to
    other masters and back, key by key. Then a master gets SIGKILL and comes back empty; and, once that has healed, the one with the
    records and the pointer."""
    async with clustered() as cluster, scene_with(redis=cluster.server) as scene:
        await scene.goes_on(2)
        errors = dict(scene.readers.seen.errors)
        before = await _answers(cluster)
        moved = await _move(cluster, random.Random(7))
        met = await _answers(cluster) - before
        assert scene.readers.seen.errors == errors
        assert all(met[answer] for answer in ANSWERS), met
        told = ", ".join(f"{met[answer]:,} {answer}" for answer in ANSWERS)
        scene.proves(f"{moved} times a slot moved, to which the masters answered {told}, and readers saw no error")
        for with_records, what in ((False, "a master"), (True, "the master that has the records")):
            await _comes_back_empty(scene, await _master(cluster, with_records=with_records), what)
            scene.mended()
            await scene.healed()


@asynccontextmanager
async def clustered() -> AsyncIterator[Cluster]:
    """Three masters that write nothing to their disks."""
    with scratch() as folder:
        options = ("--appendonly", "no")
        async with redis_cluster.start(folder, CACHE, options=options, say=print) as cluster:
            yield cluster


async def _move(cluster: Cluster, rng: random.Random) -> int:
    """Slots to another master each, and the one with the records among them; how many had to move."""
    slots = [REGISTER, *(key_slot(tag.encode()) for tag in rng.sample(layout.tags(layout.SHARDS), 5))]
    moved = 0
    for number in range(MOVES):
        moved += await cluster.move(slots[number % len(slots)], rng.choice(cluster.masters), keys=1, pause_seconds=0.02)
    return moved


async def _answers(cluster: Cluster) -> Counter[str]:
    """How often the masters have said that a slot is not, or not wholly, with them."""
    found: Counter[str] = Counter()
    for master in cluster.masters:
        async with Redis.from_url(master.address) as client:
            told = await client.info("errorstats")
        found.update({answer: int(told.get(f"errorstat_{answer}", {}).get("count", 0)) for answer in ANSWERS})
    return found


async def _master(cluster: Cluster, *, with_records: bool) -> Server:
    owner = (await cluster.owners())[REGISTER]
    return owner if with_records else next(master for master in cluster.masters if master is not owner)


async def _comes_back_empty(scene: Scene, master: Server, what: str) -> None:
    assert master.process
    async with Redis.from_url(master.address) as client:
        held = await client.dbsize()
    await master.process.kill()
    await scene.goes_on(1)
    with scene.frozen_projectors():
        await master.process.start()
        async with Redis.from_url(master.address) as client:
            assert await client.dbsize() == 0
    assert held
    scene.proves(f"{held:,} keys were gone with {what}")
