"""A Redis, and databases with the tables of a definition, for the tests of the road of a message."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import pytest

from demo.servers.server import Server
from demo.tables import create_tables
from schema.definition import Definition, read_definition
from schema.user import UserView
from tests.message.shop import CustomerView
from tests.road import make_database

OpenTables = Callable[[Definition], Awaitable[asyncpg.Pool]]


@pytest.fixture(scope="session")
async def open_tables(postgres_at: Server) -> AsyncIterator[OpenTables]:
    """Opens a database of its own with the empty tables of a definition; commits do not wait for the disk."""
    numbers = itertools.count()
    async with AsyncExitStack() as opened:

        async def open_one(definition: Definition) -> asyncpg.Pool:
            url = await make_database(postgres_at, f"tables{next(numbers)}")
            pool = asyncpg.create_pool(url, min_size=1, max_size=2, server_settings={"synchronous_commit": "off"})
            await create_tables(await opened.enter_async_context(pool), definition)
            return pool

        yield open_one


@pytest.fixture(scope="session")
async def users(open_tables: OpenTables) -> asyncpg.Pool:
    """The tables of users; a test writes them anew."""
    return await open_tables(read_definition(UserView))


@pytest.fixture(scope="session")
async def customers(open_tables: OpenTables) -> asyncpg.Pool:
    """The tables of customers; a test writes them anew."""
    return await open_tables(read_definition(CustomerView))
