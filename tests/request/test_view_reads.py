"""Mode view against a real Redis: what is read, how often, and what is never read as 0 or null."""

import asyncio
from typing import Any, cast

import pytest
from redis.asyncio import BlockingConnectionPool, Redis

from demo.servers.server import Server
from loaders import view as view_module
from loaders.view import ViewLoader
from schema import layout
from schema.definition import Definition
from schema.loader import FieldMissing, Read, ViewNotReady
from tests.request.arranged import BY_ID, DEFINITION, FRESH_MS, USERS, View, user

pytestmark = pytest.mark.servers

ALL = tuple(f.name for f in DEFINITION.fields)


def loader(redis: Redis, definition: Definition = DEFINITION) -> ViewLoader:
    return ViewLoader(redis, definition)


async def calls(redis: Redis) -> dict[str, int]:
    """How often Redis has run each command since the last call of this."""
    stats = await redis.info("commandstats")
    await redis.config_resetstat()
    return {
        name.removeprefix("cmdstat_"): counted["calls"] for name, counted in stats.items() if "config" not in name and "info" not in name
    }


async def test_every_field_comes_back_as_it_was_written(view: View) -> None:
    rows = await loader(view.redis).load([Read("id", stored["id"], ("id", *ALL)) for stored in USERS])
    assert rows.rows == [[layout.encode(stored[name]) for name in ("id", *ALL)] for stored in USERS]
    assert (rows.mode, rows.generation, rows.as_of_ms, rows.fallback) == ("view", "g1", FRESH_MS, None)


async def test_rows_that_are_there_cost_one_hmget_each_and_no_header(view: View) -> None:
    reading = loader(view.redis)
    await reading.load([])
    await calls(view.redis)
    await reading.load([Read("id", "1", ("tweet_count",)), Read("id", "2", ("name", "id")), Read("username", "ada", ("id",))])
    assert await calls(view.redis) == {"hmget": 3, "hgetall": 1}


async def test_a_row_that_is_not_there_costs_the_header_of_its_shard(view: View) -> None:
    reading = loader(view.redis)
    await reading.load([])
    await calls(view.redis)
    rows = await reading.load([Read("id", "99", ("tweet_count",)), Read("id", "1", ())])
    assert rows.rows == [None, []]
    assert await calls(view.redis) == {"hmget": 3}


