"""An empty Redis, and worlds on it."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from demo.servers.server import Server
from tests.faults.arranged import World


@pytest.fixture
async def redis(redis_at: Server) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_at.address)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def world(redis: Redis) -> World:
    """Four shards, two partitions a topic, generation g1 live and empty."""
    opened = World(redis)
    await opened.open()
    return opened
