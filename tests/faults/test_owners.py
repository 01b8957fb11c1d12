"""Two projectors that share the partitions: one leaves, or is frozen until the other has taken over."""

import asyncio
import os
import signal

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from tests.faults.traffic import Traffic
from tests.road import Road, open_road

# the shortest that Kafka lets a group choose
SESSION_MS = "6000"


async def two(road: Road) -> list[asyncio.subprocess.Process]:
    """Two projectors, each with its half of the partitions."""
    started = [await road.start("-m", "tests.faults.crashing", "never", "1", SESSION_MS=SESSION_MS) for _ in range(2)]
    await until(lambda: members(road, 2), 40)
    return started


async def members(road: Road, count: int, traffic: Traffic | None = None) -> None:
    """Raises NotReadyError until the group is at rest with so many. traffic: goes on meanwhile."""
    if traffic:
        traffic.publish(10)
    admin = AIOKafkaAdminClient(bootstrap_servers=road.settings.kafka_bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([road.settings.consumer_group])
        ((_, _, state, _, _, found, *_),) = answer.groups
    except GroupCoordinatorNotAvailableError as not_yet:
        raise NotReadyError("the group has no coordinator yet") from not_yet
    finally:
        await admin.close()
    if (state, len(found)) != ("Stable", count):
        raise NotReadyError(f"the group is {state}, with {len(found)} members")


async def test_a_projector_told_to_end_hands_over_at_once(apache_kafka_at: Server, redis_at: Server, postgres_at: Server) -> None:
    async with open_road(apache_kafka_at, redis_at, postgres_at) as road:
        traffic = Traffic(road, seed=1)
        traffic.publish(2000)
        leaving, staying = await two(road)
        traffic.publish(4000)
        leaving.terminate()
        async with asyncio.timeout(5):
            assert await leaving.wait() == 0
        traffic.publish(2000)
        # sooner than Kafka would have given up one that had gone without a word, and than one waits that does not let go
        await until(lambda: members(road, 1, traffic), 4)
        await road.sunk()
        assert await road.agree(20) > 100
        assert staying.returncode is None


async def test_a_projector_frozen_until_another_took_over_adds_nothing_when_it_wakes(
    apache_kafka_at: Server, redis_at: Server, postgres_at: Server
) -> None:
    async with open_road(apache_kafka_at, redis_at, postgres_at) as road:
        traffic = Traffic(road, seed=2)
        zombie, heir = await two(road)
        traffic.publish(4000)
        # in the middle of it, with batches in hand
        os.kill(zombie.pid, signal.SIGSTOP)
        try:
            traffic.publish(4000)
            await until(lambda: members(road, 1), 30)
            await road.sunk()
            assert await road.agree(30) > 100
            traffic.publish(2000)
        finally:
            os.kill(zombie.pid, signal.SIGCONT)
        traffic.publish(2000)
        await until(lambda: members(road, 2), 30)
        traffic.publish(1000)
        await road.sunk()
        assert await road.agree(30) > 100
        assert (zombie.returncode, heir.returncode) == (None, None)
