"""Real servers for all tests, started once on free ports; and the mark on each test that asks for one or for a process."""

import inspect
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from demo.servers import connect, kafka, postgres
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.connect import Connect
from demo.servers.process import ServerError
from demo.servers.server import MissingError, Server
from schema import pacing
from tests.request.arranged import USERS, View, write_tables
from tests.road import make_database

CACHE = Path(__file__).parents[1] / ".cache"
SLOW = {"test_connection_limits.py", "test_report.py", "test_verdict.py"}
SERVERS = {"kafka_at", "redis_at", "postgres_at", "quick_cleaner", "cluster", "chromium"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())) or _runs_commands(item) or _listens(item):
            item.add_marker("servers")


def _listens(item: pytest.Item) -> bool:
    """The third run of the API's tests, over sockets, what takes its time there, and pictures: too slow for `make check` as well."""
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return params.get("answered_by") == "short" or item.path.name in SLOW


def _runs_commands(item: pytest.Item) -> bool:
    """Those of the commands that wait for something run `viewgate` in processes of its own: too slow for `make check`."""
    return item.path.parent.name == "commands" and inspect.iscoroutinefunction(getattr(item, "function", None))


@pytest.fixture(scope="session", autouse=True)
def unpaced() -> Iterator[None]:
    """Tests send new documents all the time, and wait for none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pacing, "SHARE", 1000.0)
        yield


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="session")
async def kafka_at(servers_folder: Path) -> AsyncIterator[Server]:
    async with running(kafka.start(servers_folder, CACHE, say=print)) as server:
        yield server


@pytest.fixture(scope="session")
def apache_kafka_at(kafka_at: Server) -> Server:
    """Not librdkafka's mock broker: it deletes nothing, and forms no group of two."""
    if kafka_at.kind == "embedded":
        pytest.skip("needs Apache Kafka: librdkafka's mock broker has no groups of two members, and deletes no records and no topics")
    return kafka_at


@pytest.fixture(scope="session")
async def redis_at(servers_folder: Path) -> AsyncIterator[Server]:
    async with running(redis_server.start(servers_folder, CACHE, say=print)) as server:
        yield server


@pytest.fixture(scope="session")
async def postgres_at(servers_folder: Path) -> AsyncIterator[Server]:
    async with running(postgres.start(servers_folder, CACHE, say=print)) as server:
        yield server


@pytest.fixture(scope="session")
async def connect_at(apache_kafka_at: Server) -> AsyncIterator[Connect]:
    """Kafka Connect, distributed, exactly once."""
    async with open_connect(apache_kafka_at, exactly_once=True) as worker:
        yield worker


@pytest.fixture
async def redis(redis_at: Server) -> AsyncIterator[Redis]:
    """A client of an empty Redis."""
    client = Redis.from_url(redis_at.address)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
async def users_at(postgres_at: Server) -> str:
    """The address of a database that holds USERS."""
    address = await make_database(postgres_at, "request")
    connection = await asyncpg.connect(address)
    await write_tables(connection, USERS)
    await connection.close()
    return address


@pytest.fixture
async def view(redis: Redis) -> View:
    """USERS, live as generation g1."""
    written = View(redis)
    await written.write(USERS)
    return written


@asynccontextmanager
async def running(starting: AbstractAsyncContextManager[Server]) -> AsyncIterator[Server]:
    """Skipped on a laptop where the server cannot be had, failed under CI=true."""
    try:
        server = await starting.__aenter__()
    except ServerError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    try:
        yield server
    finally:
        await starting.__aexit__(None, None, None)


@asynccontextmanager
async def open_connect(kafka_at: Server, *, exactly_once: bool) -> AsyncIterator[Connect]:
    """A worker of its own. Skipped on a laptop without Java and Maven, failed under CI=true."""
    async with AsyncExitStack() as opened:
        folder = opened.enter_context(scratch())
        try:
            worker = await opened.enter_async_context(connect.start(kafka_at.address, folder, CACHE, exactly_once=exactly_once, say=print))
        except MissingError as missing:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(missing))
        yield worker
