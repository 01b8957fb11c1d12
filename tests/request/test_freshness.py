"""Read your writes, and what an answer says of its age: against a real Redis, over HTTP, and behind a real projector."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest
from redis.asyncio import Redis

from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from loaders import after as after_module
from loaders.fallback import FallbackLoader
from loaders.view import ViewLoader
from schema import layout
from schema.loader import AfterUnsupported, BadAfter, NotYet, Read, Rows, ViewNotReady
from schema.positions import MalformedToken, Partition, Token, TokenUnsupported, Watermark, tokens
from schema.user import Tweets, Users
from tests.request.arranged import BY_ID, DEFINITION, FRESH_MS, USERS, MemoryLoader, View, user
from tests.request.conftest import Open
from tests.road import Road, open_road

TWEETS = Partition("tweets", 0)
ADAS_TWEETS = [Read("id", "1", ("tweet_count",))]


def at(offset: int) -> list[Token]:
    return [Token(TWEETS, offset)]


class Written(View):
    """A view whose shards have watermarks. All of partition tweets:0 below 10 is applied everywhere."""

    async def write(self, users: Sequence[Mapping[str, Any]]) -> None:
        self.record = msgspec.structs.replace(self.record, start={"tweets:0": 0, "users:0": 0})
        await super().write(cast(Any, users))
        for header in self.keys.headers:
            await self.redis.hset(header, "tweets:0", Watermark(10, 0, "id").encode())

    async def apply(self, value: str, offset: int, counts: Mapping[str, int] | None = None) -> None:
        """As a projector does: the shard of `value` is moved to an offset, and counts of rows on it with it, at once."""
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.hset(self.header(value), "tweets:0", Watermark(offset, 0, "id").encode())
        for row_id, count in (counts or {}).items():
            pipeline.hset(self.key(row_id), self.code("tweet_count"), str(count))
        await pipeline.execute()


@pytest.fixture
async def written(redis: Redis) -> Written:
    view = Written(redis)
    await view.write(USERS)
    return view


def loader(redis: Redis, seconds: float = 30.0) -> ViewLoader:
    return ViewLoader(redis, DEFINITION, wait_seconds=seconds)


async def waiting(reader: ViewLoader) -> None:
    """Raises NotReadyError until somebody polls."""
    if reader._polls._round is None:
        raise NotReadyError("nobody polls")


async def tweet_counts(answer: Rows) -> list[int]:
    return [int(row[0]) for row in answer.rows if row is not None]


@pytest.mark.servers
async def test_a_read_waits_until_its_shard_has_the_write(written: Written) -> None:
    reader = loader(written.redis)
    assert (await reader.load_after(ADAS_TWEETS, at(9))).rows == [[b"3"]]
    reading = asyncio.create_task(reader.load_after(ADAS_TWEETS, at(10)))
    await until(lambda: waiting(reader), 20)
    await written.apply("2", 50)
    assert not reading.done()
    await written.apply("1", 11, {"1": 4})
    assert (await asyncio.wait_for(reading, 20)).rows == [[b"4"]]


@pytest.mark.servers
async def test_a_read_whose_write_does_not_come_is_refused_and_told_how_far_the_view_is(written: Written) -> None:
    reader = loader(written.redis, 0.05)
    with pytest.raises(NotYet, match=r"has tweets:0 only below offset 10, and your write is at 12: .*viewgate lag.* g1 is"):
        await reader.load_after(ADAS_TWEETS, at(12))
    assert (await reader.load(ADAS_TWEETS)).rows == [[b"3"]]


@pytest.mark.servers
@pytest.mark.parametrize("late", ["ada", "1"])
async def test_a_lookup_waits_for_the_shard_of_the_name_and_for_that_of_the_row(written: Written, late: str) -> None:
    assert written.keys.shard("ada") != written.keys.shard("1")
    reader = loader(written.redis, 0.05)
    await written.apply("1" if late == "ada" else "ada", 21, {})
    read = [Read("username", "ada", ("tweet_count",))]
    with pytest.raises(NotYet):
        await reader.load_after(read, at(20))
    await written.apply(late, 21, {"1": 77} if late == "1" else {})
    assert (await reader.load_after(read, at(20))).rows == [[b"77" if late == "1" else b"3"]]


@pytest.mark.servers
async def test_all_shards_and_all_tokens_of_a_request_count(written: Written) -> None:
    reader, users = loader(written.redis, 0.05), Partition("users", 0)
    reads = [Read("id", key, ("tweet_count",)) for key in ("1", "2")]
    await written.apply("1", 21)
    with pytest.raises(NotYet):
        await reader.load_after(reads, at(20))
    await written.apply("2", 21)
    await reader.load_after(reads, at(20))
    with pytest.raises(NotYet, match="users:0 only below offset 0"):
        await reader.load_after(reads, [*at(20), Token(users, 0)])


@pytest.mark.servers
async def test_what_was_never_there_is_known_to_be_unknown_only_after_the_write(written: Written) -> None:
    reader = loader(written.redis, 0.05)
    read = [Read("id", "99", ("tweet_count",))]
    assert (await reader.load_after(read, at(9))).rows == [None]
    with pytest.raises(NotYet):
        await reader.load_after(read, at(10))


@pytest.mark.servers
async def test_the_watermark_is_read_ahead_of_the_row_in_one_pipeline(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = loader(written.redis)
    await reader.load([])
    sent: list[list[str]] = []
    pipeline = reader._pipeline

    async def noted(commands: Sequence[tuple[str, ...]]) -> list[Any]:
        sent.append([command[1] for command in commands])
        return await pipeline(commands)

    monkeypatch.setattr(reader, "_pipeline", noted)
    await reader.load_after([Read("id", "1", ()), Read("username", "ada", ())], at(9))
    first, second = sent
    name, row = written.header("ada"), written.header("1")
    assert first == [*sorted([name, row], key=written.keys.headers.index), written.key("1"), written.claim_key("ada")]
    assert second == [row, written.key("1")]


@pytest.mark.servers
async def test_a_write_that_a_read_has_waited_for_is_never_missing_under_constant_changes(written: Written) -> None:
    reader, stop = loader(written.redis), asyncio.Event()

    async def change() -> None:
        offset = 10
        while not stop.is_set():
            offset += 1
            await written.apply("1", offset, {"1": offset})

    changing = asyncio.create_task(change())
    try:
        for offset in range(20, 420):
            # what lies at an offset has made the count one more than that
            (count,) = await tweet_counts(await reader.load_after(ADAS_TWEETS, at(offset)))
            assert count > offset
    finally:
        stop.set()
        await changing


@pytest.mark.servers
async def test_a_generation_that_becomes_live_while_one_waits_is_the_one_that_is_waited_for(written: Written) -> None:
    reader = loader(written.redis)
    reading = asyncio.create_task(reader.load_after(ADAS_TWEETS, at(15)))
    await until(lambda: waiting(reader), 20)
    new = Written(written.redis, "g2")
    await new.write([user(1, "ada", (42, 0, 0, 0))])
    await new.apply("2", 99)
    await until(lambda: opened(reader, "g2"), 20)
    assert not reading.done()
    # the old one is kept up to date too, and is no longer what is read
    await written.apply("1", 16, {"1": 4})
    await new.apply("1", 16, {"1": 43})
    answer = await asyncio.wait_for(reading, 20)
    assert (answer.rows, answer.generation) == ([[b"43"]], "g2")


async def opened(reader: ViewLoader, name: str) -> None:
    if reader._live is None or reader._live.record.name != name:
        raise NotReadyError(f"not {name}")


@pytest.mark.servers
async def test_a_shard_that_was_built_again_is_read_under_its_new_build_though_its_old_row_is_still_there(written: Written) -> None:
    reader = loader(written.redis)
    await reader.load(ADAS_TWEETS)
    await written.redis.hset(written.header("1"), mapping={"state": "building", "build": "again"})
    with pytest.raises(ViewNotReady, match="is building"):
        await reader.load_after(ADAS_TWEETS, at(5))
    rebuilt = written.keys.rows_prefix(written.keys.shard("1"), "again") + "1"
    await written.redis.hset(rebuilt, mapping=written.encoded(BY_ID["1"] | {"tweet_count": 9}))
    await written.redis.hset(written.header("1"), "state", "live")
    assert (await reader.load_after(ADAS_TWEETS, at(5))).rows == [[b"9"]]
    await written.redis.delete(written.header("1"))
    with pytest.raises(ViewNotReady, match="is lost"):
        await reader.load_after(ADAS_TWEETS, at(5))


@pytest.mark.servers
async def test_a_partition_that_the_generation_does_not_read_is_an_error_that_says_what_it_reads(written: Written) -> None:
    for partition in (Partition("tweets", 7), Partition("orders", 0)):
        with pytest.raises(BadAfter, match=rf"{partition}:1 .*reads tweets, users"):
            await loader(written.redis).load_after(ADAS_TWEETS, [Token(partition, 1)])


@pytest.mark.servers
async def test_however_many_wait_redis_is_asked_once_each_time(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_module, "POLL_SECONDS", 0.02)
    reader, rounds, asked = loader(written.redis), 0, 0
    send, ask = reader._polls._send, reader._polls.ask

    async def counted(commands: Sequence[tuple[str, ...]]) -> list[Any]:
        nonlocal rounds
        rounds += 1
        # the pointer, and the header of the shard that all of them wait for
        assert len(commands) == 2
        return await send(commands)

    async def noted(commands: Sequence[tuple[str, ...]]) -> list[Any]:
        nonlocal asked
        asked += 1
        return await ask(commands)

    async def all_wait() -> None:
        if asked < 30 or rounds < 2:
            raise NotReadyError(f"asked {asked} times")

    monkeypatch.setattr(reader._polls, "_send", counted)
    monkeypatch.setattr(reader._polls, "ask", noted)
    reading = [asyncio.create_task(reader.load_after(ADAS_TWEETS, at(10))) for _ in range(30)]
    began = time.monotonic()
    await until(all_wait, 20)
    for task in reading[:10]:
        task.cancel()
    await written.apply("1", 11, {"1": 4})
    answers = await asyncio.gather(*reading, return_exceptions=True)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 10 + [Rows] * 20
    assert rounds <= (time.monotonic() - began) / 0.02 + 1
    assert asked > 2 * rounds


async def test_a_mode_that_keeps_no_positions_refuses_and_a_fallback_does_not_pretend() -> None:
    sql = MemoryLoader(mode="sql")
    fallback = FallbackLoader(MemoryLoader(error=ViewNotReady("Shard 3 is lost.")), sql, 1, 1.0)
    with pytest.raises(AfterUnsupported, match="keeps no positions"):
        await fallback.load_after(ADAS_TWEETS, at(1))
    assert (await fallback.load(ADAS_TWEETS)).mode == "sql"
    assert len(sql.loads) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("users:0:42", [Token(Partition("users", 0), 42)]),
        ("app.public.users:11:0", [Token(Partition("app.public.users", 11), 0)]),
        ("users:0:42, tweets:3:7,users:0:41", [Token(Partition("users", 0), 42), Token(Partition("tweets", 3), 7)]),
        ("users:0:41,users:0:42", [Token(Partition("users", 0), 42)]),
    ],
)
def test_tokens_are_read_as_they_are_written(text: str, found: list[Token]) -> None:
    assert tokens(text) == found
    assert tokens(",".join(map(str, found))) == found


@pytest.mark.parametrize(
    "text", ["", "users", "users:0", "users:0:", ":0:1", "users:0:-1", "us ers:0:1", "users:0:1:2", "users:0:1,", "a:0:" + "9" * 19]
)
def test_what_is_no_token_is_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(MalformedToken, match="topic:partition:offset, such as users:0:42"):
        tokens(text)


@pytest.mark.parametrize("text", ["16/B374D848", "23910", "lsn:16/B374D848", "xid:772", "users:0:1,0/0"])
def test_what_a_cdc_writer_knows_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(TokenUnsupported, match="it cannot be waited for"):
        tokens(text)


ADA = {"query": '{ user(id: "1") { tweetCount } }'}


@pytest.mark.servers
async def test_over_http_a_write_is_waited_for_or_refused_by_a_code(written: Written, open_gateway: Open) -> None:
    client = await open_gateway(after_wait_seconds=0.05)
    answer = await client.post("/graphql", json=ADA, headers={"viewgate-after": "tweets:0:9"})
    assert answer.json() == {"data": {"user": {"tweetCount": 3}}}
    for token, code in (("tweets:0:10", "NOT_YET"), ("orders:0:1", "BAD_AFTER")):
        answer = await client.get("/graphql", params=ADA, headers={"viewgate-after": token})
        assert (answer.status_code, answer.json()["data"]) == (200, {"user": None})
        assert answer.json()["errors"][0]["extensions"] == {"code": code}
        assert answer.headers["viewgate-mode"] == "view"
    for token, code in (("now", "BAD_AFTER"), ("0/16B3748", "AFTER_UNSUPPORTED")):
        answer = await client.post("/graphql", json=ADA, headers={"viewgate-after": token})
        assert (answer.status_code, answer.json()["errors"][0]["extensions"]) == (400, {"code": code})
    for mode in ("sql", "cache-aside", "cache-invalidate"):
        answer = await client.post("/graphql", json=ADA, headers={"viewgate-after": "tweets:0:9", "viewgate-mode": mode})
        assert answer.json()["errors"][0]["extensions"] == {"code": "AFTER_UNSUPPORTED"}
        assert "ask in mode view" in answer.json()["errors"][0]["message"]
    assert 'viewgate_requests_total{mode="view",outcome="NOT_YET"} 1.0' in (await client.get("/metrics")).text


@pytest.mark.servers
async def test_over_http_a_fallback_says_why_it_cannot_have_the_write(written: Written, open_gateway: Open) -> None:
    client = await open_gateway(fallback="sql")
    await written.redis.delete(written.header("1"), written.key("1"))
    assert (await client.post("/graphql", json=ADA)).headers["viewgate-fallback"] == "NOT_READY"
    error = (await client.post("/graphql", json=ADA, headers={"viewgate-after": "tweets:0:9"})).json()["errors"][0]
    assert error["extensions"] == {"code": "AFTER_UNSUPPORTED"}
    assert "(NOT_READY: Shard " in error["message"]


async def test_an_answer_says_its_age_in_extensions_where_that_is_asked_for(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    for asked in ("true", "1", "True"):
        answer = (await client.post("/graphql", json=ADA, headers={"viewgate-extensions": asked})).json()
        found = answer["extensions"]["viewgate"]
        age_ms = found.pop("ageMs")
        assert abs(time.time() * 1000 - FRESH_MS - age_ms) < 60_000
        assert found == {"mode": "view", "generation": "g1", "asOf": "2023-11-14T22:13:20.123Z", "fallback": None}
        assert answer["data"] == {"user": {"tweetCount": 3}}
    for headers in ({}, {"viewgate-extensions": "false"}, {"viewgate-extensions": "0"}):
        plain = await client.post("/graphql", json=ADA, headers=headers)
        assert plain.content == b'{"data":{"user":{"tweetCount":3}}}'
    refused = await client.post("/graphql", json=ADA, headers={"viewgate-extensions": "yes"})
    assert (refused.status_code, refused.json()["errors"][0]["extensions"]) == (400, {"code": "BAD_REQUEST"})


async def test_errors_stand_beside_the_extensions_which_then_say_no_age(open_over: Open) -> None:
    client = await open_over(MemoryLoader(error=ViewNotReady("No generation is live.")))
    answer = (await client.post("/graphql", json=ADA, headers={"viewgate-extensions": "1"})).json()
    assert answer["errors"][0]["extensions"] == {"code": "NOT_READY"}
    assert answer["extensions"]["viewgate"] == {"mode": "view", "generation": None, "asOf": None, "ageMs": None, "fallback": None}


async def test_extensions_name_the_mode_that_answered_in_place_of_the_view(open_over: Open) -> None:
    fallback = FallbackLoader(MemoryLoader(error=ViewNotReady("lost")), MemoryLoader(mode="sql"), 1, 1.0)
    answer = (await (await open_over(fallback)).post("/graphql", json=ADA, headers={"viewgate-extensions": "1"})).json()
    assert answer["extensions"]["viewgate"] | {"ageMs": 0, "asOf": ""} == {
        "mode": "sql",
        "generation": None,
        "asOf": "",
        "ageMs": 0,
        "fallback": "NOT_READY",
    }


@pytest.fixture
async def road(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Road]:
    async with open_road(kafka_at, redis_at, postgres_at, partitions=2) as laid:
        yield laid


async def test_a_writer_sees_its_own_writes_through_kafka_and_a_projector_and_others_shards_make_nobody_wait_long(road: Road) -> None:
    joined, now = datetime(2026, 1, 1, tzinfo=UTC), 1_767_225_600_000
    ada = Users(1, "ada", None, None, None, None, joined, None, None)
    await road.publisher.acknowledged("c", None, ada, now)
    await road.project()
    view = ViewLoader(road.redis, road.definition, wait_seconds=10)
    await until(lambda: ready(view), 60)
    read = Read("id", "1", ("tweet_count",))
    for number in range(20):
        token = await road.publisher.acknowledged("c", None, Tweets(number, 1, "x", joined), now + number)
        assert token.partition.topic == f"{road.settings.topic_prefix}tweets"
        assert (await view.load_after([read], [token])).rows == [[str(number + 1).encode()]]
    # a rename touches the old and the new name's shards; what was never written to has no change to show, and has passed it all the same
    token = await road.publisher.acknowledged("u", ada, msgspec.structs.replace(ada, username="countess"), now + 99)
    by_name = [Read("username", name, ("id",)) for name in ("ada", "countess")]
    assert (await view.load_after(by_name, [token])).rows == [None, [b'"1"']]
    strangers = [Read("id", str(key), ("id",)) for key in range(1000, 1100)]
    assert (await view.load_after(strangers, [token])).rows == [None] * 100


async def ready(view: ViewLoader) -> None:
    try:
        await view.ready()
    except ViewNotReady as not_ready:
        raise NotReadyError(str(not_ready)) from not_ready


def test_a_layout_that_spreads_rows_is_what_these_tests_are_about() -> None:
    keys = layout.Layout("User", "g1", layout.SHARDS)
    assert len({keys.shard(text) for text in ("1", "2", "ada", "99")}) == 4
