"""A Redis, and databases with the tables of a definition, for the tests of the road of a message."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import asyncpg
import pytest

from demo.servers.server import Server
from demo.tables import create_tables
from schema.definition import Definition

OpenTables = Callable[[Definition], Awaitable[asyncpg.Pool]]


@pytest.fixture(scope="session")
async def open_tables(postgres_at: Server) -> AsyncIterator[OpenTables]:
    """Opens a database of its own with the empty tables of a definition; commits do not wait for the disk."""
    numbers = itertools.count()
    async with AsyncExitStack() as opened:

        async def open_one(definition: Definition) -> asyncpg.Pool:
            name = f"tables{next(numbers)}"
            connection = await asyncpg.connect(postgres_at.address)
            await connection.execute(f"CREATE DATABASE {name}")
            await connection.close()
            url = f"{postgres_at.address.rpartition('/')[0]}/{name}"
            pool = asyncpg.create_pool(url, min_size=1, max_size=2, server_settings={"synchronous_commit": "off"})
            await create_tables(await opened.enter_async_context(pool), definition)
            return pool

        yield open_one