async def test_the_pointer_is_watched_in_the_pipeline_of_a_load(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = loader(view.redis)
    await reading.load([Read("id", "1", ())])
    monkeypatch.setattr(view_module, "WATCH_SECONDS", 0.0)
    reading._watch_at = 0.0
    await calls(view.redis)
    await view.redis.hset(view.keys.progress, "users:0", str(FRESH_MS + 100))
    assert (await reading.load([Read("id", "1", ())])).as_of_ms == FRESH_MS + 100
    assert await calls(view.redis) == {"hset": 1, "get": 1, "hgetall": 1, "hmget": 1}


async def test_another_generation_is_read_once_it_is_live(view: View) -> None:
    reading = loader(view.redis)
    await reading.load([Read("id", "1", ())])
    await View(view.redis, "g2").write([user(1, "ada", (42, 0, 0, 0))])
    reading._watch_at = 0.0
    rows = await reading.load([Read("id", "1", ("tweet_count",))])
    assert (rows.rows, rows.generation) == ([[b"42"]], "g2")


async def test_a_generation_that_was_dropped_is_left_at_once(view: View) -> None:
    reading = loader(view.redis)
    await reading.load([Read("id", "1", ())])
    await View(view.redis, "g2").write([user(1, "ada", (42, 0, 0, 0))])
    await view.redis.delete(*view.keys.headers, view.key("1"))
    rows = await reading.load([Read("id", "1", ("tweet_count",))])
    assert (rows.rows, rows.generation) == ([[b"42"]], "g2")


async def test_a_generation_begun_anew_under_its_old_name_is_read_by_its_new_record(view: View) -> None:
    reading = loader(view.redis)
    await reading.load([Read("id", "1", ())])
    await view.redis.flushall()
    anew = View(view.redis, build="again")
    codes = anew.record.codes
    codes["tweet_count"], codes["follower_count"] = codes["follower_count"], codes["tweet_count"]
    await anew.write(USERS)
    # within the second in which it does not look at the pointer
    for read in (Read("id", "1", ("tweet_count", "follower_count")), Read("username", "ada", ("tweet_count", "follower_count"))):
        assert (await reading.load([read])).rows == [[b"3", b"5"]]


async def test_an_empty_redis_is_not_ready(redis: Redis) -> None:
    with pytest.raises(ViewNotReady):
        await loader(redis).load([Read("id", "1", ())])
    with pytest.raises(ViewNotReady):
        await loader(redis).ready()


async def test_a_generation_without_a_field_of_the_definition_is_not_ready(view: View) -> None:
    await loader(view.redis).ready()
    del view.record.codes["tweet_count"]
    await view.redis.set(layout.generation_key("User", "g1"), view.record.encode())
    with pytest.raises(FieldMissing, match="g1 was built without field 'tweet_count'"):
        await loader(view.redis).ready()
    # what it has it answers all the same
    assert (await loader(view.redis).load([Read("id", "1", ("username",))])).rows == [[b'"ada"']]


async def test_a_redis_that_was_emptied_is_not_ready(view: View) -> None:
    reading = loader(view.redis)
    await reading.load([Read("id", "1", ())])
    await view.redis.flushall()
    with pytest.raises(ViewNotReady):
        await reading.load([Read("id", "1", ())])


@pytest.mark.parametrize("header", [{}, {"state": "building", "build": "0"}, {"state": "live"}])
@pytest.mark.parametrize("read", [Read("id", "99", ("tweet_count",)), Read("username", "nobody", ("id",))])
async def test_a_shard_that_was_lost_is_not_ready_and_never_null(view: View, header: dict[Any, Any], read: Read) -> None:
    await view.redis.delete(view.header(read.value))
    if header:
        await view.redis.hset(view.header(read.value), mapping=header)
    with pytest.raises(ViewNotReady):
        await loader(view.redis).load([read])


async def test_a_claimant_on_a_lost_shard_is_not_ready(view: View) -> None:
    await view.redis.delete(view.header("1"), view.key("1"))
    with pytest.raises(ViewNotReady):
        await loader(view.redis).load([Read("username", "ada", ("id",))])


async def test_other_shards_answer_while_one_is_lost(view: View) -> None:
    await view.redis.delete(view.header("2"), view.key("2"))
    assert (await loader(view.redis).load([Read("id", "1", ("username",))])).rows == [[b'"ada"']]


async def test_a_rebuilt_shard_is_read_under_its_new_build(view: View) -> None:
    reading = loader(view.redis)
    await reading.load([Read("id", "1", ())])
    await view.redis.delete(view.key("1"), view.claim_key("ada"))
    rebuilt = View(view.redis, build="1")
    await rebuilt.write([user(1, "ada", (7, 0, 0, 0))])
    await calls(view.redis)
    reads = [Read("id", "1", ("tweet_count",)), Read("username", "ada", ("tweet_count",))]
    assert (await reading.load(reads)).rows == [[b"7"], [b"7"]]
    await calls(view.redis)
    assert (await reading.load(reads)).rows == [[b"7"], [b"7"]]
    assert await calls(view.redis) == {"hmget": 2, "hgetall": 1}, "the build is remembered"


async def test_counts_without_a_profile_are_no_user(view: View) -> None:
    await view.redis.hset(view.key("99"), view.code("tweet_count"), "3")
    assert (await loader(view.redis).load([Read("id", "99", ("tweet_count",))])).rows == [None]


async def test_a_field_that_a_user_lacks_is_an_error_that_names_both(view: View) -> None:
    await view.redis.hdel(view.key("1"), view.code("tweet_count"))
    with pytest.raises(FieldMissing, match=r"1 lacks field 'tweet_count'"):
        await loader(view.redis).load([Read("id", "1", ("username", "tweet_count"))])
    assert (await loader(view.redis).load([Read("id", "1", ("username",))])).rows == [[b'"ada"']]


async def test_a_field_that_the_generation_was_built_without_is_an_error(view: View) -> None:
    del view.record.codes["tweet_count"]
    await view.redis.set(layout.generation_key("User", "g1"), view.record.encode())
    with pytest.raises(FieldMissing, match="tweet_count"):
        await loader(view.redis).load([Read("id", "1", ("tweet_count",))])


async def test_only_the_record_says_what_was_cut(view: View) -> None:
    view.record.prefixes.clear()
    view.record.prefixes["location"] = "Lon"
    await view.write(USERS)
    rows = await loader(view.redis).load([Read("id", "1", ("location", "profile_image_url"))])
    assert rows.rows == [[b'"London"', layout.encode(BY_ID["1"]["profile_image_url"])]]


async def test_a_name_belongs_to_the_claimant_who_still_bears_it(view: View) -> None:
    claims = {"3": "50:9", "1": "50:10", "2": "60:1", "99": "70:1"}
    await view.redis.hset(view.claim_key("ada"), mapping=cast(Any, claims))
    assert (await loader(view.redis).load([Read("username", "ada", ("id",))])).rows == [[b'"1"']]
    await view.redis.hset(view.key("2"), mapping=view.encoded(BY_ID["2"] | {"username": "ada"}))
    assert (await loader(view.redis).load([Read("username", "ada", ("id",))])).rows == [[b'"2"']], "the later claim, if two do"


async def test_a_cancelled_request_leaves_its_connection_usable(view: View, redis_at: Server) -> None:
    pool = BlockingConnectionPool.from_url(redis_at.address, max_connections=1, timeout=5)
    async with Redis.from_pool(pool) as single:
        reading = loader(single)
        await reading.load([Read("id", "1", ())])
        before = (await view.redis.info("stats"))["total_connections_received"]
        for _ in range(20):
            task = asyncio.create_task(reading.load([Read("id", "2", ("username",))]))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await reading.load([Read("id", "1", ("username",))])).rows == [[b'"ada"']]
        assert (await view.redis.info("stats"))["total_connections_received"] == before
