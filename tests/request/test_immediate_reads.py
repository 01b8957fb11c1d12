"""Reads without a task, against a real Redis: they say what `load` says, or leave it to `load`."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest

from app.clients import open_redis
from app.pool import Pool
from app.settings import Settings
from app.shared_connection import SharedConnection
from demo.servers.server import Server
from loaders import view as view_module
from loaders.view import ViewLoader
from schema import layout
from schema.loader import Read, Rows
from tests.request.arranged import DEFINITION, USERS, View, user

pytestmark = pytest.mark.servers

ALL = ("id", *(f.name for f in DEFINITION.fields))


@dataclass(slots=True)
class Reading:
    loader: ViewLoader
    pool: Pool

    async def begin(self, *reads: Read) -> Rows | str | None:
        """What came of it; "refused" where it was not even begun."""
        found: asyncio.Future[Rows | None] = asyncio.get_running_loop().create_future()
        if not self.loader.begin(reads, found.set_result):
            return "refused"
        return await asyncio.wait_for(found, 10)

    async def both(self, *reads: Read) -> Rows | str | None:
        """Fails where `load` says something else; what came of it."""
        found, loaded = await self.begin(*reads), await self.loader.load(reads)
        if isinstance(found, Rows):
            assert (found.rows, found.mode, found.generation, found.as_of_ms) == (loaded.rows, "view", loaded.generation, loaded.as_of_ms)
        return found


@pytest.fixture
async def reading(view: View, redis_at: Server) -> AsyncIterator[Reading]:
    """The generation has been looked at."""
    client = open_redis(Settings(), redis_at.address)
    pool = client.connection_pool
    assert isinstance(pool, Pool)
    shared = SharedConnection(pool, 5.0)
    loader = ViewLoader(client, DEFINITION, send=shared.ask, begin=shared.begin)
    await loader.load([Read("id", "1", ("username",))])
    yield Reading(loader, pool)
    await client.aclose()


def of(keys: Sequence[str], fields: tuple[str, ...] = ALL) -> list[Read]:
    return [Read("id", key, fields) for key in keys]


async def test_every_field_of_every_user_is_what_load_says(reading: Reading) -> None:
    found = await reading.both(*of([stored["id"] for stored in USERS]))
    assert isinstance(found, Rows)
    assert found.rows == [[layout.encode(stored[name]) for name in ALL] for stored in USERS]
    for fields in ((), ("id",), ("tweet_count",), ("like_count", "name", "id")):
        assert isinstance(await reading.both(*of(["1", "2"], fields)), Rows)


async def test_what_has_no_row_is_left_to_load(reading: Reading, view: View) -> None:
    assert await reading.both(*of(["1", "99"])) is None
    # counts without a profile are no user
    await view.redis.hset(view.key("98"), view.code("tweet_count"), "5")
    assert await reading.both(*of(["98"], ("tweet_count",))) is None
    await view.redis.hdel(view.key("1"), view.code("like_count"))
    assert await reading.begin(*of(["1"])) is None
    await view.redis.delete(view.key("2"))
    await view.redis.set(view.key("2"), "not a hash")
    assert await reading.begin(*of(["2"])) is None


async def test_lookups_and_fields_that_the_generation_lacks_are_not_begun(reading: Reading) -> None:
    assert await reading.begin(Read("username", "ada", ("id",))) == "refused"
    assert await reading.begin(Read("id", "1", ("nothing",))) == "refused"


async def test_the_generation_is_looked_at_once_a_second(reading: Reading, view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    reading.loader._watch_at = 0.0
    assert await reading.begin(*of(["1"])) == "refused"
    # `load` looks, and another one is live
    other = View(view.redis, "g2", "b")
    await other.write([user(1, "ada2")])
    reading.loader._watch_at = 0.0
    await reading.loader.load(of(["1"]))
    found = await reading.both(*of(["1"], ("username",)))
    assert isinstance(found, Rows)
    assert (found.rows, found.generation) == ([[b'"ada2"']], "g2")
    assert view_module.WATCH_SECONDS == 1.0


async def test_a_redis_that_may_have_lost_what_it_said_it_has_is_left_to_load(reading: Reading) -> None:
    reading.pool.met += 1
    assert await reading.begin(*of(["1"])) is None
    await reading.loader.load(of(["1"]))
    assert isinstance(await reading.both(*of(["1"])), Rows)


async def test_a_rebuilt_shard_is_read_under_its_new_build(reading: Reading, view: View) -> None:
    await view.redis.hset(view.header("1"), "build", "new")
    old, rebuilt = view.key("1"), View(view.redis, view.name, "new").key("1")
    await view.redis.rename(old, rebuilt)
    assert await reading.begin(*of(["1"])) is None
    await reading.loader.load(of(["1"]))
    assert isinstance(await reading.both(*of(["1"])), Rows)


async def test_a_connection_that_is_lost_leaves_it_to_load(reading: Reading, view: View) -> None:
    await view.redis.client_kill_filter(_type="normal", skipme=True)
    found = await reading.begin(*of(["1"]))
    assert found in (None, "refused")
    await reading.loader.load(of(["1"]))
    assert isinstance(await reading.both(*of(["1"])), Rows)
