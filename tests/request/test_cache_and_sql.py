"""Modes cache-aside and sql: how often the source is asked, and what outlives what."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import asyncpg
import pytest
from redis.asyncio import BlockingConnectionPool, Redis

from demo.servers.server import Server
from loaders.cache_aside import CacheAsideLoader
from loaders.fallback import FallbackLoader
from loaders.sql import SqlLoader
from schema import layout
from schema.loader import Loader, Overloaded, Read, Rows, SourceUnavailable, ViewNotReady
from tests.request.arranged import DEFINITION, FRESH_MS, TABLES, USERS, MemoryLoader

pytestmark = pytest.mark.servers

ADA = Read("id", "1", ("username", "tweet_count"))
ADAS = [b'"ada"', b"3"]


@dataclass(slots=True)
class Counts:
    """A Tally."""

    hit: int = 0
    shared: int = 0
    miss: int = 0
    error: int = 0

    def count(self, outcome: str, rows: int) -> None:
        setattr(self, outcome, getattr(self, outcome) + rows)


@dataclass(slots=True)
class SlowLoader:
    """A loader that answers when it is told to."""

    loader: Loader
    go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self, reads: Sequence[Read]) -> Rows:
        self.asked.set()
        await self.go.wait()
        return await self.loader.load(reads)

    async def ready(self) -> None:
        await self.loader.ready()


def cached(redis: Redis, source: Loader, tally: Counts | None = None, ttl_seconds: float = 60) -> CacheAsideLoader:
    return CacheAsideLoader(redis, source, DEFINITION, ttl_seconds, tally or Counts())


async def settled(reading: CacheAsideLoader) -> None:
    """Return when what was read is kept: answers do not wait for it."""
    while reading._tasks:
        await asyncio.wait(reading._tasks)


async def keep(redis: Redis, *reads: Read) -> None:
    reading = cached(redis, MemoryLoader())
    await reading.load(reads)
    await settled(reading)


@pytest.fixture
async def pool(users_at: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(users_at, min_size=0, max_size=1) as opened:
        yield opened


async def test_five_hundred_requests_that_miss_the_same_row_ask_the_source_once(redis: Redis, redis_at: Server) -> None:
    source = MemoryLoader()
    slow, tally = SlowLoader(source), Counts()
    reading = cached(redis, slow, tally)
    requests = [asyncio.create_task(reading.load([ADA])) for _ in range(500)]
    await slow.asked.wait()
    slow.go.set()
    assert [answer.rows for answer in await asyncio.gather(*requests)] == [[ADAS]] * 500
    await settled(reading)
    assert (await reading.load([ADA])).rows == [ADAS]
    assert (len(source.loads), tally.hit, tally.shared, tally.miss) == (1, 1, 499, 1)


async def test_a_request_that_is_cancelled_does_not_cancel_those_that_wait_with_it(redis: Redis) -> None:
    slow = SlowLoader(MemoryLoader())
    reading = cached(redis, slow)
    first, second = asyncio.create_task(reading.load([ADA])), asyncio.create_task(reading.load([ADA]))
    await slow.asked.wait()
    first.cancel()
    slow.go.set()
    assert (await second).rows == [ADAS]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_row_that_is_kept_does_not_wait_for_one_that_is_not(redis: Redis) -> None:
    await keep(redis, ADA)
    slow = SlowLoader(MemoryLoader())
    reading = cached(redis, slow)
    both = asyncio.create_task(reading.load([ADA, Read("id", "2", ("username",))]))
    await slow.asked.wait()
    assert (await reading.load([ADA])).rows == [ADAS]
    assert not both.done()
    slow.go.set()
    assert (await both).rows == [ADAS, [b'"bob"']]


async def test_what_is_kept_is_found_by_id_by_name_and_field_by_field(redis: Redis) -> None:
    source = MemoryLoader()
    by_name = Read("username", "ada", ("id", "like_count"))
    reading = cached(redis, source)
    assert (await reading.load([by_name])).rows == [[b'"1"', b"1"]]
    await settled(reading)
    assert (await reading.load([by_name, ADA, Read("id", "1", ())])).rows == [[b'"1"', b"1"], ADAS, []]
    assert len(source.loads) == 1


async def test_a_name_that_has_moved_on_is_looked_up_again(redis: Redis) -> None:
    await keep(redis, Read("username", "ada", ()))
    await redis.delete(layout.cache_key("User", "id", "1"))
    renamed = MemoryLoader({"1": USERS[0] | {"username": "eve"}, "9": USERS[0] | {"id": "9"}})
    reading = cached(redis, renamed)
    await reading.load([Read("id", "1", ())])
    await settled(reading)
    assert (await reading.load([Read("username", "ada", ("id",))])).rows == [[b'"9"']]


async def test_what_is_kept_goes_after_its_time_give_or_take_a_tenth(redis: Redis) -> None:
    reading = cached(redis, MemoryLoader(), ttl_seconds=100)
    await reading.load([Read("id", stored["id"], ()) for stored in USERS])
    await settled(reading)
    left = [await redis.pttl(layout.cache_key("User", "id", stored["id"])) for stored in USERS]
    assert all(89_000 < milliseconds <= 110_000 for milliseconds in left)
    assert len(set(left)) > 1


async def test_what_another_definition_kept_is_read_anew(redis: Redis) -> None:
    await redis.set(layout.cache_key("User", "id", "1"), b"\x93\xa1x\x01\x91\xc4\x01?")
    await redis.set(layout.cache_key("User", "id", "2"), b"no message")
    assert (await cached(redis, MemoryLoader()).load([ADA, Read("id", "2", ("username",))])).rows == [ADAS, [b'"bob"']]


async def test_an_error_of_the_source_reaches_everybody_and_is_not_kept(redis: Redis) -> None:
    source = MemoryLoader(error=SourceUnavailable("away"))
    reading = cached(redis, source)
    failed = await asyncio.gather(*[reading.load([ADA]) for _ in range(5)], return_exceptions=True)
    assert [type(error) for error in failed] == [SourceUnavailable] * 5
    source.error = None
    assert (await reading.load([ADA])).rows == [ADAS]


async def test_without_redis_every_row_comes_from_the_source_and_is_counted() -> None:
    source, tally = MemoryLoader(), Counts()
    async with Redis.from_pool(BlockingConnectionPool(host="127.0.0.1", port=1, timeout=1)) as nobody:
        reading = cached(nobody, source, tally)
        for _ in range(2):
            assert (await reading.load([ADA])).rows == [ADAS]
            await settled(reading)
    assert (len(source.loads), tally.miss, tally.error) == (2, 2, 4)


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
