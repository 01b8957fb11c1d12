"""Faults of what the topics hold: records that are no change, changes out of order, changes that come again."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.structs import RecordMetadata

from demo.servers.process import NotReadyError, until
from demo.sink import end_offsets
from projectors.dead_letters import CUT, REASON, position, told
from schema.positions import Partition
from tests.chaos.conftest import OpenScene
from tests.chaos.poison import MB, poison
from tests.chaos.scene import Scene
from tests.faults.arranged import follow, like, tweet, user
from tests.faults.test_changelog import configure
from tests.faults.test_records import dead_letters

NOBODY = 999_999
# of each of a scene's topics
PARTITIONS = 6
HEADERS = [("trace", b"\x00\xff"), ("trace", b"twice"), ("nothing", None)]


@dataclass(frozen=True, slots=True)
class Sent:
    """A record that is no change, and where it lies. what: is wrong with it."""

    what: str
    partition: Partition
    offset: int
    key: bytes | None
    value: bytes


async def test_f12_poison_of_every_kind(scene_with: OpenScene) -> None:
    """Among good changes, on every topic, come records that are no change: no JSON, JSON that is cut off, bad UTF-8, nested bombs, each
    column as another type, null or missing, unknown ops, missing sides, no key, times that are none, 10 MB. Each with a tombstone."""
    async with scene_with() as scene:
        sent = await _poisoned(scene)
        # what is unusual and yet a change: a name longer than a page of an index, of letters that do not compress
        scene.writer.put(user(1, random.Random(1).randbytes(6_000).hex(), "\t\x7f\u2028"))
        await until(lambda: _past(scene, sent.values()), 60)
        scene.mended()
        letters = {position(letter): letter for letter in await dead_letters(scene.road, len(sent))}
        for at, one in sent.items():
            assert at in letters, one.what
            _is_kept(letters[at], one)
        assert letters.keys() == sent.keys()
        topics = {one.partition.topic for one in sent.values()}
        assert topics == set(scene.road.definition.topics)
        scene.proves(
            f"{len(sent)} records of {len({one.what for one in sent.values()})} kinds on {len(topics)} topics are in the dead letters as "
            f"they were, with position and reason, and nothing else is; all watermarks are past them"
        )
        await scene.healed()


async def test_f14_same_offsets_again(scene_with: OpenScene) -> None:
    """Projectors die by SIGKILL when they have sent half of a batch's calls, so whoever goes on reads offsets again that some shards have
    and others have not. What Kafka holds as committed offset is put to the beginning or to the end each time, and counts for nothing."""
    async with scene_with() as scene:
        (first,) = scene.projectors
        first.kill()
        await first.wait()
        for run in range(3):
            # a batch of several calls
            scene.writer.publish(500)
            group = await _committed(scene, f"{run}", at_end=run % 2 == 1)
            process = await scene.project("tests.faults.crashing", "half", "1", VIEWGATE_CONSUMER_GROUP=group)
            async with asyncio.timeout(60):
                assert await process.wait() == -signal.SIGKILL
        await scene.project(VIEWGATE_CONSUMER_GROUP=await _committed(scene, "last", at_end=True))
        scene.mended()
        await until(lambda: scene.counts("viewgate_duplicates_dropped_total", 1), 30)
        dropped = int(await scene.counted("viewgate_duplicates_dropped_total"))
        scene.proves(f"three projectors died in mid-batch; the last one read {dropped:,} changes again that some shard had")
        await scene.healed()


async def _committed(scene: Scene, name: str, *, at_end: bool) -> str:
    """A group of this name that has been told of all, or of nothing."""
    group = f"{scene.road.settings.consumer_group}-{name}"
    ends = await end_offsets(scene.kafka.address, scene.road.definition.topics)
    async with AIOKafkaConsumer(bootstrap_servers=scene.kafka.address, group_id=group, enable_auto_commit=False) as consumer:
        consumer.assign([TopicPartition(*at) for at in ends])
        await consumer.commit({TopicPartition(*at): end if at_end else 0 for at, end in ends.items()})
    return group


async def _poisoned(scene: Scene) -> Mapping[str, Sent]:
    """By position."""
    lying: list[tuple[str, bytes | None, bytes, Awaitable[RecordMetadata]]] = []
    async with AIOKafkaProducer(bootstrap_servers=scene.kafka.address, max_request_size=16 * MB) as producer:
        for row in (user(NOBODY, "nobody"), tweet(NOBODY, NOBODY), follow(NOBODY, NOBODY, 1), like(NOBODY, NOBODY)):
            topic = f"{scene.road.settings.topic_prefix}{row.source.topic}"
            await configure(scene.kafka, ConfigResourceType.TOPIC, topic, max_message_bytes=str(16 * MB))
            for number, (what, (key, value)) in enumerate(poison(row).items()):
                to = number % PARTITIONS
                lying.append((what, key, value, await producer.send(topic, value, key, partition=to, headers=HEADERS)))
                await producer.send(topic, None, key or b"", partition=to)
    sent = {}
    for what, key, value, arrived in lying:
        lies = await arrived
        one = Sent(what, Partition(lies.topic, lies.partition), lies.offset, key, value)
        sent[f"{one.partition}:{one.offset}"] = one
    return sent


async def _past(scene: Scene, sent: Iterable[Sent]) -> None:
    lowest: dict[str, int] = {}
    for (_, partition), offset in (await scene.watermarks()).items():
        lowest[partition] = min(offset, lowest.get(partition, offset))
    if left := [one for one in sent if lowest[str(one.partition)] <= one.offset]:
        raise NotReadyError(f"{len(left)} records are not passed, such as {left[0].what} at {left[0].partition}:{left[0].offset}")


def _is_kept(letter: ConsumerRecord, one: Sent) -> None:
    assert letter.key == one.key
    assert told(letter, REASON), one.what
    assert list(letter.headers[: len(HEADERS)]) == HEADERS
    if told(letter, CUT):
        assert len(one.value) > MB
        assert one.value.startswith(letter.value)
    else:
        assert letter.value == one.value
