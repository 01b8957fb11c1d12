"""Faults of Redis: killed, emptied, full, failed over."""

from pathlib import Path

from demo.servers.process import NotReadyError, until
from tests.chaos.conftest import OpenScene
from tests.chaos.scene import Scene, gone_back


async def test_f4_redis_killed_with_aof_everysec(scene_with: OpenScene) -> None:
    """Redis gets SIGKILL under load, and its append-only file is cut back to what it held a second before: what a machine that loses
    power leaves, with fsync every second. Redis had acknowledged all that is cut off."""
    async with scene_with() as scene:
        await scene.goes_on(2)
        kept = _size(scene)
        await scene.goes_on(1)
        process = scene.redis.process
        assert process
        acknowledged = await scene.watermarks()
        await process.kill()
        cut = _cut(scene, kept)
        await scene.goes_on(1)
        with scene.frozen_projectors():
            await process.start()
            went_back = gone_back(acknowledged, await scene.watermarks())
        scene.mended()
        assert went_back
        scene.proves(f"{cut:,} bytes of acknowledged writes were gone; {went_back:,} watermarks had gone back")
        await scene.healed()


def _size(scene: Scene) -> int:
    return _aof(scene).stat().st_size


def _cut(scene: Scene, size: int) -> int:
    path = _aof(scene)
    gone = path.stat().st_size - size
    with path.open("r+b") as file:
        file.truncate(size)
    return gone


def _aof(scene: Scene) -> Path:
    assert scene.redis.process
    data = Path(scene.redis.process.command.argv[scene.redis.process.command.argv.index("--dir") + 1])
    (path,) = (data / "appendonlydir").glob("*.incr.aof")
    return path


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
