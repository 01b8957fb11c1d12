"""`viewgate dead-letters` on a real road: what yesterday's decoders refused, listed, and brought in by those of today."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from app.letters import open_letters
from demo.publish import envelope
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from projectors.generations import Generations
from projectors.letters import Letter
from schema.layout import Layout
from tests.commands.running import run, start
from tests.faults.snapshots import dump, restore
from tests.faults.stricter import Likes, People, PersonView
from tests.road import Road, open_road, variables

MS = 1_767_323_045_000
YESTERDAY = "tests.faults.stricter:StrictView"
CREATED = envelope("c", None, Likes(1, 1, ""), MS)


@pytest.fixture
async def road(apache_kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Road]:
    async with open_road(apache_kafka_at, redis_at, postgres_at, view=PersonView, partitions=2) as opened:
        changed = {"view": "tests.faults.stricter:PersonView", "checkpoint_seconds": 0.2}
        opened.settings = opened.settings.model_copy(update=changed)
        yield opened


async def letters(road: Road, *arguments: str, **settings: str) -> tuple[int | None, str, str]:
    return await run("dead-letters", *arguments, **variables(road.settings) | settings)


async def listed(road: Road, *arguments: str) -> dict[str, dict[str, Any]]:
    """By position."""
    code, out, err = await letters(road, "list", "--limit", "1000", "--json", *arguments)
    assert (code, err) == (0, "")
    return {letter["position"]: letter for letter in json.loads(out)}


async def buried(road: Road, count: int) -> list[Letter]:
    """Once there are so many."""
    found: list[Letter] = []

    async def look() -> None:
        async with open_letters(road.settings, road.definition) as opened:
            found[:] = opened.letters
        if len(found) < count:
            raise NotReadyError(f"{len(found)} of {count} letters")

    await until(look, 120)
    return found


def publish(road: Road, people: int, likes: int) -> int:
    """So many of each; how many of them yesterday's decoders refuse."""
    rows: list[People | Likes] = [People(number, f"name{number}", None if number % 5 == 4 else 1990) for number in range(people)]
    rows += [Likes(number, number % people, None if number % 3 == 0 else "") for number in range(likes)]
    for row in rows:
        road.publisher.publish("c", None, row, MS)
    road.publisher.flush()
    return sum(None in msgspec.structs.astuple(row) for row in rows)


async def kept_by_yesterday(road: Road, people: int, likes: int) -> int:
    """A view that lacks what yesterday's decoders refuse; how many letters there are."""
    dead = publish(road, people, likes)
    process = await road.start("-m", "app", "project", VIEWGATE_VIEW=YESTERDAY)
    await buried(road, dead)

    right = sum(number % 3 != 0 and number % people % 5 != 4 for number in range(likes))

    async def level() -> None:
        counted = sum(int(fields["like_count"]) for fields in (await road.in_view()).values())
        if counted != right:
            raise NotReadyError(f"{counted} likes of {right}")

    await until(level, 120)
    process.kill()
    await process.wait()
    return dead


