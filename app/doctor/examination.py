"""The whole examination: every server at the same time, then the view, which needs two of them. Prints nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient

from app.clients import open_redis
from app.doctor import gateway, kafka, postgres, redis, view
from app.doctor.checks import LONGEST_SECONDS, Checks, Result, address, joined
from app.settings import Settings
from app.topics import dead_letters
from projectors.exchange import masters_of
from schema.definition import Definition

# of all servers, and of the view after them
SERVERS_SECONDS, VIEW_SECONDS = 8.0, 3.0
# for a Kafka that hangs to be told goodbye
CLOSE_SECONDS = 2.0
# what they ask differs, what they say of themselves does not
ORDER: tuple[Checks[Any], ...] = (gateway.SETTINGS, redis.VIEW, redis.CACHE, view.VIEW, postgres.POSTGRES, kafka.KAFKA, gateway.GATEWAY)


async def examine(settings: Settings, definition: Definition) -> list[Result]:
    """Every check of everything that the settings name, in the order in which they are told. Ends within 15 s, whatever hangs."""
    ends_at = asyncio.get_running_loop().time() + SERVERS_SECONDS
    here = gateway.Asked(settings, definition)
    async with _redis(settings, definition) as asked_redis, _kafka(settings, definition) as asked_kafka:
        found_here, found_redis, found_cache, found_postgres, found_kafka, found_gateway = await asyncio.gather(
            gateway.SETTINGS.run(here, LONGEST_SECONDS, ends_at),
            _masters(redis.VIEW, asked_redis, settings, ends_at),
            _cache(settings, definition, ends_at),
            _postgres(settings, definition, ends_at),
            kafka.KAFKA.run(asked_kafka, LONGEST_SECONDS, ends_at, settings.kafka_bootstrap),
            gateway.GATEWAY.run(here, LONGEST_SECONDS, ends_at),
        )
        found_view = await _view(settings, definition, asked_redis, asked_kafka, away=_away(found_redis))
    return [*found_here, *found_redis, *found_cache, *found_view, *found_postgres, *found_kafka, *found_gateway]


async def _view(
    settings: Settings, definition: Definition, asked_redis: redis.Asked, asked_kafka: kafka.Asked, *, away: bool
) -> list[Result]:
    if away:
        return view.VIEW.skipped()
    asked = view.Asked(asked_redis.redis, definition, settings.mode, asked_kafka)
    ends_at = asyncio.get_running_loop().time() + VIEW_SECONDS
    return await view.VIEW.run(asked, settings.redis_timeout_seconds, ends_at)


async def _cache(settings: Settings, definition: Definition, ends_at: float) -> list[Result]:
    """None where cache-aside has no Redis of its own."""
    if settings.cache_redis_url in {None, settings.redis_url}:
        return []
    async with _redis(settings.model_copy(update={"redis_url": settings.cache_redis_url}), definition) as asked:
        return await _masters(redis.CACHE, asked, settings, ends_at)


async def _masters(checks: Checks[redis.Asked], asked: redis.Asked, settings: Settings, ends_at: float) -> list[Result]:
    """Of a Redis Cluster, each check of every master, told as one."""
    seconds = settings.redis_timeout_seconds
    try:
        servers = await masters_of(asked.redis)
    except redis.AWAY:
        # the first check says why
        servers = [asked.redis]
    if servers == [asked.redis]:
        return await checks.run(asked, seconds, ends_at, address(asked.url))
    options = [server.connection_pool.connection_kwargs for server in servers]
    where = [f"{one['host']}:{one['port']}" for one in options]
    each = [
        checks.run(redis.Asked(server, f"redis://{at}", asked.fields), seconds, ends_at, at)
        for server, at in zip(servers, where, strict=True)
    ]
    return [joined(where, results) for results in zip(*await asyncio.gather(*each), strict=True)]


async def _postgres(settings: Settings, definition: Definition, ends_at: float) -> list[Result]:
    asked = postgres.Asked(settings.postgres_url, min(settings.postgres_timeout_seconds, LONGEST_SECONDS), definition)
    try:
        return await postgres.POSTGRES.run(asked, settings.postgres_timeout_seconds, ends_at, address(asked.url))
    finally:
        if asked.connection is not None:
            asked.connection.terminate()


@asynccontextmanager
async def _redis(settings: Settings, definition: Definition) -> AsyncIterator[redis.Asked]:
    client = open_redis(settings, settings.redis_url)
    try:
        yield redis.Asked(client, settings.redis_url, len(definition.fields))
    finally:
        await client.aclose()


@asynccontextmanager
async def _kafka(settings: Settings, definition: Definition) -> AsyncIterator[kafka.Asked]:
    where = {"bootstrap_servers": settings.kafka_bootstrap, "request_timeout_ms": int(LONGEST_SECONDS * 1000)}
    admin, consumer = AIOKafkaAdminClient(**where), AIOKafkaConsumer(**where, enable_auto_commit=False, auto_offset_reset="none")
    try:
        yield kafka.Asked(
            admin, consumer, settings.kafka_bootstrap, settings.consumer_group, definition, dead_letters(settings, definition)
        )
    finally:
        closing = {asyncio.ensure_future(admin.close()), asyncio.ensure_future(consumer.stop())}
        _, late = await asyncio.wait(closing, timeout=CLOSE_SECONDS)
        for task in late:
            task.cancel()


def _away(found: list[Result]) -> bool:
    return found[0].verdict == "wrong"
