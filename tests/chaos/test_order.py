"""Faults of order: changes of different partitions are applied in another order than they happened in."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from aiokafka.partitioner import murmur2

from demo.servers.process import NotReadyError, until
from demo.sink import end_offsets
from schema.fields import Row
from schema.loader import Read
from tests.chaos.conftest import OpenScene
from tests.chaos.scene import Scene
from tests.faults.arranged import follow, tweet, user
from tests.faults.test_owners import members

MANY = 24
# longer than one of them stands still
SESSION_MS = "30000"
# of each of a scene's topics
PARTITIONS = 6
Ends = Mapping[tuple[str, int], int]


async def test_f13_partitions_out_of_order(scene_with: OpenScene) -> None:
    """Two projectors share the partitions; one stands still by SIGSTOP, then the other. Meanwhile users come whose follows are applied
    before them, tweets come of users whose deletion is applied before them, and names are taken before who had them has let them go."""
    async with scene_with() as scene:
        projectors = await _two(scene)
        rounds = [range(first, first + MANY) for first in (110_000, 120_000)]
        for ids in rounds:
            _before(scene, ids)
        await scene.arrived()
        found = Counter[str]()
        for ids, still in zip(rounds, projectors, strict=True):
            found += await _crossed(scene, ids, still)
        scene.mended()
        assert len(found) == 3
        scene.proves("by the watermarks, while one stood still: " + ", ".join(f"{count} {what}" for what, count in sorted(found.items())))
        await scene.healed()
        for ids in rounds:
            await until(lambda ids=ids: _names_are_right(scene, ids), 20)  # type: ignore[misc]  # the default binds the loop's value


async def _two(scene: Scene) -> list[asyncio.subprocess.Process]:
    (alone,) = scene.projectors
    alone.terminate()
    await alone.wait()
    started = [await scene.project("tests.faults.crashing", "never", "1", SESSION_MS=SESSION_MS) for _ in range(2)]
    await until(lambda: members(scene.road, 2), 40)
    return started


def _before(scene: Scene, ids: range) -> None:
    """Users who bear the names, and users who will be gone."""
    for number in ids:
        scene.writer.put(user(number + 1_000, f"shared{number}"))
        scene.writer.put(user(number + 3_000, f"gone{number}"))


async def _crossed(scene: Scene, ids: range, still: asyncio.subprocess.Process) -> Counter[str]:
    """How many of each kind were applied in the other order."""
    with _stopped(still):
        began = await _ends(scene)
        for number in ids:
            scene.writer.put(user(number, f"late{number}"))
            # another key than the user's, else they would lie in partitions of one number, which one projector has
            scene.writer.put(follow(number + 5_000, number, 1))
            scene.writer.put(tweet(number, number + 3_000))
            scene.writer.delete(user(number + 3_000, ""))
            scene.writer.put(user(number + 1_000, f"left{number}"))
            scene.writer.put(user(number + 2_000, f"shared{number}"))
        await scene.writer.flush()
        ends = await _ends(scene)
        await until(lambda: _half_applied(scene, ends), 25)
        lowest, highest = await _bounds(scene)
    applied = {at for at, end in ends.items() if lowest[at] >= end}
    waiting = {at for at, end in began.items() if highest[at] <= end}

    def crossed(earlier: Row, later: Row) -> bool:
        return _lies(scene, earlier) in waiting and _lies(scene, later) in applied

    return Counter(
        {
            "follows before their user": sum(crossed(user(n, ""), follow(n + 5_000, n, 1)) for n in ids),
            "deletions of a user before the user's tweet": sum(crossed(tweet(n, n), user(n + 3_000, "")) for n in ids),
            "names taken before they were let go": sum(crossed(user(n + 1_000, ""), user(n + 2_000, "")) for n in ids),
        }
    )


@contextmanager
def _stopped(process: asyncio.subprocess.Process) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


async def _ends(scene: Scene) -> Ends:
    return await end_offsets(scene.road.settings.kafka_bootstrap, scene.road.definition.topics)


async def _bounds(scene: Scene) -> tuple[Ends, Ends]:
    """Of each partition the lowest watermark of all shards, and the highest."""
    lowest, highest = dict[tuple[str, int], int](), dict[tuple[str, int], int]()
    for (_, partition), offset in (await scene.watermarks()).items():
        topic, _, number = partition.rpartition(":")
        at = topic, int(number)
        lowest[at], highest[at] = min(offset, lowest.get(at, offset)), max(offset, highest.get(at, offset))
    return lowest, highest


async def _half_applied(scene: Scene, ends: Ends) -> None:
    lowest, _ = await _bounds(scene)
    if (applied := sum(lowest[at] >= end for at, end in ends.items())) < len(ends) // 2:
        raise NotReadyError(f"{applied} of {len(ends)} partitions are applied up to there")


def _lies(scene: Scene, row: Row) -> tuple[str, int]:
    """The partition that its changes go to."""
    key = str(getattr(row, row.source.key)).encode()
    return f"{scene.road.settings.topic_prefix}{row.source.topic}", (murmur2(key) & 0x7FFFFFFF) % PARTITIONS


async def _names_are_right(scene: Scene, ids: range) -> None:
    """Each leads to whoever has it now."""
    rows = (await scene.road.view.load([Read("username", f"shared{number}", ("id",)) for number in ids])).rows
    if [row and row[0] for row in rows] != [b'"%d"' % (number + 2_000) for number in ids]:
        raise NotReadyError(f"names lead to {rows}")
