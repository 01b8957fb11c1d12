"""Faults of the projector's own process: killed, frozen, crowded, slow."""

import asyncio
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from demo.servers.process import NotReadyError, until
from demo.sink import end_offsets
from schema.positions import Partition
from tests.chaos.conftest import OpenScene
from tests.chaos.scene import Scene
from tests.faults.test_kills import KEEPING
from tests.faults.test_owners import SESSION_MS, members

THROTTLED_SECONDS = 15.0
# of the process, whatever waits for it: Python with its libraries is 100 of them, and 24 partitions are fetched ahead, 1 MiB of each
MEMORY_MIB = 300


async def test_f1_projector_killed_in_mid_batch(scene_with: OpenScene) -> None:
    """The projector kills itself by SIGKILL at named points: half of a batch's calls sent, all sent and no answer acted upon, a batch
    applied and its checkpoint not begun, a checkpoint written and nothing told to Kafka. Each time another takes over its group."""
    async with scene_with() as scene:
        (first,) = scene.projectors
        first.kill()
        await first.wait()
        points = dict.fromkeys(point for point, _ in KEEPING)
        for point in points:
            # half: a batch of several calls, which one change a batch would never be
            scene.writer.publish(500)
            process = await scene.project("tests.faults.crashing", point, "1", SESSION_MS="6000")
            async with asyncio.timeout(60):
                assert await process.wait() == -signal.SIGKILL, point
        await scene.project()
        scene.mended()
        scene.proves(f"{len(points)} projectors died by SIGKILL, one at each of: {', '.join(points)}")
        await scene.healed()


async def test_f2_two_owners(scene_with: OpenScene, tmp_path: Path) -> None:
    """One of two projectors is frozen by SIGSTOP with half of a batch's calls sent, for longer than Kafka waits for it (6 s). The other
    takes over its partitions and goes on. Then it wakes, and sends the other half."""
    late = tmp_path / "late"
    async with scene_with() as scene:
        (heir,) = scene.projectors
        zombie = await scene.project("tests.faults.crashing", "half", "1", SESSION_MS=SESSION_MS, LATE=str(late))
        await until(lambda: stopped(zombie.pid), 30)
        began = time.monotonic()
        await until(lambda: members(scene.road, 1), 30)
        await scene.goes_on(2)
        assert not late.exists()
        os.kill(zombie.pid, signal.SIGCONT)
        scene.mended()
        await until(lambda: told(late), 10)
        refused, sent = map(int, late.read_text().split())
        assert 0 < refused == sent
        asleep = f"frozen for {time.monotonic() - began:.1f} s, in which the other took over"
        scene.proves(f"{asleep}; of {sent} calls that came late {refused} were refused")
        await until(lambda: members(scene.road, 2), 30)
        await scene.healed()
        assert (zombie.returncode, heir.returncode) == (None, None)


async def test_f3_rebalance_storm(scene_with: OpenScene) -> None:
    """Beside a projector that stays, others come by twos, until their group has been shared out anew eight times. Of each two one
    leaves when it is told to, the other by SIGKILL, at moments drawn at random: also while partitions change hands."""
    async with scene_with() as scene:
        (staying,) = scene.projectors
        rng, left = random.Random(3), []
        while generation(scene.said) < 8:
            comers = [await scene.project("tests.faults.crashing", "never", "1", SESSION_MS=SESSION_MS) for _ in range(2)]
            await until(partial(_beyond, scene.said, generation(scene.said)), 30)
            await scene.goes_on(rng.uniform(0, 2))
            comers[0].kill()
            await scene.goes_on(rng.uniform(0, 2))
            comers[1].terminate()
            left += comers
        scene.mended()
        async with asyncio.timeout(20):
            ended = [await process.wait() for process in left]
        assert set(ended[::2]) == {-signal.SIGKILL}
        # one that is told to leave before it has begun to listen ends at once
        assert set(ended[1::2]) <= {0, -signal.SIGTERM}
        came = f"{len(left)} came, half of them were killed, {ended.count(0)} left in order"
        scene.proves(f"{generation(scene.said)} generations of the group; {came}")
        await scene.healed()
        assert staying.returncode is None


async def test_f21_slow_projector(scene_with: OpenScene) -> None:
    """The projector gets a twentieth of a processor at most (SIGSTOP and SIGCONT in turn, twice a second) while 200,000 changes come at
    once: its memory must not grow with the backlog, and its group must not give it up. Then it is let go, and catches up."""
    async with scene_with() as scene:
        (projector,) = scene.projectors
        before, shared_out = resident(projector.pid), generation(scene.said)
        async with throttled(projector.pid) as held:
            for _ in range(1000):
                scene.writer.publish(200)
                await asyncio.sleep(0)
            await scene.writer.flush()
            await scene.goes_on(THROTTLED_SECONDS)
            waiting = await unapplied(scene)
        scene.mended()
        assert waiting > 10_000
        scene.proves(f"after {THROTTLED_SECONDS:.0f} s {waiting:,.0f} changes still waited")
        await scene.healed()
        peak = max(*held, resident(projector.pid))
        assert peak < MEMORY_MIB
        assert generation(scene.said) == shared_out
        scene.proves(f"its memory was {before} MiB before and {peak} MiB at most; its group was not shared out anew")


async def unapplied(scene: Scene) -> int:
    """Records that no shard has yet. Of Kafka and Redis, for a projector that is throttled may not answer for itself."""
    ends = await end_offsets(scene.kafka.address, scene.road.definition.topics)
    applied: Counter[str] = Counter()
    for (_, partition), offset in (await scene.watermarks()).items():
        applied[partition] = max(applied[partition], offset)
    return sum(end - applied[str(Partition(*at))] for at, end in ends.items())


@asynccontextmanager
async def throttled(pid: int) -> AsyncIterator[list[int]]:
    """The process runs for a twentieth of the time, until the block ends. Its memory, in MiB, as it was seen meanwhile."""
    held: list[int] = []

    async def hold() -> None:
        while True:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0.48)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.02)
            held.append(resident(pid))

    holding = asyncio.create_task(hold())
    try:
        yield held
    finally:
        holding.cancel()
        await asyncio.wait([holding])
        os.kill(pid, signal.SIGCONT)


def resident(pid: int) -> int:
    """MiB of memory that the process holds."""
    return int(re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) // 1024


async def _beyond(said: Path, before: int) -> None:
    if (now := generation(said)) <= before:
        raise NotReadyError(f"the group is at its generation {now}")


def generation(said: Path) -> int:
    """How often the group has been shared out, by what its members were told."""
    return max(map(int, re.findall(r"Successfully synced group \S+ with generation (\d+)", said.read_text())), default=0)


async def stopped(pid: int) -> None:
    """Raises NotReadyError until the process is frozen."""
    if (state := Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]) != "T":  # noqa: ASYNC240  # of memory
        raise NotReadyError(f"{pid} is {state}")


async def told(file: Path) -> None:
    """Raises NotReadyError until something was written there."""
    if not file.exists() or not file.read_text():  # noqa: ASYNC240  # a small file
        raise NotReadyError(f"{file} is empty")
