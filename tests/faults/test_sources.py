"""A Redis that came back empty, and topics that are no longer what they were."""

from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from demo.servers.kafka import create_topics
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from demo.sink import end_offsets
from schema.loader import Read, ViewNotReady
from tests.faults.arranged import NAMES
from tests.faults.test_records import stopped
from tests.faults.traffic import Traffic
from tests.road import Road, open_road


@pytest.mark.parametrize("projectors", [1, 2])
async def test_an_empty_redis_is_built_again_from_kafkas_beginning_and_never_read_as_zeros(
    apache_kafka_at: Server, redis_at: Server, postgres_at: Server, projectors: int
) -> None:
    async with open_road(apache_kafka_at, redis_at, postgres_at) as road:
        traffic = Traffic(road, seed=3, users=60)
        traffic.publish(3000)
        running = [await road.project() for _ in range(projectors)]
        await road.sunk()
        rows = await road.agree()
        final = await road.in_view()
        # one reader throughout: it knows where the rows were
        reader = road.view
        await reader.ready()
        await road.redis.flushall()
        seen = 0

        async def back() -> None:
            nonlocal seen
            try:
                found = (await reader.load([Read("id", key, NAMES) for key in final])).rows
            except ViewNotReady:
                seen += 1
                raise NotReadyError("the view is not ready") from None
            assert [dict(zip(NAMES, row, strict=True)) for row in found if row is not None] == list(final.values())

        await until(back, 40)
        assert seen > 0
        traffic.publish(500)
        await road.sunk()
        assert await road.agree() == pytest.approx(rows, abs=60)
        assert [process.returncode for process in running] == [None] * projectors


async def test_a_redis_that_may_evict_stops_the_projector_before_it_writes(
    kafka_at: Server, redis_at: Server, postgres_at: Server, tmp_path: Path
) -> None:
    async with open_road(kafka_at, redis_at, postgres_at, partitions=1) as road:
        await road.redis.config_set("maxmemory-policy", "allkeys-lru")
        try:
            process = await road.start("-m", "app", "project", said=tmp_path / "said")
            await stopped(process, tmp_path / "said", "maxmemory-policy allkeys-lru", "`redis-cli config set maxmemory-policy noeviction`")
            assert [key async for key in road.redis.scan_iter("user:*")] == []
        finally:
            await road.redis.config_set("maxmemory-policy", "noeviction")


async def test_retention_that_passed_the_watermark_stops_the_projector(
    apache_kafka_at: Server, redis_at: Server, postgres_at: Server, tmp_path: Path
) -> None:
    async with open_road(apache_kafka_at, redis_at, postgres_at, partitions=1) as road:
        await built_and_left(road)
        ends = await end_offsets(apache_kafka_at.address, road.definition.topics)
        admin = await opened(apache_kafka_at.address)
        try:
            await admin.delete_records({TopicPartition(*p): RecordsToDelete(end) for p, end in ends.items()})
        finally:
            await admin.close()
        await stopped(await road.start("-m", "app", "project", said=tmp_path / "said"), tmp_path / "said", "retention has passed")
        await stopped(await road.start("-m", "app", "project", said=tmp_path / "said"), tmp_path / "said", "retention has passed")


async def test_retention_short_of_the_watermark_hurts_nothing(apache_kafka_at: Server, redis_at: Server, postgres_at: Server) -> None:
    async with open_road(apache_kafka_at, redis_at, postgres_at, partitions=1) as road:
        traffic = await built_and_left(road, more=0)
        admin = await opened(apache_kafka_at.address)
        try:
            await admin.delete_records(
                {
                    TopicPartition(*p): RecordsToDelete(end)
                    for p, end in (await end_offsets(apache_kafka_at.address, road.definition.topics)).items()
                }
            )
        finally:
            await admin.close()
        traffic.publish(500)
        await road.project()
        await road.sunk()
        assert await road.agree() > 10


async def test_a_topic_deleted_and_made_anew_stops_the_projector(
    apache_kafka_at: Server, redis_at: Server, postgres_at: Server, tmp_path: Path
) -> None:
    async with open_road(apache_kafka_at, redis_at, postgres_at, partitions=1) as road:
        await built_and_left(road)
        topic = f"{road.settings.topic_prefix}likes"
        admin = await opened(apache_kafka_at.address)
        try:
            await admin.delete_topics([topic])
            await until(lambda: gone(admin, topic), 20)
        finally:
            await admin.close()
        await create_topics(apache_kafka_at.address, {topic: 1})
        process = await road.start("-m", "app", "project", said=tmp_path / "said")
        await stopped(process, tmp_path / "said", "was deleted and made anew")


async def built_and_left(road: Road, more: int = 500) -> Traffic:
    """A live view whose projector has ended, and changes that came after."""
    traffic = Traffic(road, seed=4, users=40)
    traffic.publish(1000)
    process = await road.project()
    await road.sunk()
    await road.agree()
    process.terminate()
    assert await process.wait() == 0
    if more:
        traffic.publish(more)
    return traffic


async def opened(address: str) -> AIOKafkaAdminClient:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    return admin


async def gone(admin: AIOKafkaAdminClient, topic: str) -> None:
    if topic in await admin.list_topics():
        raise NotReadyError(f"{topic} is still there")
