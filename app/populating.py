"""Keeps a second Redis from the view topic: opens what projectors/populate.py needs, and sweeps what it leaves behind."""

import asyncio

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from redis.asyncio import Redis

from app.clients import open_redis
from app.feeds import RETRY_SECONDS, is_away, open_log
from app.settings import Settings
from app.stopping import pause
from app.topics import tombstones_kept_ms
from projectors.apply import StoreUnavailable, check_eviction
from projectors.clock import SystemClock
from projectors.log import RetentionPassed
from projectors.populate import Populate
from projectors.sweeping import sweep_strays
from schema.definition import Definition

log = structlog.stdlib.get_logger()


async def populate_view(settings: Settings, definition: Definition, stop: asyncio.Event) -> None:
    """Until told to stop; what is away is waited for. Raises what only a person can mend, with its sentence."""
    redis = open_redis(settings, settings.redis_url)
    try:
        while not stop.is_set():
            try:
                await _populate(settings, definition, redis, stop)
            except StoreUnavailable as away:
                log.warning("redis_away", error=str(away))
            except KafkaError as away:
                if not is_away(away):
                    raise
                log.warning("kafka_away", at=settings.kafka_bootstrap, error=repr(away))
            except RetentionPassed as passed:
                # the topic was made anew: it is read from its beginning
                log.warning("view_topic_cut", topic=settings.view_topic, error=str(passed))
            await pause(stop, RETRY_SECONDS)
    finally:
        await redis.aclose()


async def _populate(settings: Settings, definition: Definition, redis: Redis, stop: asyncio.Event) -> None:
    await check_eviction(redis)
    async with open_log(settings, None) as log_:
        partitions = await log_.start_alone([settings.view_topic])
        if not partitions:
            log.warning("view_topic_missing", topic=settings.view_topic, hint="`viewgate project` with VIEWGATE_VIEW_TOPIC makes it")
            return
        populate = Populate(redis, definition, log_, partitions, SystemClock(), await _window_ms(settings))
        sweeping = asyncio.ensure_future(_sweep(redis, definition, populate.strays))
        try:
            await populate.run(stop)
        finally:
            sweeping.cancel()
            await asyncio.wait([sweeping])


async def _window_ms(settings: Settings) -> int:
    """Clocks differ: half as long as Kafka keeps a tombstone."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        return await tombstones_kept_ms(admin, settings.view_topic) // 2
    finally:
        await admin.close()


async def _sweep(redis: Redis, definition: Definition, strays: asyncio.Event) -> None:
    """Each time that something may be left behind."""
    while True:
        await strays.wait()
        strays.clear()
        try:
            swept = await sweep_strays(redis, definition.name)
            log.info("strays_swept", keys=swept)
        except StoreUnavailable as away:
            log.warning("redis_away", error=str(away))
            strays.set()
            await asyncio.sleep(1.0)
