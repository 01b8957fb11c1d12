"""Faults of the projector's own process: killed, frozen, crowded, slow."""

import asyncio
import signal

from tests.chaos.conftest import OpenScene
from tests.faults.test_kills import KEEPING


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
