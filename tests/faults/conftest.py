"""An empty Redis, and worlds on it."""

import pytest
from redis.asyncio import Redis

from tests.faults.arranged import World


@pytest.fixture
async def world(redis: Redis) -> World:
    """Four shards, two partitions a topic, generation g1 live and empty."""
    opened = World(redis)
    await opened.open()
    return opened
