"""Kafka that goes away: a projector waits for it, ends when it is told to, and starts without it."""

import asyncio
import json
from collections import Counter
from pathlib import Path

from demo.servers import kafka
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from tests.conftest import CACHE
from tests.faults.traffic import Traffic
from tests.road import open_road

SECONDS = 12


async def test_a_projector_waits_for_kafka_ends_without_it_and_starts_without_it(
    apache_kafka_at: Server, redis_at: Server, postgres_at: Server, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    with scratch() as folder:
        async with kafka.start(folder, CACHE, prefer="installed", say=print) as own, open_road(own, redis_at, postgres_at) as road:
            assert own.process is not None
            traffic = Traffic(road, seed=6, users=60)
            staying = await road.project()
            ending = await road.start(
                "-m", "app", "project", said=said, VIEWGATE_CONSUMER_GROUP="another", VIEWGATE_CHECKPOINT_SECONDS="0.5"
            )
            traffic.publish(1000)
            await road.sunk()
            assert await road.agree() > 10
            await own.process.kill()
            # long enough for a checkpoint that cannot tell Kafka of itself
            await asyncio.sleep(3)
            ending.terminate()
            async with asyncio.timeout(SECONDS):
                assert await ending.wait() == 0
            starting = await road.start("-m", "app", "project", said=said, VIEWGATE_CONSUMER_GROUP="a third")
            await until(lambda: tells(said, "kafka_away"), SECONDS)
            await own.process.start()
            traffic.publish(500)
            await road.sunk()
            assert await road.agree() > 10
            assert (staying.returncode, starting.returncode) == (None, None)
            # a Kafka that hangs holds nobody up
            own.process.pause()
            staying.terminate()
            starting.terminate()
            async with asyncio.timeout(SECONDS + 5):
                assert [await process.wait() for process in (staying, starting)] == [0, 0]
    lines = [json.loads(line) for line in said.read_text().splitlines() if line.startswith("{")]
    assert "Traceback" not in said.read_text()
    # what aiokafka says ten times a second is not written ten times a second
    assert max(Counter(line["event"] for line in lines if line["event"] not in OURS).values()) < 2 * SECONDS


OURS = {"kafka_away", "partitions_taken", "commit_skipped"}


async def tells(said: Path, word: str) -> None:
    if word not in said.read_text():  # noqa: ASYNC240  # a small file
        raise NotReadyError(said.read_text()[-1000:])  # noqa: ASYNC240  # the same
