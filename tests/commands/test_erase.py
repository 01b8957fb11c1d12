"""`viewgate erase`: a person out of every place on a real road, and a stranger beside them who loses nothing."""

import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError

from app.topics import dead_letters
from demo.servers.kafka import create_topics
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from projectors.dead_letters import POSITION, Owner, find_letters, position, remove_letters
from projectors.log import Record
from projectors.topic_reader import KafkaReader
from schema import layout
from schema.definition import read_definition
from schema.fields import Row
from schema.loader import Read
from schema.user import UserView
from tests.commands.running import run
from tests.faults.arranged import NAMES, follow, user
from tests.request.arranged import View
from tests.request.arranged import user as fields
from tests.request.cached import cached, entry, settled
from tests.road import Road, open_road, variables

PERSON, STRANGER = user(1, "ada", "Ada"), user(2, "bob", "Bob")
# each is no change: a column is missing, or the op; the last but one is keyed by a tweet's id, not a user's
LETTERS: list[tuple[str, bytes, bytes]] = [
    ("follows", b"9", b'{"op": "c", "after": {"follow_id": 9, "follower_id": 1}}'),
    ("users", b"1", b"ada, but no JSON"),
    ("follows", b"9", b'{"op": "c", "after": {"follow_id": 9, "follower_id": 2, "followee_id": 11}}'),
    ("tweets", b"1", b'{"after": {"tweet_id": 1, "user_id": 2}}'),
    ("likes", b"5", b"no JSON"),
]
OTHERS = {letter[2] for letter in LETTERS[2:]}


@pytest.fixture
async def road(apache_kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Road]:
    async with open_road(apache_kafka_at, redis_at, postgres_at, partitions=2) as opened:
        yield opened


def publish(road: Road, op: str, before: Row | None, after: Row | None) -> None:
    road.publisher.publish(op, before, after, time.time_ns() // 1_000_000)


async def erase(road: Road, *arguments: str, **settings: str) -> tuple[int | None, dict[str, tuple[str, str]], str]:
    """Exit code, found and done by place, errors."""
    code, out, err = await run("erase", *arguments, "--json", **variables(road.settings) | settings)
    lines = json.loads(out) if out else []
    return code, {line["place"].partition(",")[0]: (line["found"], line["done"]) for line in lines}, err


@asynccontextmanager
async def letters_of(bootstrap: str, topic: str) -> AsyncIterator[KafkaReader]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="none", isolation_level="read_committed")
    await consumer.start()
    try:
        yield KafkaReader(consumer, [topic])
    finally:
        await consumer.stop()


async def read_letters(bootstrap: str, topic: str) -> list[tuple[int, Record]]:
    """Each with its partition."""
    async with letters_of(bootstrap, topic) as reader:
        bounds = await reader.bounds()
        return [(at.number, letter) for at, (first, end) in bounds.items() async for letter in reader.records(at, first, end)]


async def buried(road: Road, count: int) -> None:
    found = await read_letters(road.settings.kafka_bootstrap, dead_letters(road.settings, road.definition))
    if len(found) < count:
        raise NotReadyError(f"{len(found)} letters")


async def keep_in_cache(road: Road, *names: str) -> None:
    cache = cached(road.redis, road.sql, definition=road.definition)
    rows = await cache.load([Read("username", name, NAMES) for name in names])
    assert None not in rows.rows
    await settled(cache)


async def write_older_generation(road: Road) -> View:
    """g2, retired, of another definition: no projector writes it any more."""
    view = View(road.redis, "g2", "old0", definition=road.definition)
    record = msgspec.structs.replace(view.record, definition="another", state="retired")
    for stored in (fields(1, "ada", name="Ada"), fields(2, "bob", (0, 0, 4, 0), name="Bob")):
        await road.redis.hset(view.header(stored["id"]), mapping={"state": "live", "build": "old0"})
        await road.redis.hset(view.header(stored["username"]), mapping={"state": "live", "build": "old0"})
        await road.redis.hset(view.key(stored["id"]), mapping=view.encoded(stored))
        await road.redis.hset(view.claim_key(stored["username"]), stored["id"], "1:1")
    await road.redis.set(layout.generation_key(road.definition.name, "g2"), record.encode())
    await road.redis.sadd(layout.generations_key(road.definition.name), "g2")
    return view


