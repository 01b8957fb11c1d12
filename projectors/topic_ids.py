"""Kafka's own id of a topic, by which one that was deleted and made anew is told from the old one; and whether it is still the same.

aiokafka 0.14 asks for metadata up to version 5, which has no ids; this is version 12 of the same request (KIP-516).
"""

import asyncio
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import AbstractType, Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

LOOK_SECONDS, FRESH_SECONDS, WAIT_SECONDS = 0.25, 1.0, 0.2
# a broker that is new in its cluster may not have heard of a topic yet
GONE_SECONDS = 10.0
# of one that does not answer; another is asked then
LOOK_TIMEOUT_SECONDS = 5.0


class _Uuid(AbstractType[str]):  # type: ignore[misc]  # aiokafka has no types
    @classmethod
    def encode(cls, value: str) -> bytes:
        return uuid.UUID(value).bytes

    @classmethod
    def decode(cls, data: BytesIO) -> str:
        return str(uuid.UUID(bytes=data.read(16)))


_NO_ID = str(uuid.UUID(int=0))
_TEXT = CompactString("utf-8")
_NUMBERS = CompactArray(Int32)
_PARTITION = CompactArray(
    ("error_code", Int16),
    ("partition", Int32),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("replicas", _NUMBERS),
    ("isr", _NUMBERS),
    ("offline_replicas", _NUMBERS),
    ("tags", TaggedFields),
)


class _Answer(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), ("tags", TaggedFields)),
        ),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                ("partitions", _PARTITION),
                ("operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _Question(RequestStruct):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", _TEXT), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _TopicIds(Request[_Question]):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 3

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics: list[tuple[str, str, dict[int, bytes]]] = [(_NO_ID, topic, {}) for topic in topics]

    def build(self, request_struct_class: type[_Question]) -> _Question:
        return request_struct_class(self._topics, False, False, {})


class Topic(NamedTuple):
    """As Kafka has it now: its id, and how many partitions. "" and 0 where the broker (before Kafka 2.8, or a mock) tells neither."""

    id: str
    partitions: int


class Watch:
    """Looks at the wanted topics again and again, beside whoever reads them. topics: as they were found last, when Kafka was asked at
    looked_ms (Unix ms). gone: those that Kafka has not had for a while."""

    def __init__(self) -> None:
        self.wanted: Sequence[str] = ()
        self.topics: Mapping[str, Topic] = {}
        self.looked_ms = 0
        self.gone: list[str] = []
        self._looked, self._missed = float("-inf"), float("inf")
        self._looking: asyncio.Task[None] | None = None

    async def look(self, client: AIOKafkaClient) -> bool:
        """Whether they were looked at lately; waits a moment for a look that is due."""
        if self._looking is None and self._age() >= LOOK_SECONDS:
            self._looking = asyncio.create_task(self._look(client))
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=WAIT_SECONDS if self._age() > FRESH_SECONDS else 0)
            if self._looking.done():
                self._looking = None
        return self._age() <= FRESH_SECONDS

    def end(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    def _age(self) -> float:
        return time.monotonic() - self._looked

    async def _look(self, client: AIOKafkaClient) -> None:
        looked, looked_ms = time.monotonic(), time.time_ns() // 1_000_000
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                topics = await look(client, self.wanted)
        except (KafkaError, TimeoutError):
            await asyncio.sleep(LOOK_SECONDS)
            return
        if missing := [topic for topic in self.wanted if topic not in topics]:
            self._missed = min(looked, self._missed)
            self.gone = missing if looked - self._missed > GONE_SECONDS else []
            await asyncio.sleep(LOOK_SECONDS)
            return
        self.topics, self.gone = topics, []
        self._looked, self.looked_ms, self._missed = looked, looked_ms, float("inf")


async def look(client: AIOKafkaClient, topics: Iterable[str]) -> Mapping[str, Topic]:
    """Each topic that exists. Raises KafkaError."""
    wanted = list(topics)
    try:
        answer = await client.send(client.get_random_node(), _TopicIds(wanted))
    except (IncompatibleBrokerVersion, NotImplementedError):
        return dict.fromkeys(wanted, Topic("", 0))
    return {topic: Topic(topic_id, len(partitions)) for error, topic, topic_id, _, partitions, *_ in answer.topics if not error}


async def topic_ids(client: AIOKafkaClient, topics: Iterable[str]) -> Mapping[str, str]:
    """The id of each topic that exists; "" for all of them where the broker tells none. Raises KafkaError."""
    return {name: topic.id for name, topic in (await look(client, topics)).items()}