async def test_letters_are_listed_and_brought_in_once_also_when_redis_loses_it_again(road: Road) -> None:
    dead = await kept_by_yesterday(road, 10, 60)
    found = await listed(road)
    assert len(found) == dead
    assert {letter["state"] for letter in found.values()} == {"decodes now"}
    prefix = road.settings.topic_prefix
    reasons = {(letter["position"].split(":")[0], letter["reason"]) for letter in found.values()}
    assert reasons == {
        (f"{prefix}people", "Expected `int`, got `null` - at `$.after.born`"),
        (f"{prefix}likes", "Expected `str`, got `null` - at `$.after.note`"),
    }
    assert len(await listed(road, "--topic", "people", "--reason", "$.after.BORN")) == 2
    code, out, _ = await letters(road, "count", "--json")
    assert [(one["letters"], one["state"]) for one in json.loads(out)] == [(20, "decodes now"), (2, "decodes now")]
    one = next(position for position in found if "people" in position)
    code, out, _ = await letters(road, "show", one)
    assert (code, '"born": null' in out, "today: it decodes, op c, and touches" in out) == (0, True, True), out

    before = await road.in_view()
    code, out, err = await letters(road, "replay", "--dry-run")
    assert (code, err, "letters: 22, decode now: 22, rows that they touch: 10" in out) == (0, "", True), out
    assert await road.in_view() == before
    await road.project()
    await road.sunk()
    live = await Generations(road.redis, road.definition).read("g1")
    assert live is not None
    keys = Layout(road.definition.name, "g1", live.shards)
    snapshot = await dump(road.redis, keys)

    code, out, err = await letters(road, "replay", one)
    assert (code, err, "letters: 1, decode now: 1, rows that they touch: 1" in out) == (0, "", True), out + err
    assert [letter.position for letter in await buried(road, dead) if letter.state == "replayed"] == [one]
    code, out, err = await letters(road, "replay")
    assert (code, err) == (0, "")
    assert await road.agree(120) == 10
    code, out, err = await letters(road, "replay")
    assert (code, err, "g1: 10 rows are right, 0 fields of them were not." in out) == (0, "", True), out
    assert {(letter.state, letter.replayed) for letter in await buried(road, dead)} == {("replayed", "g1")}

    # a failover: what was brought in is lost, the projector goes on beside it, and another replay brings it in again
    await restore(road.redis, snapshot)
    road.publisher.publish("c", None, Likes(1000, 4, None), MS)
    await road.sunk()
    code, out, err = await letters(road, "replay")
    assert (code, err) == (0, "")
    assert await road.agree(120) == 10


async def test_a_replay_that_is_killed_again_and_again_counts_nothing_twice(road: Road) -> None:
    await kept_by_yesterday(road, 100, 600)
    await road.project()
    rng = random.Random(1)
    for _ in range(6):
        child = await start("dead-letters", "replay", **variables(road.settings))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), rng.uniform(0.5, 2.5))
        if child.returncode is None:
            child.kill()
        await child.communicate()
    code, out, err = await letters(road, "replay")
    assert (code, err) == (0, ""), out
    await road.sunk()
    assert await road.agree(120) == 100


POISON = {
    b"key of another type": (CREATED.replace(b'"like_id":1', b'"like_id":"x"'), "$.after.like_id"),
    b"no key": (CREATED.replace(b'"like_id":1,', b""), "missing required field `like_id`"),
    b"a float": (CREATED.replace(b'"user_id":1', b'"user_id":1.5'), "$.after.user_id"),
    b"a number as a string": (CREATED.replace(b'"user_id":1', b'"user_id":"1"'), "Expected `int`, got `str`"),
    b"null": (CREATED.replace(b'"user_id":1', b'"user_id":null'), "Expected `int`, got `null`"),
    b"unknown op": (CREATED.replace(b'"c"', b'"[/red]"'), "[/red]"),
    b"utf-8": (CREATED.replace(b'"note":""', b'"note":"\xff"'), ""),
    b"malformed": (CREATED[:-9], ""),
    b"": (CREATED, "the record has no key"),
    b"control": (CREATED.replace(b'"c"', b'"\\u001b[2J"'), ""),
}


