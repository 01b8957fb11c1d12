"""Opens the clients of Redis and PostgreSQL. None of them connects before it is used, so that the gateway starts without its servers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.cluster.client import ClusterClient
from app.cluster.nodes import Nodes
from app.cluster.url import names_cluster, parse_cluster_url
from app.pool import Pool
from app.settings import Settings
from app.shared_connection import SharedConnection
from loaders.sending import Begin, Send, by_pipeline


@dataclass(frozen=True, slots=True)
class Clients:
    """redis: the view's. cache: that of the modes with a cache, the same one unless a setting says otherwise. Both answer bytes.

    send, begin: the ways by which the view is read, and the cache likewise (loaders/sending.py). begin: None in a Redis Cluster.
    """

    redis: Redis
    cache: Redis
    postgres: asyncpg.Pool
    send: Send
    begin: Begin | None
    cache_send: Send
    cache_begin: Begin | None


@asynccontextmanager
async def open_clients(settings: Settings) -> AsyncIterator[Clients]:
    """Clients that are closed at the end."""
    redis = open_redis(settings, settings.redis_url)
    cache = open_redis(settings, settings.cache_redis_url) if settings.cache_redis_url else redis
    postgres = open_postgres(settings)
    try:
        ways = _ways(redis, settings)
        # with no connection to open, this only readies the pool
        yield Clients(redis, cache, await postgres, *ways, *(ways if cache is redis else _ways(cache, settings)))
    finally:
        postgres.terminate()
        await cache.aclose()
        await redis.aclose()


def open_redis(settings: Settings, url: str) -> Redis:
    """A client that waits for a free connection.

    It does not try again: a connection that died while idle is found out before it is used, and redis-py's own ten tries would
    make an outage last seconds for each request before its fallback is asked.
    """
    seconds = settings.redis_timeout_seconds
    options: dict[str, Any] = {
        "max_connections": settings.redis_connections,
        "timeout": seconds,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
    }
    if names_cluster(url):
        seeds, given = parse_cluster_url(url)
        return ClusterClient(Nodes(seeds, options | given), seconds)
    return Redis.from_pool(Pool.from_url(url, **options))


def _ways(redis: Redis, settings: Settings) -> tuple[Send, Begin | None]:
    pool = redis.connection_pool
    if not isinstance(pool, Pool):
        return by_pipeline(redis), None
    shared = SharedConnection(pool, settings.redis_timeout_seconds)
    return shared.ask, shared.begin


def open_postgres(settings: Settings) -> asyncpg.Pool:
    """A pool that is empty until it is used; await it once first."""
    seconds = settings.postgres_timeout_seconds
    return asyncpg.create_pool(
        settings.postgres_url,
        min_size=0,
        max_size=settings.postgres_connections,
        timeout=seconds,
        command_timeout=seconds,
        reset=_clean,
    )


async def _clean(connection: asyncpg.Connection) -> None:
    """Nothing. asyncpg's own query at each return undoes what nobody here does; a transaction that was broken off is rolled back anyway."""
