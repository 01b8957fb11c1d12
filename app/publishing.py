"""Publishes the live generation to the view topic, beside the projector: who does, and what it needs. projectors/publisher.py does it."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from redis.asyncio import Redis

from app.feeds import REPLICAS, RETRY_SECONDS, TopicsMissing
from app.settings import Settings
from app.stages import FreshReader
from app.stopping import pause
from app.topics import make_topics
from projectors.apply import StoreUnavailable, reached
from projectors.clock import SystemClock
from projectors.connections import steadied
from projectors.generations import Generations
from projectors.log import end
from projectors.owed import Owed
from projectors.publisher import Publisher
from projectors.topic_ids import topic_ids
from projectors.topic_reader import Reader
from projectors.transaction import Outgoing, write_together
from projectors.view_topic import Sent, UnreadableTopic, Versions
from schema import layout
from schema.definition import Definition
from schema.generation import Generation
from schema.positions import Partition

HELD_MS = 5_000
PAUSE_SECONDS = 0.2
TRANSACTION_MS = 30_000
PARTITIONS = 6
# so many offsets hold the last record that tells of a whole partition, most likely
TAIL = 500
# a copy that reads within the hour sees every record; one that was away for half a week still sees what was deleted
COMPACTED = MappingProxyType({"cleanup.policy": "compact", "min.compaction.lag.ms": "3600000", "delete.retention.ms": "604800000"})
_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_LET_GO = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"
log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class KafkaViewTopic:
    """A ViewTopic in Kafka. producer: transactional; when it started Kafka shut out the one before."""

    producer: AIOKafkaProducer
    reader: Reader
    name: str
    topic_id: str
    partitions: int

    async def versions(self, generation: str) -> Mapping[int, int]:
        """From the end of each partition, as far back as is needed. Raises KafkaError, UnreadableTopic."""
        found: dict[int, int] = {}
        for partition, (first, end_offset) in (await self.reader.bounds()).items():
            start, tail, versions = end_offset, TAIL, Versions()
            while start > first and not versions.is_whole:
                start, tail, versions = max(first, end_offset - tail), tail * 10, Versions()
                async for record in self.reader.records(partition, start, end_offset):
                    versions.add(record)
            found |= versions.found.get(generation, {})
        return found

    async def write(self, records: Sequence[Sent]) -> None:
        """Raises KafkaError."""
        await write_together(self.producer, (Outgoing(Partition(self.name, r.partition), r.key, r.value, r.headers) for r in records))


@dataclass(slots=True)
class Publishing:
    """One of the processes that may publish. That only one does spares work: that it is exact rests on Redis and Kafka alone."""

    settings: Settings
    definition: Definition
    redis: Redis
    _me: str = field(default_factory=lambda: secrets.token_hex(8), init=False)

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop. What is away is waited for, and what is refused is tried again: the projector goes on meanwhile."""
        while not stop.is_set():
            try:
                await self._turn(stop)
            except StoreUnavailable as away:
                log.warning("redis_away", error=str(away))
            except (KafkaError, TopicsMissing, UnreadableTopic) as refused:
                log.warning("view_not_published", topic=self.settings.view_topic, error=repr(refused))
            await pause(stop, RETRY_SECONDS)

    async def _turn(self, stop: asyncio.Event) -> None:
        """While this process is the one, and the generation the live one."""
        record = await self._live()
        if record is None or not await self._hold():
            return
        try:
            async with self._open_topic() as topic:
                for other in await Generations(self.redis, self.definition).all():
                    if other.name != record.name:
                        await Owed(self.redis, self.definition, other).end()
                log.info("view_published", generation=record.name, topic=topic.name, partitions=topic.partitions)
                publisher = Publisher(record, Owed(self.redis, self.definition, record), topic, SystemClock())
                await self._publish(publisher, record, stop)
        finally:
            with contextlib.suppress(StoreUnavailable):
                await reached(self.redis.eval(_LET_GO, 1, layout.publisher_key(self.definition.name), self._me))

    async def _publish(self, publisher: Publisher, record: Generation, stop: asyncio.Event) -> None:
        while not stop.is_set():
            seconds = PAUSE_SECONDS
            try:
                if not await self._hold() or await self._live() != record:
                    return
                if await publisher.round():
                    continue
            except StoreUnavailable as away:
                # it remembers what it has published, and Redis may come back without some of it
                log.warning("redis_away", error=str(away))
                seconds = RETRY_SECONDS
            await pause(stop, seconds)

    async def _live(self) -> Generation | None:
        """The live generation, if it is of this definition."""
        generations = Generations(self.redis, self.definition)
        name = await generations.live()
        record = await generations.read(name) if name else None
        return record if record is not None and record.definition == self.definition.fingerprint and not record.copied else None

    async def _hold(self) -> bool:
        """Be the one that publishes, for some seconds more."""
        key = layout.publisher_key(self.definition.name)
        return bool(await reached(self.redis.eval(_HOLD, 1, key, self._me, str(HELD_MS))))

    @asynccontextmanager
    async def _open_topic(self) -> AsyncIterator[KafkaViewTopic]:
        """Made where it is missing. Raises KafkaError, TopicsMissing."""
        name, bootstrap = self.settings.view_topic, self.settings.kafka_bootstrap
        await self._make(name)
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, transactional_id=name, transaction_timeout_ms=TRANSACTION_MS, compression_type="lz4"
        )
        steadied(producer.client)
        try:
            await producer.start()
            partitions = await producer.partitions_for(name)
            ids = await topic_ids(producer.client, [name])
            yield KafkaViewTopic(producer, FreshReader(self.settings, name), name, ids.get(name, ""), len(partitions))
        finally:
            await end(producer.stop())

    async def _make(self, name: str) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka_bootstrap)
        await admin.start()
        try:
            counts = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
            if name not in counts:
                partitions = max((counts.get(topic, 0) for topic in self.definition.topics), default=0) or PARTITIONS
                for refused in await make_topics(admin, {name: partitions}, REPLICAS, COMPACTED):
                    raise TopicsMissing(refused)
        finally:
            await admin.close()