async def dump(road: Road) -> dict[bytes, Any]:
    """All rows and claims, and what is cached."""
    keys = [key async for key in road.redis.scan_iter("user:*") if b"}:" in key or b"}@" in key or b":cache-" in key]
    return {key: await road.redis.dump(key) for key in keys}


async def test_a_person_is_erased_everywhere_and_a_stranger_loses_nothing(road: Road) -> None:
    for row in (PERSON, STRANGER, follow(7, 1, 2), follow(8, 2, 1)):
        publish(road, "c", None, row)
    for lost in LETTERS:
        road.publisher.send(*lost)
    await road.project()
    await road.sunk()
    assert await road.agree() == 2
    await until(lambda: buried(road, len(LETTERS)), 30)
    older = await write_older_generation(road)
    await keep_in_cache(road, "ada", "bob")

    before = await dump(road)
    code, _, err = await erase(road, "1")
    assert code == 1
    assert "PostgreSQL still has them: 1 in users.user_id, 1 in follows.follower_id, 1 in follows.followee_id." in err
    code, shown, err = await erase(road, "1", "--dry-run")
    assert (code, err) == (0, "")
    assert shown["generation g1 (live)"][0] == "profile, username ada, following_count 1, follower_count 1"
    assert shown["generation g2 (retired)"] == ("profile, username ada", "would be erased")
    assert shown["caches"] == ("entries: 2", "would be erased")
    assert shown["dead letters"][0].startswith("2 of 5; 1 that cannot be read: ")
    assert await dump(road) == before

    publish(road, "d", follow(7, 1, 2), None)
    publish(road, "d", follow(8, 2, 1), None)
    publish(road, "d", PERSON, None)
    # the name is somebody else's now, in the view and in the cache
    publish(road, "u", STRANGER, user(2, "ada", "Bob"))
    await road.sunk()
    assert await road.agree() == 1
    await road.redis.delete(layout.cache_key("User", "cache-aside", "username", "ada"))
    await keep_in_cache(road, "ada")

    code, told, err = await erase(road, "1", "--username", "ada")
    assert (code, err) == (0, "")
    assert told["PostgreSQL"] == ("nothing", "-")
    assert told["generation g1 (live)"] == ("nothing", "-")
    assert told["generation g2 (retired)"] == ("profile, username ada", "erased")
    assert told["caches"] == ("entries: 1", "erased")
    assert told["dead letters"][1] == "erased; 3 others written again"

    left = await dump(road)
    assert [key for key in left if key.endswith((b":1", b":1}", b"g2.old0:{12d}@username:ada"))] == []
    stranger = [key for key in before if key.endswith((b":2", b":2}", b":bob", b":bob}")) and not key.startswith(b"user:g1")]
    assert len(stranger) == 4
    assert [key for key in stranger if left.get(key) is None] == []
    assert await road.redis.hgetall(older.key("2")) == {
        key.encode(): value for key, value in older.encoded(fields(2, "bob", (0, 0, 4, 0), name="Bob")).items()
    }
    assert (await entry(road.redis, "username", "ada")).row == [b'"2"']
    assert (await road.view.load([Read("username", "ada", ("id",))])).rows == [[b'"2"']]
    assert await road.agree() == 1
    kept = await read_letters(road.settings.kafka_bootstrap, dead_letters(road.settings, road.definition))
    assert {letter.value for _, letter in kept} == OTHERS
    assert all(position(letter).startswith(road.settings.topic_prefix) for _, letter in kept)

    code, again, err = await erase(road, "1", "--username", "ada")
    assert (code, err) == (0, "")
    ours = {place: found for place, (found, _) in again.items() if place.startswith(("generation", "cache", "PostgreSQL"))}
    assert set(ours.values()) == {"nothing"}
    assert again["dead letters"][0].startswith("nothing; 1 that cannot be read")


