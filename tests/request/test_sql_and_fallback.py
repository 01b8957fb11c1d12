"""Mode sql and the fallback: what is asked of PostgreSQL, and how much of it at once."""

import asyncio
import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from loaders.fallback import FallbackLoader
from loaders.sql import SqlLoader
from schema import layout
from schema.loader import Overloaded, Read, ViewNotReady
from tests.request.arranged import DEFINITION, FRESH_MS, TABLES, USERS, MemoryLoader
from tests.request.cached import ADA, ADAS, SlowLoader

pytestmark = pytest.mark.servers


@pytest.fixture
async def pool(users_at: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(users_at, min_size=0, max_size=1) as opened:
        yield opened


async def test_sql_reads_each_field_as_the_view_would_store_it(pool: asyncpg.Pool) -> None:
    fields = ("id", *(f.name for f in DEFINITION.fields))
    reads = [Read("id", stored["id"], fields) for stored in USERS] + [Read("id", "99", fields)]
    rows = await SqlLoader(pool, DEFINITION).load(reads)
    assert rows.rows == [[layout.encode(stored[name]) for name in fields] for stored in USERS] + [None]
    assert (rows.mode, rows.generation, rows.as_of_ms > FRESH_MS) == ("sql", None, True)


async def test_reads_of_one_kind_are_one_query_and_several_queries_see_one_moment(users_at: str) -> None:
    statements: list[str] = []

    async def listen(connection: asyncpg.Connection) -> None:
        connection.add_query_logger(lambda record: statements.append(record.query))

    async with asyncpg.create_pool(users_at, min_size=0, max_size=1, init=listen) as pool:
        reading = SqlLoader(pool, DEFINITION)
        await reading.load([ADA, Read("id", "2", ADA.fields), Read("id", "1", ADA.fields)])
        await reading.load([ADA, Read("username", "bob", ("id",))])
    # asyncpg's own, about types and at the connection's return, are no reads
    ours = [found[0].rstrip(";") for statement in statements if (found := re.match("SELECT base|BEGIN.*|COMMIT", statement))]
    assert ours == ["SELECT base", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SELECT base", "SELECT base", "COMMIT"]


async def test_an_id_too_large_for_the_column_is_unknown_and_no_error(users_at: str) -> None:
    async with asyncpg.create_pool(users_at, min_size=0, max_size=1, server_settings={"search_path": "narrow"}) as pool:
        await pool.execute("CREATE SCHEMA narrow")
        await pool.execute(TABLES.replace("bigint", "integer"))
        rows = await SqlLoader(pool, DEFINITION).load([Read("id", str(2**62), ()), Read("id", "1", ())])
        await pool.execute("DROP SCHEMA narrow CASCADE")
    assert rows.rows == [None, None]


async def test_a_cancelled_request_leaves_the_pool_of_postgres_usable(pool: asyncpg.Pool) -> None:
    reading = SqlLoader(pool, DEFINITION)
    for _ in range(10):
        task = asyncio.create_task(reading.load([ADA, Read("username", "bob", ("id",))]))
        await asyncio.sleep(0.002)
        task.cancel()
        await asyncio.wait([task])
    assert (await reading.load([ADA])).rows == [ADAS]


async def test_only_as_many_loads_run_as_there_are_connections_and_who_waits_too_long_is_told_so(pool: asyncpg.Pool) -> None:
    reading = SqlLoader(pool, DEFINITION, wait_seconds=0.05)
    beside = reading.beside()
    async with pool.acquire():
        first = asyncio.create_task(reading.load([ADA]))
        await asyncio.sleep(0)
        for other in (reading, beside):
            with pytest.raises(Overloaded, match="PostgreSQL answers as many requests as are allowed"):
                await other.load([ADA])
        assert (reading.running, beside.running) == (1, 0)
    assert (await first).rows == [ADAS]
    assert (await reading.load([ADA])).rows == [ADAS]
    assert reading.running == 0


async def test_the_fallback_answers_only_so_many_at_once() -> None:
    slow = SlowLoader(MemoryLoader(mode="sql"))
    reading = FallbackLoader(MemoryLoader(error=ViewNotReady("building")), slow, limit=1, wait_seconds=0.05)
    first = asyncio.create_task(reading.load([ADA]))
    await slow.asked.wait()
    with pytest.raises(Overloaded):
        await reading.load([ADA])
    slow.go.set()
    answer = await first
    assert (answer.rows, answer.mode, answer.fallback) == ([ADAS], "sql", "NOT_READY")
    assert (await reading.load([ADA])).rows == [ADAS], "a turn that is over is free again"


async def test_the_fallback_does_not_hide_a_mistake() -> None:
    other = MemoryLoader(mode="sql")
    with pytest.raises(KeyError):
        await FallbackLoader(MemoryLoader(error=KeyError("ours")), other, limit=1, wait_seconds=1).load([ADA])
    assert other.loads == []
