"""The road of a message: opens what a projector needs, runs it, and opens it anew when Kafka was away or Redis has come back empty."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, KafkaTimeoutError, KafkaUnavailableError
from redis.asyncio import Redis

from app.clients import open_redis
from app.settings import Settings
from app.telemetry import ProjectorMetrics
from app.topics import dead_letters, make_topics
from projectors.apply import RedisStore, StoreUnavailable, check_eviction
from projectors.clock import SystemClock
from projectors.dead_letters import DeadLetterTopic
from projectors.generations import Generations, RedisBuild, ShardLost
from projectors.log import KafkaLog, end
from projectors.projector import Projector
from schema import layout
from schema.definition import Definition
from schema.generation import Generation

RETRY_SECONDS = 1.0
END_SECONDS = 10.0
# of the dead-letter topic, where there are as many brokers
REPLICAS = 3
log = structlog.stdlib.get_logger()


class TopicsMissing(Exception):
    """Kafka has no such topics; the message names them."""


async def work(settings: Settings, definition: Definition, metrics: ProjectorMetrics, stop: asyncio.Event) -> None:
    """Keep the view until `stop` is set. Raises what only a person can mend, with its sentence."""
    redis = open_redis(settings, settings.redis_url)
    try:
        while not stop.is_set():
            try:
                await _within(stop, _run(settings, definition, metrics, redis, stop))
            except StoreUnavailable as away:
                log.warning("redis_away", error=str(away))
                await _pause(stop)
            except KafkaError as away:
                if not (away.retriable or isinstance(away, KafkaTimeoutError | KafkaUnavailableError)):
                    raise
                log.warning("kafka_away", at=settings.kafka_bootstrap, error=repr(away))
                await _pause(stop)
            except ShardLost as lost:
                if await _is_left(redis, definition):
                    raise
                log.warning("redis_empty", error=str(lost))
    finally:
        await redis.aclose()


async def _within(stop: asyncio.Event, running: Coroutine[Any, Any, None]) -> None:
    """Await it; once told to stop, only so much longer: a server that hangs holds nobody up, and whatever was cut off is read again."""
    task, told = asyncio.ensure_future(running), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
        _, late = await asyncio.wait({task}, timeout=END_SECONDS if stop.is_set() else None)
        if late:
            log.warning("projector_cut_off", seconds=END_SECONDS)
    finally:
        told.cancel()
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _run(settings: Settings, definition: Definition, metrics: ProjectorMetrics, redis: Redis, stop: asyncio.Event) -> None:
    await check_eviction(redis)
    async with _log(settings, definition) as log_, _dead_letters(settings, definition) as dead_letters:
        record = await _record(Generations(redis, definition), log_, definition)
        keys = layout.Layout(definition.name, record.name, record.shards)
        store = RedisStore(redis, keys, record.codes[definition.columns[0].name])
        build = RedisBuild(Generations(redis, definition), store, record)
        log.info("projector_started", generation=record.name, state=record.state, topics=sorted(definition.topics))
        projector = Projector(definition, build, log_, store, dead_letters, metrics, SystemClock(), settings.checkpoint_seconds)
        await projector.run(stop)
        log.info("projector_stopped")


async def _record(generations: Generations, log_: KafkaLog, definition: Definition) -> Generation:
    """The generation to write; the first is opened when Redis holds none."""
    record = await generations.current()
    if record is None:
        partitions = await log_.partitions(definition.topics)
        missing = set(definition.topics) - {partition.topic for partition in partitions}
        if missing:
            raise TopicsMissing(f"Kafka has no topic {', '.join(sorted(missing))}: create it, or set VIEWGATE_TOPIC_PREFIX.")
        record = await generations.open_first(await log_.bounds(partitions), await log_.ids(definition.topics))
    return record


async def _is_left(redis: Redis, definition: Definition) -> bool:
    """Whether anything is left of the view: if nothing is, all of it can be built again from Kafka's beginning."""
    return await Generations(redis, definition).current() is not None


async def _pause(stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), RETRY_SECONDS)


@asynccontextmanager
async def _log(settings: Settings, definition: Definition) -> AsyncIterator[KafkaLog]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=settings.consumer_group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
    )
    log_ = KafkaLog(consumer)
    try:
        await log_.start(definition.topics)
        yield log_
    finally:
        await log_.stop()


@asynccontextmanager
async def _dead_letters(settings: Settings, definition: Definition) -> AsyncIterator[DeadLetterTopic]:
    topic = dead_letters(settings, definition)
    await _create(settings.kafka_bootstrap, topic)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, enable_idempotence=True)
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
