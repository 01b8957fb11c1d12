"""Redis, PostgreSQL and gateways over them, for the tests of the read path."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from app.server import application, gateway
from app.settings import Settings
from app.telemetry import GatewayMetrics
from demo.servers import postgres
from demo.servers import redis as redis_server
from demo.servers.process import ServerError
from demo.servers.server import Server
from schema.loader import Loader
from tests.request.arranged import DEFINITION, USERS, View, write_tables

CACHE = Path(__file__).parents[2] / ".cache"

Open = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture(scope="session")
async def redis_at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with AsyncExitStack() as opened:
        yield await _start(opened, redis_server.start(tmp_path_factory.mktemp("redis"), CACHE, say=print))


@pytest.fixture(scope="session")
async def postgres_at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with AsyncExitStack() as opened:
        server = await _start(opened, postgres.start(tmp_path_factory.mktemp("postgres"), CACHE, say=print))
        connection = await asyncpg.connect(server.address)
        await write_tables(connection, USERS)
        await connection.close()
        yield server


@pytest.fixture
async def redis(redis_at: Server) -> AsyncIterator[Redis]:
    """A client of an empty Redis."""
    client = Redis.from_url(redis_at.address)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def view(redis: Redis) -> View:
    """USERS, live as generation g1."""
    written = View(redis)
    await written.write(USERS)
    return written


@pytest.fixture
async def open_gateway(redis_at: Server, postgres_at: Server) -> AsyncIterator[Open]:
    """A gateway over the two servers, settings given by name, as an HTTP client."""
    async with AsyncExitStack() as opened:

        async def open_one(**given: Any) -> httpx.AsyncClient:
            addresses = {"redis_url": redis_at.address, "postgres_url": postgres_at.address}
            settings = Settings(**(addresses | {"allow_mode_header": True} | given))
            app = await opened.enter_async_context(gateway(settings, DEFINITION))
            return await opened.enter_async_context(_client(app))

        yield open_one


@pytest.fixture
async def open_over() -> AsyncIterator[Open]:
    """A gateway over loaders that are given, mode by mode, and without any server."""
    async with AsyncExitStack() as opened:

        async def open_one(*loaders: Loader, **given: Any) -> httpx.AsyncClient:
            modes = dict(zip(("view", "cache-aside", "sql"), loaders, strict=False))
            app = application(Settings(**given), DEFINITION, modes, GatewayMetrics())  # type: ignore[arg-type] # zip forgets what a Mode is
            return await opened.enter_async_context(_client(app))

        yield open_one


def _client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://gateway")


async def _start(opened: AsyncExitStack, server: Any) -> Server:
    try:
        started: Server = await opened.enter_async_context(server)
    except ServerError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    return started