async def test_a_view_that_does_not_follow_is_told_and_force_erases_what_is_there(road: Road) -> None:
    publish(road, "c", None, PERSON)
    publish(road, "c", None, STRANGER)
    projector = await road.project()
    await road.sunk()
    await road.agree()
    projector.kill()
    await projector.wait()
    publish(road, "d", PERSON, None)
    await road.sunk()
    code, told, err = await erase(road, "1", "--wait", "0.5")
    assert code == 1
    found, done = told["generation g1 (live)"]
    assert found == "profile, username ada"
    assert re.fullmatch(r"not erased: it is \d records behind Kafka", done)
    assert "viewgate project" in err
    away = "postgresql://127.0.0.1:1/none"
    code, _, err = await erase(road, "1", VIEWGATE_POSTGRES_URL=away)
    assert (code, "PostgreSQL cannot be asked" in err) == (1, True)
    code, told, err = await erase(road, "1", "--force", VIEWGATE_POSTGRES_URL=away)
    assert (code, err) == (0, "")
    assert told["PostgreSQL"] == ("cannot be asked", "not looked at")
    assert told["generation g1 (live)"] == ("profile, username ada", "erased")
    assert [key for key in await dump(road) if key.endswith((b":1", b":ada"))] == []
    # what the projector had not applied yet comes on top
    await road.project()
    assert await road.agree() == 1


async def test_names_that_only_the_cache_knows_are_found_by_its_row_or_by_a_scan(road: Road) -> None:
    async def keeps_her() -> None:
        publish(road, "c", None, PERSON)
        await road.sunk()
        await keep_in_cache(road, "ada")
        publish(road, "d", PERSON, None)
        await road.sunk()

    await keeps_her()
    assert (await erase(road, "1"))[1]["caches"] == ("entries: 2", "erased")
    await keeps_her()
    await road.redis.delete(layout.cache_key("User", "cache-aside", "id", "1"))
    assert (await erase(road, "1"))[1]["caches"] == ("nothing", "-")
    assert (await erase(road, "1", "--scan"))[1]["caches"] == ("entries: 1", "erased")
    assert await dump(road) == {}


async def test_letters_on_a_topic_that_deletes_none_are_told_and_left_as_they_are(road: Road) -> None:
    topic = dead_letters(road.settings, road.definition)
    await create_topics(road.settings.kafka_bootstrap, {topic: 1}, {"cleanup.policy": "compact"})
    road.publisher.send("user.dead-letters", b"1", b'{"user_id": 1}')
    road.publisher.flush()
    code, told, err = await erase(road, "1")
    assert (code, told["dead letters"]) == (1, ("1 of 1", "not erased"))
    assert f"{topic} still has 1 letters of theirs: the broker does not delete records of it (PolicyViolationError" in err
    assert len(await read_letters(road.settings.kafka_bootstrap, topic)) == 1


async def test_letters_lose_nothing_when_their_removal_is_broken_off(apache_kafka_at: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap, topic = apache_kafka_at.address, "broken-off.dead-letters"
    await create_topics(bootstrap, {topic: 2})
    owner = Owner(read_definition(UserView), "1")
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await admin.start()
    await producer.start()
    try:
        for number, (name, key, value) in enumerate(LETTERS):
            headers = [("own", b"kept"), (POSITION, f"{name}:0:{number}".encode())]
            await producer.send_and_wait(topic, value, key, number % 2, 1000 + number, headers)
        delete, calls = admin.delete_records, []

        async def break_off(records: Any) -> Any:
            calls.append(records)
            if len(calls) == 2:
                raise KafkaConnectionError
            return await delete(records)

        monkeypatch.setattr(admin, "delete_records", break_off)
        async with letters_of(bootstrap, topic) as reader:
            with pytest.raises(KafkaConnectionError):
                await remove_letters(reader, owner, await find_letters(reader, owner), producer, admin)
            letters = await find_letters(reader, owner)
            assert (letters.own, letters.others) == (2, 6)
            await remove_letters(reader, owner, letters, producer, admin)
            letters = await find_letters(reader, owner)
            assert (letters.own, letters.others) == (0, 3)
    finally:
        await producer.stop()
        await admin.close()
    kept = {(at, one.key, one.value, one.timestamp, tuple(one.headers)) for at, one in await read_letters(bootstrap, topic)}
    assert kept == {
        (number % 2, key, value, 1000 + number, (("own", b"kept"), (POSITION, f"{name}:0:{number}".encode())))
        for number, (name, key, value) in enumerate(LETTERS)
        if value in OTHERS
    }


async def test_an_id_that_nobody_can_have_and_servers_that_are_away() -> None:
    code, out, err = await run("erase", "007")
    assert (code, out) == (1, "")
    assert "write 7" in err
    code, out, err = await run("erase", "7", VIEWGATE_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert (code, out) == (1, "")
    assert "viewgate doctor" in err