async def test_each_kind_of_record_that_does_not_decode_is_listed_with_its_reason_and_erase_takes_it_out(road: Road) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=road.settings.kafka_bootstrap)
    await producer.start()
    sent = {}
    try:
        for key, (value, reason) in POISON.items():
            told = await producer.send_and_wait(f"{road.settings.topic_prefix}likes", value, key=key or None)
            sent[f"{told.topic}:{told.partition}:{told.offset}"] = reason
    finally:
        await producer.stop()
    for number in range(4):
        road.publisher.publish("c", None, People(number, f"name{number}", 1990), MS)
        road.publisher.publish("c", None, Likes(number, number, None), MS)
    await road.project()
    await road.sunk()
    assert await road.agree(120) == 4
    found = await listed(road)
    assert found.keys() == sent.keys()
    assert {letter["state"] for letter in found.values()} == {"dead"}
    assert [position for position, reason in sent.items() if reason not in found[position]["reason"]] == []
    assert all(letter["reason"] and letter["problem"] for letter in found.values())
    code, out, err = await letters(road, "list")
    assert (code, err, "\x1b" in out, "[/red]" in out) == (0, "", False, True), out
    (spoilt,) = [position for position, letter in found.items() if "'utf-8' codec" in letter["reason"]]
    code, out, err = await letters(road, "show", spoilt)
    assert (code, err, 'value: {"op":"c"' in out, "\\xff" in out) == (0, "", True, True), out
    code, out, err = await letters(road, "replay")
    assert (code, "letters: 10, decode now: 0" in out) == (0, True), out

    code, out, err = await run("erase", "1", "--force", *("--json",), **variables(road.settings))
    (line,) = [line for line in json.loads(out) if line["place"].startswith("dead letters")]
    assert line["found"].startswith("6 of 10; 2 that cannot be read"), line
    assert len(await listed(road)) == 4
    code, _, err = await letters(road, "show", f"{road.settings.topic_prefix}likes:0:12345")
    assert (code, "`viewgate dead-letters list` tells where they lay" in err) == (1, True)


async def test_a_letter_of_10_mb_is_kept_cut_and_read_where_it_lay(road: Road) -> None:
    topic, bootstrap = f"{road.settings.topic_prefix}likes", road.settings.kafka_bootstrap
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "20000000"})])
    await admin.close()
    large = msgspec.json.decode(envelope("c", None, Likes(7, 1, None), MS)) | {"padding": "x" * 5_000_000}
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=20_000_000)
    await producer.start()
    try:
        road.publisher.publish("c", None, People(1, "name1", 1990), MS)
        await producer.send_and_wait(topic, msgspec.json.encode(large), key=b"7")
        await producer.send_and_wait(topic, b"x" * 10_000_000, key=b"7")
        road.publisher.publish("c", None, Likes(8, 1, ""), MS)
        road.publisher.flush()
    finally:
        await producer.stop()
    process = await road.start("-m", "app", "project", VIEWGATE_VIEW=YESTERDAY)
    letter, larger = await buried(road, 2)
    assert (letter.state, letter.topic, larger.state) == ("cut", topic, "cut")
    assert larger.reason.startswith("the value has 10,000,000 bytes")
    code, out, _ = await letters(road, "show", letter.position)
    assert (code, "today: it decodes, op c, and touches 1" in out, len(out) < 20_000) == (0, True, True)

    async def counted() -> None:
        if (fields := (await road.in_view()).get("1")) is None or fields["like_count"] != b"1":
            raise NotReadyError(str(fields))

    await until(counted, 120)
    process.kill()
    await process.wait()
    await road.project()
    code, out, err = await letters(road, "replay")
    assert (code, err, "like_count from 1 to 2" in out) == (0, "", True), out
    assert "do not decode: 1, the value has 10,000,000 bytes" in out
    await road.sunk()
    assert await road.agree(120) == 1


async def test_without_letters_or_a_generation_it_says_so(road: Road) -> None:
    assert await letters(road, "list", "--json") == (0, "[]\n", "")
    code, out, err = await letters(road, "replay")
    assert (code, out, err) == (0, "letters: 0, decode now: 0, rows that they touch: 0\n", "")
    publish(road, 1, 1)
    process = await road.start("-m", "app", "project", VIEWGATE_VIEW=YESTERDAY)
    await buried(road, 1)
    process.kill()
    await process.wait()
    await road.redis.flushall()
    code, _, err = await letters(road, "replay")
    assert (code, "`viewgate rebuild` builds one, which reads these records by itself" in err) == (1, True), err
    code, _, err = await letters(road, "list", VIEWGATE_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert (code, "viewgate doctor" in err) == (1, True)
