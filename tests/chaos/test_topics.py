"""Faults of topics: retention that has overtaken a projector, a topic deleted and made anew, partitions added."""

import asyncio

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.structs import TopicPartition

from demo.servers.kafka import create_topics
from demo.servers.process import NotReadyError, until
from demo.sink import end_offsets
from schema.sql import POSITIONS
from tests.chaos.conftest import OpenScene
from tests.chaos.scene import RATE, Scene
from tests.faults.test_records import stopped
from tests.faults.test_sources import gone, opened

ANEW = "rebuild --from sql"


async def test_f17_retention_has_overtaken_a_stopped_projector(scene_with: OpenScene) -> None:
    """Kafka deletes records that the projector has not read (DeleteRecords), while it is frozen. It stops once it wakes, and stops at
    once when it is started again; both times its sentence names `viewgate rebuild --from sql`, which is run, and heals."""
    async with scene_with() as scene:
        (projector,) = scene.projectors
        with scene.frozen_projectors():
            read = await scene.watermarks()
            await scene.goes_on(3)
            in_sql = await positions(scene)
            admin = await opened(scene.kafka.address)
            await admin.delete_records({TopicPartition(*at): RecordsToDelete(offset) for at, offset in in_sql.items()})
            await admin.close()
        unread = sum(offset - min(read[shard, f"{topic}:{number}"] for shard in range(256)) for (topic, number), offset in in_sql.items())
        assert unread > 0
        await stopped(projector, scene.said, "Kafka no longer has what comes next", ANEW)
        await stopped(await scene.project(), scene.said, "retention has passed the watermark", ANEW)
        scene.mended()
        await rebuilt(scene)
        scene.proves(f"{unread:,} records were gone that had not been read; the projector said so twice, with exit code 1")
        await scene.healed()


async def test_f18_topic_made_anew(scene_with: OpenScene) -> None:
    """The topic of likes is deleted and made anew, and filled beyond where the old one ended, while the projector is frozen: by offsets
    alone nothing is amiss. The projector stops once it wakes; its sentence names `viewgate rebuild --from sql`, which is run, and heals."""
    async with scene_with() as scene:
        (projector,) = scene.projectors
        await scene.goes_on(2)
        topic = f"{scene.road.settings.topic_prefix}likes"
        await at_rest(scene)
        old = await end_offsets(scene.kafka.address, [topic])
        with scene.frozen_projectors():
            admin = await opened(scene.kafka.address)
            await admin.delete_topics([topic])
            await until(lambda: gone(admin, topic), 20)
            await admin.close()
            await create_topics(scene.kafka.address, {topic: 6})
            # the tables have all that the old topic told
            await scene.road.pool.execute(f"UPDATE {POSITIONS} SET next_offset = 0 WHERE topic = $1", topic)  # a constant
            scene.writer.rate = RATE
            await until(lambda: beyond(scene, topic, old), 60)
        await stopped(projector, scene.said, "was deleted and made anew", ANEW)
        scene.mended()
        await scene.start_sink()
        await rebuilt(scene)
        scene.proves(f"its {sum(old.values()):,} records were gone, and others had their offsets; the projector said so, with exit code 1")
        await scene.healed()


async def test_f18_partitions_added(scene_with: OpenScene) -> None:
    """A partition is added to the topic of follows, and filled, while the projector runs. It stops by itself; its sentence names
    `viewgate rebuild --from sql`, which is run, and heals."""
    async with scene_with() as scene:
        (projector,) = scene.projectors
        await scene.goes_on(2)
        topic = f"{scene.road.settings.topic_prefix}follows"
        await at_rest(scene)
        admin = await opened(scene.kafka.address)
        await admin.create_partitions({topic: NewPartitions(7)})
        await until(lambda: has(admin, topic, 7), 20)
        await admin.close()
        # publishers hear of it every five minutes by themselves
        await asyncio.to_thread(scene.road.publisher._producer.list_topics, topic, 5)
        scene.writer.rate = RATE
        await until(lambda: beyond(scene, topic, {(topic, 6): 20}), 30)
        await stopped(projector, scene.said, "partitions were added", ANEW)
        scene.mended()
        await scene.start_sink()
        await rebuilt(scene)
        filled = (await end_offsets(scene.kafka.address, [topic]))[topic, 6]
        scene.proves(f"{filled:,} records came to the new partition; the projector said so, with exit code 1")
        await scene.healed()


async def positions(scene: Scene) -> dict[tuple[str, int], int]:
    """What the tables have, by topic and partition."""
    stored = await scene.road.pool.fetch(f"SELECT topic, partition, next_offset FROM {POSITIONS}")  # a constant
    return {(topic, partition): offset for topic, partition, offset in stored}


async def at_rest(scene: Scene) -> None:
    """Nothing is published, the tables have everything, and the sink has ended."""
    scene.writer.rate = 0
    await scene.arrived(30)
    await scene.end_sink()


async def beyond(scene: Scene, topic: str, offsets: dict[tuple[str, int], int]) -> None:
    """Raises NotReadyError until the topic has more than these; publishes to it."""
    scene.writer.publish(200)
    ends = await end_offsets(scene.kafka.address, [topic])
    if short := {at: offset for at, offset in offsets.items() if ends.get(at, 0) <= offset}:
        raise NotReadyError(f"not beyond {short} yet: {ends}")


async def has(admin: AIOKafkaAdminClient, topic: str, partitions: int) -> None:
    """Raises NotReadyError until it has so many."""
    (described,) = await admin.describe_topics([topic])
    if len(described["partitions"]) != partitions:
        raise NotReadyError(f"{topic} has {len(described['partitions'])} partitions")


async def rebuilt(scene: Scene) -> None:
    """By the command that was named; then a projector keeps it again."""
    await scene.road.rebuilt("--from", "sql", said=scene.said)
    await scene.project()
