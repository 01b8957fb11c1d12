"""Checks of Kafka and of the definition's topics. Makes no topic: whatever it asks for, it asks of topics that are there."""

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError, RequestTimedOutError, for_code
from aiokafka.protocol.admin import ApiVersionRequest

from app.doctor.checks import CLOCK_MEND, CLOCK_WARNING_SECONDS, Checks, Finding, NothingThere, listed
from projectors.topic_ids import topic_ids
from schema.definition import Definition
from schema.positions import Partition

AWAY: tuple[type[Exception], ...] = (KafkaConnectionError, NodeNotReadyError, RequestTimedOutError, OSError)
REFUSALS: tuple[type[Exception], ...] = (KafkaError, NotImplementedError, ValueError)
# the API key of Metadata
METADATA = 3
OFFSETS = "__consumer_offsets"
NO_ID = {"", str(uuid.UUID(int=0))}
NEWEST_SECONDS = 1.0
# a transaction's end takes an offset too, and holds no record
LAST_RECORDS = 3


@dataclass(slots=True)
class Asked:
    """A Kafka under examination. dead_letters: their topic. What comes with its answers: topics, by name, as Metadata has them;
    bounds: the first and the end offset of each partition that holds the view's changes; ids: of the topics, "" where none is told.
    """

    admin: AIOKafkaAdminClient
    consumer: AIOKafkaConsumer
    bootstrap: str
    group: str
    definition: Definition
    dead_letters: str
    brokers: int = 0
    topics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bounds: Mapping[Partition, tuple[int, int]] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)

    @property
    def present(self) -> list[str]:
        """The definition's topics that are there. Raises NothingThere."""
        present = [topic for topic in self.definition.topics if topic in self.topics]
        if not present:
            raise NothingThere("there is no topic")
        return present

    @property
    def described(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Each partition of them, "topic:number", as Metadata has it. Raises NothingThere."""
        return [(f"{topic}:{found['partition']}", found) for topic in self.present for found in self.topics[topic]["partitions"]]

    def partitions(self, *topics: str) -> list[Partition]:
        return [Partition(topic, found["partition"]) for topic in topics for found in self.topics[topic]["partitions"]]


KAFKA: Checks[Asked] = Checks("Kafka", AWAY, REFUSALS)


@KAFKA.check(
    "answers",
    "the brokers, by Metadata",
    wrong="none answers",
    mend="Start it, or correct `VIEWGATE_KAFKA_BOOTSTRAP`: host:port of a broker, as reached from here.",
)
async def _answers(asked: Asked) -> Finding:
    try:
        await asked.admin.start()
        await asked.consumer.start()
    except KafkaConnectionError:
        return Finding("wrong", f"{asked.bootstrap}: no broker answers")
    cluster = await asked.admin.describe_cluster()
    asked.brokers = len(cluster["brokers"])
    # all of them: asked for by name, one that is missing might be made
    asked.topics = {topic["topic"]: topic for topic in await asked.admin.describe_topics()}
    return Finding("ok", f"{asked.bootstrap}, {asked.brokers} {'broker' if asked.brokers == 1 else 'brokers'}")


@KAFKA.check("version", "what the brokers speak, by ApiVersions: their release is not told")
async def _version(asked: Asked) -> Finding:
    client = asked.admin._client  # aiokafka shows no other way to its connections
    answer = await client.send(client.get_random_node(), ApiVersionRequest())
    newest = max((last for api, _, last in answer.api_versions if api == METADATA), default=0)
    return Finding("ok", f"Metadata up to version {newest}; the release cannot be told")


@KAFKA.check(
    "topics",
    "each topic of the view definition",
    wrong="one is missing",
    mend="`kafka-topics.sh --create --topic … --partitions 6`, or set `VIEWGATE_TOPIC_PREFIX`.",
)
async def _topics(asked: Asked) -> Finding:
    missing = [topic for topic in asked.definition.topics if topic not in asked.topics]
    if not missing:
        return Finding("ok", listed(asked.present))
    tool = _tool(asked, "kafka-topics.sh")
    make = ", ".join(f"`{tool} --create --topic {topic} --partitions 6`" for topic in missing)
    return Finding("wrong", f"there is no {listed(missing)}", f"{make}, or set `VIEWGATE_TOPIC_PREFIX`.")


@KAFKA.check(
    "partitions",
    "how many partitions each topic has, and whether each has a leader",
    warning="a topic has one: no second projector has work in it",
    wrong="a partition has no leader: it is not read",
    mend="Make the topic with more partitions before anything is in it: later, keys would move, and the view must be built anew.",
)
async def _partitions(asked: Asked) -> Finding:
    counts = {topic: len(asked.topics[topic]["partitions"]) for topic in asked.present}
    headless = [name for name, partition in asked.described if partition["leader"] < 0]
    if headless:
        return Finding("wrong", f"without a leader: {listed(headless)}", "Start the brokers that hold them.")
    return Finding("warning" if 1 in counts.values() else "ok", _each(counts))


@KAFKA.check(
    "replication",
    "how many replicas each topic has, how many are in sync, and `min.insync.replicas`",
    warning="there is one replica though there are more brokers, or one is not in sync, or a write needs all of them, or needs only one",
    wrong="a write needs more replicas than there are",
    mend="Have 3 replicas (`kafka-reassign-partitions.sh`) and `min.insync.replicas=2`.",
)
async def _replication(asked: Asked) -> Finding:
    if asked.brokers == 1:
        return Finding("ok", "one broker, so one replica")
    least = {topic: int(config.get("min.insync.replicas", 1)) for topic, config in (await _configs(asked)).items()}
    replicas = {topic: min(len(found["replicas"]) for found in asked.topics[topic]["partitions"]) for topic in asked.present}
    behind = [name for name, partition in asked.described if len(partition["isr"]) < len(partition["replicas"])]
    told = f"replicas: {_each(replicas)}; min.insync.replicas: {_each(least)}"
    if any(least[topic] > replicas[topic] for topic in asked.present):
        return Finding("wrong", told)
    if behind:
        return Finding("warning", f"not in sync: {listed(behind)}", "Start the brokers that are away, or wait until they have caught up.")
    fragile = [topic for topic in asked.present if replicas[topic] == 1 or least[topic] in {1, replicas[topic]}]
    return Finding("warning" if fragile else "ok", told)


@KAFKA.check(
    "cleanup",
    "`cleanup.policy` of each topic",
    wrong="it has `compact`: changes that the counts need would go, and none can be told from a repeat",
    mend="`kafka-configs.sh --alter --entity-type topics --entity-name … --add-config cleanup.policy=delete`, then fill the topic again.",
)
async def _cleanup(asked: Asked) -> Finding:
    policies = {topic: config.get("cleanup.policy", "delete") for topic, config in (await _configs(asked)).items()}
    compacted = [topic for topic, policy in policies.items() if "compact" in policy]
    if not compacted:
        return Finding("ok", "delete")
    mend = f"{_alter(asked, compacted, 'cleanup.policy=delete')}, then fill the topic again from the source."
    return Finding("wrong", f"compacted: {listed(compacted)}: changes that the counts need are thrown away", mend)


@KAFKA.check(
    "retention",
    "`retention.ms` and `retention.bytes` of each topic",
    warning="it has an end: a view cannot be built from the beginning later, and a projector may be away no longer than that",
    mend="`kafka-configs.sh --alter --entity-type topics --entity-name … --add-config retention.ms=-1,retention.bytes=-1`.",
)
async def _retention(asked: Asked) -> Finding:
    kept = {topic: _kept(config) for topic, config in (await _configs(asked)).items()}
    ending = [topic for topic, how in kept.items() if how]
    if not ending:
        return Finding("ok", "for ever")
    told = "; ".join(f"{topic} keeps {kept[topic]}" for topic in ending)
    found = f"{told}: no projector may be away for longer, and no view can be built from the beginning later"
    return Finding("warning", found, f"{_alter(asked, ending, 'retention.ms=-1,retention.bytes=-1')}.")


@KAFKA.check("timestamps", "`message.timestamp.type` of each topic; either will do: the source's time is in the change")
async def _timestamps(asked: Asked) -> Finding:
    types = {topic: config.get("message.timestamp.type", "CreateTime") for topic, config in (await _configs(asked)).items()}
    return Finding("ok", _each(types))


@KAFKA.check(
    "topic ids",
    "whether the brokers tell ids of topics",
    warning="they do not: a topic that was deleted and made anew is only noticed when its log is shorter",
    mend="Use Apache Kafka 2.8 or newer where topics may be made anew.",
)
async def _ids(asked: Asked) -> Finding:
    asked.ids = await topic_ids(asked.admin._client, asked.present)  # aiokafka shows no other way to its connections
    nameless = [topic for topic, topic_id in asked.ids.items() if topic_id in NO_ID]
    return Finding("warning", f"none for {listed(nameless)}") if nameless else Finding("ok", "told")


@KAFKA.check("records", "how many offsets each topic holds")
async def _records(asked: Asked) -> Finding:
    asked.bounds = await _bounds(asked, *asked.present)
    held = {topic: sum(end - first for (name, _), (first, end) in asked.bounds.items() if name == topic) for topic in asked.present}
    return Finding("ok", _each(held))


@KAFKA.check(
    "dead letters",
    "the dead-letter topic",
    warning="it holds records: they were no change of their table, and are not in the view",
    mend="`viewgate dead-letters count` says why; docs/dead-letters.md what to do.",
)
async def _dead_letters(asked: Asked) -> Finding:
    if asked.dead_letters not in asked.topics:
        return Finding("ok", f"no topic {asked.dead_letters} yet; a projector makes it")
    held = sum(end - first for first, end in (await _bounds(asked, asked.dead_letters)).values())
    return Finding("warning" if held else "ok", f"{held:,} in {asked.dead_letters}")


@KAFKA.check("lag", "what the consumer group has committed, against the end; a hint, the watermarks in Redis decide")
async def _lag(asked: Asked) -> Finding:
    at = [TopicPartition(*partition) for partition in asked.partitions(*asked.present)]
    # asking for a group would make this topic
    if OFFSETS not in asked.topics:
        return Finding("ok", "no group has committed anything, as far as Kafka tells")
    offsets = await asked.admin.list_consumer_group_offsets(asked.group, partitions=at)
    committed = {Partition(*key): value.offset for key, value in offsets.items() if value.offset >= 0}
    if not committed:
        return Finding("ok", f"nothing committed yet by group {asked.group}")
    behind = sum(max(0, end - committed.get(partition, first)) for partition, (first, end) in asked.bounds.items())
    return Finding("ok", f"{behind:,} offsets behind, by group {asked.group}")


@KAFKA.check("clock", "the time of the newest record, against ours", warning="it is more than 1 s ahead", mend=CLOCK_MEND)
async def _clock(asked: Asked) -> Finding:
    newest_ms = await _newest_ms(asked)
    if newest_ms is None:
        return Finding("ok", "no record to compare with")
    ahead = newest_ms / 1000 - time.time()
    found = f"the newest record is {abs(ahead):,.1f} s {'ahead of' if ahead > 0 else 'behind'} our clock"
    return Finding("warning" if ahead > CLOCK_WARNING_SECONDS else "ok", found)


async def _bounds(asked: Asked, *topics: str) -> dict[Partition, tuple[int, int]]:
    at = [TopicPartition(*partition) for partition in asked.partitions(*topics)]
    first, end = await asyncio.gather(asked.consumer.beginning_offsets(at), asked.consumer.end_offsets(at))
    return {Partition(*p): (first[p], end[p]) for p in at}


async def _newest_ms(asked: Asked) -> int | None:
    """Of the last records of each partition, as far as they come at once."""
    last = {TopicPartition(*p): max(first, end - LAST_RECORDS) for p, (first, end) in asked.bounds.items() if end > first}
    if not last:
        return None
    asked.consumer.assign(list(last))
    for at, offset in last.items():
        asked.consumer.seek(at, offset)
    newest: dict[TopicPartition, int] = {}
    ends_at = time.monotonic() + NEWEST_SECONDS
    while len(newest) < len(last) and time.monotonic() < ends_at:
        fetched = await asked.consumer.getmany(timeout_ms=100)
        newest |= {at: max(record.timestamp for record in records) for at, records in fetched.items()}
    return max(newest.values(), default=None)


async def _configs(asked: Asked) -> dict[str, Mapping[str, str]]:
    """Of each topic that is there. Raises KafkaError where a broker does not tell."""
    answers = await asked.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic) for topic in asked.present])
    found: dict[str, Mapping[str, str]] = {}
    for code, message, _, name, entries in (resource for answer in answers for resource in answer.resources):
        if code:
            raise for_code(code)(f"{name}: {message}")
        found[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return found


def _kept(config: Mapping[str, str]) -> str:
    """For how long a topic keeps its records, in words; "" where that is for ever."""
    kept = []
    if (milliseconds := int(config.get("retention.ms", -1))) >= 0:
        kept.append(f"{milliseconds / 3_600_000:,.1f} hours")
    if (size := int(config.get("retention.bytes", -1))) >= 0:
        kept.append(f"{size:,} bytes a partition")
    return " and ".join(kept)


def _each(values: Mapping[str, object]) -> str:
    """One value where it is the same for all, else each with its topic."""
    different = set(values.values())
    if len(different) == 1:
        return f"{different.pop()} each" if len(values) > 1 else f"{different.pop()}"
    return ", ".join(f"{topic} {value}" for topic, value in values.items())


def _alter(asked: Asked, topics: list[str], config: str) -> str:
    tool = f"{_tool(asked, 'kafka-configs.sh')} --alter --entity-type topics"
    return ", ".join(f"`{tool} --entity-name {topic} --add-config {config}`" for topic in topics)


def _tool(asked: Asked, name: str) -> str:
    return f"{name} --bootstrap-server {asked.bootstrap}"
