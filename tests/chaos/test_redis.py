"""Faults of Redis: killed, emptied, full, failed over."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, Process, until
from demo.servers.server import Server
from tests.chaos.conftest import OpenScene
from tests.chaos.links import Link, link_to, port_of
from tests.chaos.lost_power import cut_back, synced
from tests.chaos.scene import Scene
from tests.conftest import CACHE


async def test_f4_redis_killed_with_aof_everysec(scene_with: OpenScene) -> None:
    """Redis gets SIGKILL under load, and its append-only file is cut back to what it held a second before: what a machine that loses
    power leaves, with fsync every second. Redis had acknowledged all that is cut off."""
    async with scene_with() as scene:
        await scene.goes_on(2)
        process = scene.redis.process
        assert process
        sizes = synced(process)
        await scene.goes_on(1)
        acknowledged = await scene.watermarks()
        await process.kill()
        cut = cut_back(sizes)
        await scene.goes_on(1)
        with scene.frozen_projectors():
            await process.start()
            went_back = await scene.gone_back(acknowledged)
        scene.mended()
        assert went_back
        scene.proves(f"{cut:,} bytes of acknowledged writes were gone; {went_back:,} watermarks had gone back")
        await scene.healed()


async def test_f6_redis_empty(scene_with: OpenScene) -> None:
    """Redis loses all that it holds, by FLUSHALL, under load."""
    async with scene_with() as scene:
        await scene.goes_on(2)
        held = await scene.road.redis.dbsize()
        await scene.road.redis.flushall()
        scene.mended()
        await until(lambda: _told(scene, "NOT_READY"), 10)
        scene.proves(f"{held:,} keys were gone, and readers were told NOT_READY")
        await scene.healed()


async def _told(scene: Scene, code: str) -> None:
    if code not in scene.readers.seen.errors:
        raise NotReadyError(f"readers were told {dict(scene.readers.seen.errors)}")


async def test_f5_redis_failover_that_loses_the_last_second(scene_with: OpenScene) -> None:
    """The replica falls a second behind, the primary gets SIGKILL, the replica is promoted and takes over the primary's address."""
    async with replicated() as pair, scene_with(redis=pair.server) as scene:
        await scene.goes_on(2)
        pair.link.turn("one-way")
        await scene.goes_on(1)
        acknowledged = await scene.watermarks()
        await pair.primary.kill()
        pair.link.turn("cut")
        with scene.frozen_projectors():
            await pair.promote()
            went_back = await scene.gone_back(acknowledged)
        scene.mended()
        assert went_back
        scene.proves(f"{went_back:,} watermarks that the primary had acknowledged were lower on the replica")
        await scene.healed()


async def test_f8_redis_out_of_memory_under_noeviction(scene_with: OpenScene) -> None:
    """Redis reaches its maxmemory under load, with noeviction, and refuses every write for some seconds."""
    async with scene_with() as scene, Redis.from_url(scene.redis.address) as redis:
        await scene.goes_on(2)
        await redis.config_set("maxmemory", str((await redis.info("memory"))["used_memory"]))
        await until(lambda: _refused(redis, 10), 20)
        before, answered = await scene.watermarks(), scene.readers.seen.answered
        await scene.goes_on(3)
        assert not await scene.gone_back(before)
        scene.proves(
            f"Redis refused {await _refusals(redis):,} commands with OOM; meanwhile "
            f"{scene.readers.seen.answered - answered:,} reads were answered"
        )
        await redis.config_set("maxmemory", "0")
        scene.mended()
        await scene.healed()


async def _refused(redis: Redis, least: int) -> None:
    if (refusals := await _refusals(redis)) < least:
        raise NotReadyError(f"{refusals} commands were refused")


async def _refusals(redis: Redis) -> int:
    return int((await redis.info("errorstats")).get("errorstat_OOM", {}).get("count", 0))


@dataclass(slots=True)
class Pair:
    """A primary and a replica behind one address, which is the service's. link: what the replica hears of the primary by."""

    server: Server
    primary: Process
    replica: Server
    service: Link
    link: Link

    async def promote(self) -> None:
        async with Redis.from_url(self.replica.address) as replica:
            await replica.replicaof("NO", "ONE")
        self.service.target = port_of(self.replica.address)


@asynccontextmanager
async def replicated() -> AsyncIterator[Pair]:
    """Both keep an append-only file; the replica has all that the primary has, by now."""
    async with AsyncExitStack() as opened:
        folder = opened.enter_context(scratch())
        primary, replica = [
            await opened.enter_async_context(redis_server.start(folder / name, CACHE, prefer="installed", say=print)) for name in "ab"
        ]
        assert primary.process
        link, service = [await opened.enter_async_context(link_to(port_of(primary.address))) for _ in range(2)]
        async with Redis.from_url(replica.address) as client:
            await client.replicaof("127.0.0.1", link.port)
            await until(lambda: _replicates(client), 30)
        address = f"redis://127.0.0.1:{service.port}/0"
        yield Pair(Server("redis", "installed", primary.what, address, None), primary.process, replica, service, link)


async def _replicates(replica: Redis) -> None:
    if (status := (await replica.info("replication"))["master_link_status"]) != "up":
        raise NotReadyError(f"the replica's link is {status}")
