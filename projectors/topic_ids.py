"""Kafka's own id of a topic, by which one that was deleted and made anew is told from the old one.

aiokafka 0.14 asks for metadata up to version 5, which has no ids; this is version 12 of the same request (KIP-516).
"""

import uuid
from collections.abc import Iterable, Mapping
from io import BytesIO

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import AbstractType, Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields


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


async def topic_ids(client: AIOKafkaClient, topics: Iterable[str]) -> Mapping[str, str]:
    """The id of each topic that exists; "" for all of them where the broker (before Kafka 2.8, or a mock) tells none."""
    wanted = list(topics)
    try:
        answer = await client.send(client.get_random_node(), _TopicIds(wanted))
    except (IncompatibleBrokerVersion, NotImplementedError):
        return dict.fromkeys(wanted, "")
    return {topic: topic_id for error, topic, topic_id, *_ in answer.topics if not error}
