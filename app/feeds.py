"""One generation, or what was lost of it, kept from Kafka: opens what a projector needs and runs it. app/worker.py says which."""

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, KafkaTimeoutError, KafkaUnavailableError
from redis.asyncio import Redis

from app.clients import open_postgres
from app.settings import Settings
from app.stopping import pause
from app.topics import dead_letters, make_topics
from loaders.sql import AWAY
from projectors.apply import RedisStore, StoreUnavailable, check_eviction
from projectors.building import Build, Filled, LostShards, WholeBuild
from projectors.captured import CapturedRows, Told
from projectors.clock import SystemClock
from projectors.connections import steadied
from projectors.dead_letters import DeadLetterTopic
from projectors.filling import Filling
from projectors.generations import FIRST, Bounds, GenerationDropped, Generations
from projectors.log import KafkaLog, end
from projectors.observing import Observer
from projectors.projector import Projector
from projectors.rows_at import RowsSource, SinkRows
from schema.definition import Definition
from schema.generation import Generation
from schema.positions import Partition

RETRY_SECONDS = 1.0
# of the dead-letter topic, where there are as many brokers
REPLICAS = 3
log = structlog.stdlib.get_logger()


class TopicsMissing(Exception):
    """Kafka has no such topics; the message names them."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one feed keeps: all of a generation, or the shards that were lost under it."""

    generation: str
    build: str
    of: Literal["whole", "lost"] = "whole"

    def group(self, settings: Settings) -> str:
        """Of the consumers that share it. No two parts share one: each would have some of the partitions only."""
        of_generation = "" if self.generation == FIRST else f".{self.generation}"
        return settings.consumer_group + of_generation + (".lost" if self.of == "lost" else "")


@dataclass(slots=True)
class Feed:
    """Keeps one part until it is told to stop. projector: the one that runs now."""

    settings: Settings
    definition: Definition
    redis: Redis
    observer: Observer
    part: Part
    projector: Projector | None = field(default=None, init=False)

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop, or the part is finished; what is away is waited for. Raises what only a person can mend."""
        while not stop.is_set():
            try:
                await self._run(stop)
            except GenerationDropped:
                return
            except StoreUnavailable as away:
                log.warning("redis_away", error=str(away))
            except KafkaError as away:
                if not is_away(away):
                    raise
                log.warning("kafka_away", at=self.settings.kafka_bootstrap, error=repr(away))
            else:
                return
            await pause(stop, RETRY_SECONDS)

    async def _run(self, stop: asyncio.Event) -> None:
        await check_eviction(self.redis)
        generations = Generations(self.redis, self.definition)
        record = await generations.read(self.part.generation)
        if record is None:
            return
        store = RedisStore.of(self.redis, self.definition, record)
        record = await generations.opened(record, store)
        async with (
            open_log(self.settings, self.part.group(self.settings)) as log_,
            open_dead_letters(self.settings, self.definition) as letters,
        ):
            await log_.start(self.definition.topics)
            build = await self._build(generations, record, store, log_)
            log_.limit = lambda: build.record.rate if build.record.state == "building" else None
            log.info(
                "projector_started", generation=record.name, part=self.part.of, state=record.state, topics=sorted(self.definition.topics)
            )
            seconds = self.settings.checkpoint_seconds
            self.projector = Projector(self.definition, build, log_, store, letters, self.observer, SystemClock(), seconds)
            await self.projector.run(stop)
            log.info("projector_stopped", generation=record.name, part=self.part.of)

    async def _build(self, generations: Generations, record: Generation, store: RedisStore, log_: KafkaLog) -> Build:
        if self.part.of == "whole":
            return WholeBuild(generations, store, record)
        bounds = await log_.bounds(await log_.partitions(self.definition.topics))
        ends = {str(partition): end for partition, (_, end) in bounds.items()}
        fill = self._fill if record.origin == "sql" else None
        return LostShards(generations, store, record, ends, fill)

    async def _fill(self, record: Generation, shards: Sequence[int]) -> Filled:
        """Raises what a projector is stopped by where SQL has not what is needed; PostgreSQL being away is waited for."""
        async with open_postgres(self.settings) as pool:
            source = rows_source(self.settings, self.definition, pool, record.slot, _waits)
            try:
                return await Filling(self.redis, self.definition, lambda _: None).lost(record, shards, source)
            except AWAY as away:
                raise StoreUnavailable(f"PostgreSQL cannot be reached: {away}") from away


def rows_source(settings: Settings, definition: Definition, pool: asyncpg.Pool, slot: str, told: Told) -> RowsSource:
    """slot: of the connector that captures the tables, "" where a sink writes them. told: what is waited for."""
    return CapturedRows(pool, definition, slot, partial(_ends, settings, definition), told) if slot else SinkRows(pool, definition)


def _waits(what: str, seconds: float) -> None:
    log.info("filling_waits", told=what, seconds=round(seconds))


async def _ends(settings: Settings, definition: Definition) -> Mapping[Partition, int]:
    async with open_log(settings, None) as log_:
        await log_.start(definition.topics)
        return {partition: end for partition, (_, end) in (await sources(log_, definition))[0].items()}


def is_away(error: KafkaError) -> bool:
    """Whether trying again may mend it."""
    return bool(error.retriable or isinstance(error, KafkaTimeoutError | KafkaUnavailableError))


def collect_less() -> None:
    """Of hundreds of thousands of records that are fetched at once none is garbage: looking for it among them would take half the time."""
    gc.set_threshold(100_000, 20, 100)


async def sources(log_: KafkaLog, definition: Definition) -> tuple[Bounds, Mapping[str, str]]:
    """First and end offset of every partition, and the topics' ids. Raises TopicsMissing."""
    partitions: Sequence[Partition] = await log_.partitions(definition.topics)
    missing = set(definition.topics) - {partition.topic for partition in partitions}
    if missing:
        raise TopicsMissing(f"Kafka has no topic {', '.join(sorted(missing))}: create it, or set VIEWGATE_TOPIC_PREFIX.")
    return await log_.bounds(partitions), await log_.ids(definition.topics)


def open_consumer(settings: Settings, group: str | None) -> AIOKafkaConsumer:
    """Not started yet. It commits and resets nothing by itself."""
    return AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        # as-of is as old as the question that was answered last
        fetch_max_wait_ms=100,
    )


@asynccontextmanager
async def open_log(settings: Settings, group: str | None) -> AsyncIterator[KafkaLog]:
    """A log that is not started yet; stopped at the end."""
    log_ = KafkaLog(open_consumer(settings, group))
    try:
        yield log_
    finally:
        await log_.stop()


@asynccontextmanager
async def open_dead_letters(settings: Settings, definition: Definition) -> AsyncIterator[DeadLetterTopic]:
    topic = dead_letters(settings, definition)
    await _create(settings.kafka_bootstrap, topic)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, enable_idempotence=True)
    steadied(producer.client)
    await producer.start()
    try:
        yield DeadLetterTopic(producer, topic)
    finally:
        await end(producer.stop())


async def _create(bootstrap: str, topic: str) -> None:
    """Make the topic if it is not there. A broker that makes topics on first use, or forbids us to, is left to it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        for refused in await make_topics(admin, {topic: 1}, REPLICAS):
            log.warning("dead_letter_topic_not_created", topic=topic, error=refused)
    except (KafkaError, ValueError) as error:
        log.warning("dead_letter_topic_not_created", topic=topic, error=repr(error))
    finally:
        await admin.close()
