"""What a projector promises its readers, and what it holds against the topics while it reads them."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import NodeNotReadyError
from redis.asyncio import Redis

from demo.servers.process import NotReadyError, until
from loaders.live import Live
from projectors import topic_ids
from projectors.apply import Header
from projectors.log import FETCH, Fetched, KafkaLog
from projectors.reading import Reading, SourceChanged, check_topics
from projectors.topic_ids import Topic, Watch
from schema.generation import Generation
from schema.positions import Partition, Watermark
from schema.user import Users
from tests.faults.arranged import DEFINITION, World, user
from tests.faults.memory import MemoryLog

USERS = Partition("users", 0)


class LateLog(MemoryLog):
    """Kafka has answered only what was asked long ago."""

    async def fetch(self) -> Fetched:
        fetched = await MemoryLog.fetch(self)
        return Fetched(fetched.batches, fetched.assigned, fetched.revoked, fetched.ends, dict.fromkeys(fetched.ends, 7))


async def test_a_level_projector_is_as_of_the_question_that_was_answered_last(redis: Redis) -> None:
    world = World(redis, partitions=1)
    await world.begin()
    owner = await world.owner()
    late = LateLog(world.topics, assigned=list(world.topics.partitions))
    owner.projector._log = owner.log = late
    world.put(user(1, "one"))
    await owner.level()
    assert set((await redis.hgetall(world.keys.progress)).values()) == {b"7"}


async def test_who_goes_on_promises_no_more_than_the_shard_that_is_furthest_behind_has() -> None:
    headers = {
        0: Header(b"live", "0", {str(USERS): Watermark(5, 100, "t")}),
        1: Header(b"live", "0", {str(USERS): Watermark(9, 200, "t")}),
        2: Header(b"live", "0", {str(USERS): Watermark(5, 90, "t")}),
    }
    reading = Reading.begin(USERS, Users, headers)
    assert (reading.next, reading.ts_ms) == (5, 100)


@dataclass(slots=True)
class Broker:
    """aiokafka's client: answers each question with what stands here, after a while."""

    topics: Mapping[str, Topic] = field(default_factory=dict)
    end: int = 4
    seconds: float = 0.0

    async def send(self, node_id: int, request: Any, **_: Any) -> Any:
        await asyncio.sleep(self.seconds)
        error, stable = (0, self.end) if self.end >= 0 else (6, -1)
        return SimpleNamespace(API_VERSION=11, topics=[("users", [(0, error, 99, stable, 0, [], -1, b"")])])


async def test_an_end_offset_is_as_of_its_question_and_a_late_answer_of_another_broker_tells_nothing() -> None:
    broker = Broker(seconds=0.05)
    consumer = SimpleNamespace(_client=broker, subscribe=lambda *_, **__: None, start=lambda: asyncio.sleep(0))
    log, send, fetch = KafkaLog(consumer), broker.send, SimpleNamespace(API_KEY=FETCH)
    before = time.time_ns() // 1_000_000
    late = asyncio.create_task(log._send(send, 1, fetch))
    await asyncio.sleep(0.01)
    broker.seconds = 0.0
    await log._send(send, 2, fetch)
    told = log._told[USERS]
    assert told[1] == 4
    assert before + 10 <= told[0] <= time.time_ns() // 1_000_000
    broker.end = 3
    await late
    assert log._told[USERS] == told
    # an error tells no end
    broker.end = -1
    await log._send(send, 1, fetch)
    assert log._told[USERS] == told


def record(**topics: Topic) -> Generation:
    start = {f"{name}:{number}": 0 for name, topic in topics.items() for number in range(topic.partitions)}
    ids = {name: topic.id for name, topic in topics.items()}
    return Generation("g1", "0", DEFINITION.fingerprint, 256, {"name": "0"}, {}, start, {}, ids, "live")


def test_a_topic_that_is_another_one_or_has_more_partitions_stops_the_projector() -> None:
    generation = record(users=Topic("first", 2))
    check_topics({}, generation)
    check_topics({"users": Topic("first", 2)}, generation)
    with pytest.raises(SourceChanged, match=r"users was deleted and made anew \(id second, was first\).*viewgate rebuild --from sql"):
        check_topics({"users": Topic("second", 2)}, generation)
    with pytest.raises(SourceChanged, match=r"users:2 did not exist.*partitions were added.*viewgate rebuild --from sql"):
        check_topics({"users": Topic("first", 3)}, generation)


def test_an_answer_is_as_of_nothing_while_a_partition_tells_nothing() -> None:
    live = Live.of(DEFINITION, record(users=Topic("first", 2)), ())
    live.progress({b"users:0": b"5"}, 1)
    assert live.as_of_ms == 0
    live.progress({b"users:0": b"5", b"users:1": b"3"}, 1)
    assert live.as_of_ms == 3


async def test_topics_are_fresh_only_while_kafka_answers_and_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_SECONDS", "WAIT_SECONDS"):
        monkeypatch.setattr(topic_ids, name, 0.01)
    for name in ("FRESH_SECONDS", "GONE_SECONDS"):
        monkeypatch.setattr(topic_ids, name, 0.1)
    answer: Mapping[str, Topic] | None = {"users": Topic("first", 2)}

    async def look(*_: object) -> Mapping[str, Topic]:
        if answer is None:
            raise NodeNotReadyError
        return answer

    monkeypatch.setattr(topic_ids, "look", look)
    watch = Watch()
    watch.wanted = ["users"]
    client: Any = None
    assert await watch.look(client)
    assert (watch.topics, watch.gone) == (answer, [])
    looked_ms, answer = watch.looked_ms, None
    await until(lambda: is_fresh(watch, fresh=False), 5)
    assert watch.looked_ms - looked_ms < 100
    assert watch.gone == []
    answer = {}
    async with asyncio.timeout(5):
        while not watch.gone:
            assert not await watch.look(client)
    assert watch.gone == ["users"]
    answer = {"users": Topic("second", 2)}
    await until(lambda: is_fresh(watch, fresh=True), 5)
    assert (watch.topics, watch.gone) == (answer, [])
    watch.end()


async def is_fresh(watch: Watch, *, fresh: bool) -> None:
    client: Any = None
    if await watch.look(client) is not fresh:
        raise NotReadyError("not yet")
