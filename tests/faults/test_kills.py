"""`kill -9` of the projector, at each point where it hurts and at random, on the whole road."""

import asyncio
import random
import signal
from collections.abc import Callable
from pathlib import Path

from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from tests.faults.traffic import Traffic
from tests.road import Road, open_road

CHANGES = 50_000
# in this order: a generation is opened, built, promoted, and then kept
OPENING = (("headers", 1), ("half", 3), ("answer", 5), ("promote", 1), ("pointer", 1))
KEEPING = (("half", 1), ("checkpoint", 1), ("answer", 2), ("commit", 1), ("half", 9), ("commit", 2), ("half", 20))
RANDOM = 6


async def test_kills_between_any_two_steps_leave_every_field_as_sql_counts_it(
    kafka_at: Server, redis_at: Server, postgres_at: Server, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    dropped = tmp_path / "dropped"
    rng = random.Random(9)
    async with open_road(kafka_at, redis_at, postgres_at) as road:
        traffic = Traffic(road, seed=9)
        chunk = CHANGES // (len(OPENING) + len(KEEPING) + RANDOM + 1)
        runs = 0
        for point, times in OPENING + KEEPING:
            if (point, times) not in OPENING[3:]:
                # to be promoted a build must be level
                traffic.publish(chunk)
            runs += 1
            process = await crashing(road, point, times, runs, dropped)
            async with asyncio.timeout(40):
                assert await process.wait() == -signal.SIGKILL, point
        for _ in range(RANDOM):
            runs += 1
            process = await crashing(road, "never", 1, runs, dropped)
            before = await applied(road)
            traffic.publish(chunk)
            await until(lambda before=before: moved(road, before), 40)  # type: ignore[misc]  # the default binds the loop's value
            await asyncio.sleep(rng.random() * 0.2)
            process.kill()
            await process.wait()
        last = await crashing(road, "never", 1, runs + 1, dropped)
        traffic.publish(CHANGES - traffic.published)
        await road.sunk()
        assert await road.agree() > 100
        assert last.returncode is None
    duplicates = sum(map(int, dropped.read_text().split()))
    record_property("duplicates", duplicates)
    # a run without any has not hit the window between two calls
    assert duplicates > 0


async def crashing(road: Road, point: str, times: int, run: int, dropped: Path) -> asyncio.subprocess.Process:
    """A projector that will die. In a group of its own, since Kafka would wait for the member that died before it."""
    group = f"{road.settings.consumer_group}-{run}"
    return await road.start(
        "-m", "tests.faults.crashing", point, str(times), DROPPED=str(dropped), VIEWGATE_CONSUMER_GROUP=group, VIEWGATE_LOG_LEVEL="warning"
    )


async def applied(road: Road) -> bytes:
    """Every watermark, as one text."""
    keys = sorted([key async for key in road.redis.scan_iter("user:g1:{*}", count=5000)])
    return b"".join([b"%r" % (await road.redis.hgetall(key),) for key in keys[:40]])


async def moved(road: Road, before: bytes) -> None:
    if await applied(road) == before:
        raise NotReadyError("nothing was applied")
