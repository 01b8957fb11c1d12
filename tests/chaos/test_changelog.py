"""Faults of a changelog: tombstones that the broker's cleaner has removed, gaps in the offsets, kills of the stage."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.stages import FreshReader
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from projectors.log import Record
from tests.chaos.changelogs import ChangelogScene, open_changelog_scene
from tests.chaos.records import Outcome
from tests.conftest import CACHE
from tests.faults.arranged import user
from tests.faults.test_changelog import POINTS

GONE = range(50_000, 50_100)


@pytest.fixture
async def scene(outcome: Outcome, apache_kafka_at: Server, postgres_at: Server, tmp_path: Path) -> AsyncIterator[ChangelogScene]:
    with scratch() as folder:
        async with (
            redis_server.start(folder, CACHE, prefer="installed", say=print) as redis,
            open_changelog_scene(outcome, apache_kafka_at, redis, postgres_at, tmp_path) as opened,
        ):
            yield opened


async def test_f16_tombstones_compacted_away(scene: ChangelogScene) -> None:
    """Users come as a changelog. The projector with its stages gets SIGKILL; while it is away users are deleted, and Kafka's cleaner
    removes them with their tombstones. Then stages kill themselves at each of their steps, and read a topic full of gaps."""
    for number in GONE:
        scene.writer.put(user(number, f"user{number}"))
    await scene.arrived()
    (first,) = scene.projectors
    first.kill()
    await first.wait()
    for number in GONE:
        scene.writer.put(user(number, "on the way"))
        scene.writer.delete(user(number, ""))
    await scene.writer.flush()
    await until(lambda: _cleaned(scene), 60)
    gaps = await _gaps(scene)
    for run, (point, times) in enumerate(POINTS):
        process = await _stage(scene, run, point, times)
        async with asyncio.timeout(60):
            assert await process.wait() == -signal.SIGKILL, point
    await _stage(scene, len(POINTS), "never", 1)
    scene.mended()
    scene.proves(
        f"of {len(GONE)} deleted users the topic had neither row nor tombstone when the stages came back, and {gaps:,} of its offsets were "
        f"gone; stages died by SIGKILL at each of: {', '.join(point for point, _ in POINTS)}"
    )
    await scene.healed()


async def _stage(scene: ChangelogScene, run: int, point: str, times: int) -> asyncio.subprocess.Process:
    """In groups of its own, since Kafka would wait for the member that died before it."""
    group = scene.road.settings.consumer_group
    return await scene.project(
        *("tests.faults.crashing_stage", point, str(times)),
        VIEWGATE_CONSUMER_GROUP=f"{group}-{run}",
        ROWS_GROUP=f"{group}-rows-{run}",
    )


async def _cleaned(scene: ChangelogScene) -> None:
    gone = {b"%d" % number for number in GONE}
    if left := sum(record.key in gone for record in await _records(scene)):
        raise NotReadyError(f"{left} records of deleted users are left")


async def _gaps(scene: ChangelogScene) -> int:
    """How many offsets have no record any more."""
    bounds = await _reader(scene).bounds()
    return sum(end for _, end in bounds.values()) - len(await _records(scene))


async def _records(scene: ChangelogScene) -> list[Record]:
    reader = _reader(scene)
    bounds = await reader.bounds()
    return [record for partition, (first, end) in bounds.items() async for record in reader.records(partition, first, end)]


def _reader(scene: ChangelogScene) -> FreshReader:
    return FreshReader(scene.road.settings, f"{scene.road.settings.topic_prefix}users")
