"""Mode cache-invalidate kept clean from Kafka: opens what projectors/invalidate.py needs, and runs it until it is told to end."""

import asyncio

import structlog
from aiokafka.errors import KafkaError

from app.clients import open_postgres, open_redis
from app.feeds import RETRY_SECONDS, is_away, open_log
from app.settings import Settings
from app.stopping import pause
from app.telemetry import InvalidatorMetrics
from loaders.sql import AWAY
from projectors.clock import SystemClock
from projectors.invalidate import Invalidator, SinkTables
from schema.definition import Definition

log = structlog.stdlib.get_logger()


async def invalidate(settings: Settings, definition: Definition, metrics: InvalidatorMetrics, stop: asyncio.Event) -> None:
    """Until told to stop. Raises RetentionPassed, and KafkaErrors that trying again does not mend."""
    redis = open_redis(settings, settings.cache_redis_url or settings.redis_url)
    try:
        async with open_postgres(settings) as pool:
            tables = SinkTables(pool, definition, AWAY)
            while not stop.is_set():
                try:
                    async with open_log(settings, group(settings)) as log_:
                        await log_.start(definition.topics)
                        log.info("invalidator_started", topics=sorted(definition.topics))
                        await Invalidator(redis, definition, log_, tables, metrics, SystemClock()).run(stop)
                except KafkaError as away:
                    if not is_away(away):
                        raise
                    log.warning("kafka_away", at=settings.kafka_bootstrap, error=repr(away))
                    await pause(stop, RETRY_SECONDS)
    finally:
        await redis.aclose()


def group(settings: Settings) -> str:
    """Of the consumers that share the partitions."""
    return f"{settings.consumer_group}.invalidate"
