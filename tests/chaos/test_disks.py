"""Full disks: a server's data lies on a small tmpfs, which something else fills up until room is made."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.exceptions import ResponseError

from demo.publish import Publisher
from demo.servers import kafka, postgres
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, lives, until
from schema.sql import POSITIONS
from tests.chaos.conftest import OpenScene
from tests.chaos.scene import Scene
from tests.conftest import CACHE

MB = 1024 * 1024


class Holding(Publisher):
    """Keeps changes back, in their order, from `hold` to `release`."""

    waiting: list[tuple[Any, ...]] | None = None

    def publish(self, *change: Any) -> None:
        if self.waiting is None:
            super().publish(*change)
        else:
            self.waiting.append(change)

    def hold(self) -> None:
        """What came before is in Kafka, or KafkaException is raised."""
        self.flush()
        self.waiting = []

    def release(self) -> None:
        waiting, self.waiting = self.waiting or [], None
        for change in waiting:
            self.publish(*change)


async def test_f20_disk_full_of_redis(scene_with: OpenScene) -> None:
    """The disk of Redis, a tmpfs, is full under load: its append-only file cannot grow, and it refuses every write, until room is made."""
    with scratch() as folder, _small_disk(folder / "redis", 64) as disk:
        async with redis_server.start(folder, CACHE, prefer="installed", say=print) as redis, scene_with(redis=redis) as scene:
            await scene.goes_on(1)
            filler = _fill(disk)
            await until(lambda: _refuses_writes(scene), 30)
            before = await scene.watermarks()
            await scene.goes_on(3)
            assert await scene.watermarks() == before
            filler.unlink()
            scene.mended()
            scene.proves("Redis refused every write with MISCONF, and for three seconds no watermark moved")
            await scene.healed()


async def test_f20_disk_full_of_kafka(scene_with: OpenScene) -> None:
    """The disk of Kafka, a tmpfs, is full: the broker ends itself, for it cannot write its only log folder. Changes wait meanwhile, for of
    those that it refuses nobody knows whether it has written them. Then they go on, room is made, and it is started again."""
    with scratch() as folder, _small_disk(folder / "kafka", 256) as disk:
        async with kafka.start(folder, CACHE, prefer="installed", say=print) as broker, scene_with(kafka_at=broker) as scene:
            # at once, so that no change overtakes another
            scene.writer.publisher.flush()
            scene.writer.publisher = publisher = Holding(broker.address, scene.road.settings.topic_prefix)
            process = broker.process
            assert process
            await scene.goes_on(1)
            publisher.hold()
            filler = _fill(disk)
            await until(lambda: _ended(process.pid), 60)
            publisher.release()
            said = process.command.log.read_text()
            assert "No space left on device" in said
            await scene.goes_on(2)
            filler.unlink()
            await process.start()
            scene.mended()
            scene.proves("the broker ended by itself: No space left on device")
            await scene.healed()


async def test_f20_disk_full_of_postgres(scene_with: OpenScene) -> None:
    """The disk of PostgreSQL, a tmpfs, is full under load, so that the sink cannot write its rows, until room is made."""
    with scratch() as folder, _small_disk(folder / "postgres", 192) as disk:
        async with postgres.start(folder, CACHE, prefer="installed", say=print) as server, scene_with(postgres=server) as scene:
            await scene.goes_on(1)
            filler = _fill(disk)
            reached = await _stuck(scene)
            await scene.goes_on(3)
            filler.unlink()
            scene.mended()
            scene.proves(f"PostgreSQL refused rows with DiskFullError, and the sink stood at {reached:,} records")
            await scene.healed()


@contextmanager
def _small_disk(at: Path, megabytes: int) -> Iterator[Path]:
    """A tmpfs. Skipped where nobody may mount one."""
    at.mkdir(mode=0o711)
    command = ("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=711", "tmpfs", str(at))
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a full disk needs a tmpfs, and only root may mount one: {mounted.stderr.decode().strip()}")
    try:
        yield at
    finally:
        subprocess.run(("umount", "--lazy", str(at)), check=True)


def _fill(disk: Path) -> Path:
    """All of what is left; the file that takes it."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        while free := shutil.disk_usage(disk).free:
            try:
                file.write(b"\0" * min(free, MB))
                file.flush()
            except OSError:
                break
    return filler


async def _refuses_writes(scene: Scene) -> None:
    try:
        await scene.road.redis.set("written", "by nobody")
    except ResponseError as refused:
        if str(refused).startswith("MISCONF"):
            return
        raise
    raise NotReadyError("Redis takes writes")


async def _ended(pid: int) -> None:
    if lives(pid):
        raise NotReadyError("the broker runs")


async def _stuck(scene: Scene) -> int:
    """PostgreSQL takes no rows more. What the sink has."""
    with pytest.raises(asyncpg.DiskFullError):
        await scene.road.pool.execute("CREATE TABLE more AS SELECT n, repeat('x', 1000) FROM generate_series(1, 50000) n")
    await until(lambda: _stands(scene), 60)
    return await _sunk(scene)


async def _stands(scene: Scene) -> None:
    before = await _sunk(scene)
    await scene.goes_on(1)
    if await _sunk(scene) != before:
        raise NotReadyError("the sink goes on")


async def _sunk(scene: Scene) -> int:
    return int(await scene.road.pool.fetchval(f"SELECT sum(next_offset) FROM {POSITIONS}"))
