"""One Kafka Connect for all tests of change data capture, on the servers that the others use."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from demo.servers import connect
from demo.servers.account import scratch
from demo.servers.connect import Connect
from demo.servers.server import MissingError, Server
from tests.cdc.captured import Captured, open_captured
from tests.demos import CACHE


@pytest.fixture(scope="session")
async def connect_at(apache_kafka_at: Server) -> AsyncIterator[Connect]:
    """Distributed, exactly once. Skipped on a laptop without Java and Maven, failed under CI=true."""
    async with AsyncExitStack() as opened:
        folder = opened.enter_context(scratch())
        try:
            worker = await opened.enter_async_context(connect.start(apache_kafka_at.address, folder, CACHE, say=print))
        except MissingError as missing:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(missing))
        yield worker


@pytest.fixture
async def road(
    connect_at: Connect, apache_kafka_at: Server, redis_at: Server, postgres_at: Server, tmp_path: Path
) -> AsyncIterator[Captured]:
    """The users' tables, empty, captured by nobody yet."""
    async with open_captured(connect_at, apache_kafka_at, redis_at, postgres_at, tmp_path) as opened:
        yield opened
