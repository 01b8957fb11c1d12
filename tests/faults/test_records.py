"""Records that are no change, and changes that a generation cannot take."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import ConsumerRecord

from demo.publish import envelope
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from tests.faults.arranged import follow, like, user
from tests.faults.traffic import MS
from tests.road import Road, open_road

HEADERS = [("trace", b"\x00\xff"), ("trace", b"twice")]
CREATED = envelope("c", None, follow(1, 1, 2), MS)


def spoilt(**columns: Any) -> bytes:
    """A create of a follow with other columns."""
    change = msgspec.json.decode(CREATED)
    change["after"] |= columns
    return msgspec.json.encode({**change, "after": {name: value for name, value in change["after"].items() if value != "absent"}})


POISON = {
    b"bytes": b"\x00\x01\x02",
    b"empty": b"",
    b"utf-8": CREATED.replace(b'"c"', b'"c\xff"'),
    b"truncated": CREATED[:-9],
    b"trailing": CREATED + b"}",
    b"deep": b"[" * 100_000,
    b"list": b"[]",
    b"null": b"null",
    b"text": spoilt(follower_id="1"),
    b"float": spoilt(follower_id=1.5),
    b"no number": spoilt(follower_id=None),
    b"no column": spoilt(followee_id="absent"),
    b"other op": CREATED.replace(b'"c"', b'"x"'),
    b"no op": b'{"before":null,"after":null}',
    b"no after": envelope("c", None, None, MS),
    b"update without before": envelope("u", None, follow(1, 1, 2), MS),
    b"delete without before": envelope("d", None, None, MS),
    b"delete with after": envelope("d", follow(1, 1, 2), follow(1, 1, 2), MS),
    b"other key": envelope("u", follow(1, 1, 2), follow(2, 1, 2), MS),
}


async def test_only_what_is_no_change_is_buried_and_the_rest_goes_on(kafka_at: Server, redis_at: Server, postgres_at: Server) -> None:
    async with open_road(kafka_at, redis_at, postgres_at, partitions=2) as road:
        topic = f"{road.settings.topic_prefix}follows"
        producer = AIOKafkaProducer(bootstrap_servers=kafka_at.address)
        await producer.start()
        sent = {}
        try:
            for number, (key, value) in enumerate(POISON.items()):
                road.publisher.publish("c", None, user(number, f"user{number}"), MS)
                await producer.send_and_wait(topic, envelope("c", None, follow(number, number, 0), MS), key=b"good")
                sent[key] = await producer.send_and_wait(topic, value, key=key, headers=HEADERS)
                await producer.send_and_wait(topic, None, key=key)
        finally:
            await producer.stop()
        await road.project()
        await road.sunk()
        assert await road.agree() == len(POISON)
        letters = {letter.key: letter for letter in await dead_letters(road, len(POISON))}
        assert letters.keys() == POISON.keys()
        for key, letter in letters.items():
            position = f"{topic}:{sent[key].partition}:{sent[key].offset}"
            assert letter.value == POISON[key]
            assert letter.headers[:3] == (*HEADERS, ("viewgate-position", position.encode()))
            assert letter.headers[3][0] == "viewgate-reason"
            assert letter.headers[3][1]
        (row,) = [fields for key, fields in (await road.in_view()).items() if key == "0"]
        assert row["follower_count"] == b"%d" % len(POISON)


async def dead_letters(road: Road, count: int) -> list[ConsumerRecord]:
    """All of them."""
    consumer = AIOKafkaConsumer(
        f"{road.settings.topic_prefix}user.dead-letters",
        bootstrap_servers=road.settings.kafka_bootstrap,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    found: list[ConsumerRecord] = []

    async def all_there() -> None:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            found.extend(records)
        if len(found) < count:
            raise NotReadyError(f"{len(found)} of {count} dead letters")

    try:
        await until(all_there, 20)
        await consumer.getmany(timeout_ms=200)
        return found
    finally:
        await consumer.stop()


@pytest.mark.parametrize(("op", "sentence"), [("t", "was truncated at"), ("r", "a snapshot's row came at")])
async def test_what_a_live_generation_cannot_take_stops_the_projector_with_what_to_do(
    kafka_at: Server, redis_at: Server, postgres_at: Server, tmp_path: Path, op: str, sentence: str
) -> None:
    async with open_road(kafka_at, redis_at, postgres_at, partitions=1) as road:
        # rows of the connector's first snapshot build a generation
        for number in range(20):
            road.publisher.publish("r", None, user(number, f"user{number}"), MS)
            road.publisher.publish("r", None, like(number, number % 3), MS)
        road.publisher.flush()
        process = await road.start("-m", "app", "project", said=tmp_path / "said")
        await road.sunk()
        assert await road.agree() == 20
        before = await road.in_view()
        road.publisher.send("likes", b"5", envelope(op, None, like(5, 2) if op == "r" else None, MS))
        road.publisher.flush()
        await stopped(process, tmp_path / "said", sentence)
        # once more: it never gets past it, and adds nothing by trying
        await stopped(await road.start("-m", "app", "project", said=tmp_path / "again"), tmp_path / "again", sentence)
        assert await road.in_view() == before


async def stopped(process: asyncio.subprocess.Process, said: Path, sentence: str, todo: str = "Run `viewgate rebuild") -> None:
    """It ends with exit code 1 and says why, and what to do."""
    async with asyncio.timeout(30):
        assert await process.wait() == 1
    *_, last = said.read_text().strip().splitlines()  # noqa: ASYNC240  # the process that wrote it has ended
    assert last.startswith("The projector has stopped: ")
    assert sentence in last
    assert todo in last
