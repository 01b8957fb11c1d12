"""Opens the clients of Redis and PostgreSQL. None of them connects before it is used, so that the gateway starts without its servers."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Clients:
    """redis: the view's. cache: cache-aside's, the same one unless a setting says otherwise. Both answer bytes."""

    redis: Redis
    cache: Redis
    postgres: asyncpg.Pool


class Pool(BlockingConnectionPool):
    """met: how often a connection met another server than the one before, by its run id.

    It was restarted then, or is a replica that was promoted: what Redis had acknowledged may be lost.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(redis_connect_func=self._meet, **options)
        self.met = 0
        self._run_id: bytes | None = None

    async def _meet(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        try:
            found = re.search(rb"run_id:(\w+)", await connection.read_response(disable_decoding=True))
        except ResponseError:
            found = None
        if found is None or found[1] != self._run_id:
            self.met, self._run_id = self.met + 1, found[1] if found else None


@asynccontextmanager
async def open_clients(settings: Settings) -> AsyncIterator[Clients]:
    """Clients that are closed at the end."""
    redis = open_redis(settings, settings.redis_url)
    cache = open_redis(settings, settings.cache_redis_url) if settings.cache_redis_url else redis
    postgres = open_postgres(settings)
    try:
        # with no connection to open, this only readies the pool
        yield Clients(redis, cache, await postgres)
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
    pool = Pool.from_url(
        url,
        max_connections=settings.redis_connections,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


def open_postgres(settings: Settings) -> asyncpg.Pool:
    """A pool that is empty until it is used; await it once first."""
    seconds = settings.postgres_timeout_seconds
    return asyncpg.create_pool(
        settings.postgres_url, min_size=0, max_size=settings.postgres_connections, timeout=seconds, command_timeout=seconds
    )
