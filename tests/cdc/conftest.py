"""One road for a test of change data capture, on the servers that the others use."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from demo.servers.connect import Connect
from demo.servers.server import Server
from tests.cdc.captured import Captured, open_captured


@pytest.fixture
async def road(
    connect_at: Connect, apache_kafka_at: Server, redis_at: Server, postgres_at: Server, tmp_path: Path
) -> AsyncIterator[Captured]:
    """The users' tables, empty, captured by nobody yet."""
    async with open_captured(connect_at, apache_kafka_at, redis_at, postgres_at, tmp_path) as opened:
        yield opened
