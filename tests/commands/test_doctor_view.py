"""`viewgate doctor` on a view that is not as it should be, each time in one way."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from demo.publish import Publisher
from demo.servers.server import Server
from projectors.topic_ids import topic_ids
from schema import layout
from schema.positions import Watermark
from schema.user import Tweets
from tests.commands.examined import PARTITIONS, Stack, configured, not_ok, open_stack, tell_as_of
from tests.request.arranged import USERS

CREATED = datetime(2025, 1, 1, tzinfo=UTC)
REST = ("definition", "shards", "as-of", "encoding")


@pytest.fixture
async def stack(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Stack]:
    async with open_stack(kafka_at, redis_at, postgres_at) as opened:
        yield opened


@pytest.mark.parametrize(("mode", "verdict"), [("view", "wrong"), ("sql", "warning")])
async def test_no_generation_is_wrong_where_the_view_answers(stack: Stack, mode: str, verdict: str) -> None:
    await stack.redis.flushall()
    found = await stack.examine(mode=mode)
    assert not_ok(found) == {("view", "generation"): verdict} | {("view", check): "skipped" for check in REST}
    assert found["view", "generation"].mend == "Start `viewgate project`: it builds one from Kafka's beginning."


async def test_a_generation_that_is_being_built_is_told_as_that(stack: Stack) -> None:
    await stack.redis.delete(layout.live_key(stack.definition.name))
    await _record(stack, state="building")
    pipeline = stack.redis.pipeline()
    for header in stack.view.keys.headers:
        pipeline.hset(header, "state", "building")
    await pipeline.execute()
    found = await stack.examine()
    assert not_ok(found) == {("view", "generation"): "wrong", ("view", "as-of"): "skipped"}
    assert found["view", "generation"].found == "none is live; g1 is building"


async def test_a_record_that_is_gone_is_wrong(stack: Stack) -> None:
    await stack.redis.delete(layout.generation_key(stack.definition.name, "g1"))
    found = await stack.examine()
    assert found["view", "generation"][2:4] == ("wrong", "g1 is live, but its record is gone from Redis")


async def test_another_definition_is_wrong_and_what_differs_is_named(stack: Stack) -> None:
    codes = {**stack.view.record.codes, "shoe_size": "z"}
    del codes["name"]
    start = {f"{topic}:0": 0 for topic in [*list(stack.definition.topics)[1:], "shoes"]}
    await _record(stack, definition="0123456789abcdef", codes=codes, start=start)
    found = await stack.examine()
    assert not_ok(found) == {("view", "definition"): "wrong"}
    assert found["view", "definition"].found.endswith(
        f"it lacks field name; it has field shoe_size; it lacks topic {stack.topic('users')}; it has topic shoes"
    )


async def test_another_definition_of_the_same_fields_is_wrong_too(stack: Stack) -> None:
    await _record(stack, definition="0123456789abcdef")
    found = await stack.examine()
    assert not_ok(found) == {("view", "definition"): "wrong"}
    assert "the fields are the same" in found["view", "definition"].found


async def test_shards_that_are_lost_failed_or_of_another_build_are_wrong(stack: Stack) -> None:
    headers = stack.view.keys.headers
    await stack.redis.delete(headers[3], headers[200])
    await stack.redis.hset(headers[7], "state", "failed")
    await stack.redis.hset(headers[9], "build", "c0de")
    found = await stack.examine()
    assert not_ok(found) == {("view", "shards"): "wrong"}
    assert found["view", "shards"].found == "lost: 3, 200; in another state: 7 is failed; of another build: 9"


@pytest.mark.parametrize(("seconds", "verdict"), [(5, "ok"), (30, "warning"), (90, "wrong")])
async def test_an_as_of_of_long_ago_is_told(stack: Stack, seconds: float, verdict: str) -> None:
    await tell_as_of(stack.view, seconds)
    found = await stack.examine()
    assert found["view", "as-of"].verdict == verdict
    assert set(not_ok(found)) <= {("view", "as-of")}


async def test_a_view_that_no_projector_speaks_of_is_wrong(stack: Stack) -> None:
    await stack.redis.delete(stack.view.keys.progress)
    assert not_ok(await stack.examine()) == {("view", "as-of"): "wrong"}


async def test_a_row_that_is_no_listpack_is_a_warning(stack: Stack) -> None:
    name = "hash-max-listpack-value" if await stack.redis.config_get("hash-max-listpack-value") else "hash-max-ziplist-value"
    async with configured(stack.redis, **{name: 8}):
        await stack.view.write(USERS)
    await tell_as_of(stack.view, seconds=0)
    found = await stack.examine()
    assert not_ok(found) == {("view", "encoding"): "warning"}
    assert f"{len(USERS)} of {len(USERS)} rows are no listpack" in found["view", "encoding"].found


async def test_a_watermark_that_kafka_can_go_on_from_is_fine(stack: Stack) -> None:
    await _watermarks(stack, tweets=0)
    assert not_ok(await stack.examine()) == {}


async def test_a_log_that_ends_before_the_watermark_is_wrong(stack: Stack) -> None:
    await _watermarks(stack, tweets=5)
    found = await stack.examine()
    assert not_ok(found) == {("view", "positions"): "wrong"}
    assert f"{stack.topic('tweets')}:1 ends at 0, the view has it up to 5" in found["view", "positions"].found


async def test_a_topic_that_was_made_anew_is_wrong(apache_kafka_at: Server, stack: Stack) -> None:
    await _watermarks(stack, topic_id="00000000-0000-0000-0000-000000000001", tweets=0)
    found = await stack.examine()
    assert not_ok(found) == {("view", "positions"): "wrong"}
    assert "of a topic that was made anew" in found["view", "positions"].found


async def test_a_partition_that_the_view_does_not_know_is_wrong(stack: Stack) -> None:
    await _watermarks(stack, tweets=0)
    pipeline = stack.redis.pipeline()
    for header in stack.view.keys.headers:
        pipeline.hdel(header, f"{stack.topic('likes')}:1")
    await pipeline.execute()
    found = await stack.examine()
    assert found["view", "positions"][2:4] == ("wrong", f"{stack.topic('likes')}:1 did not exist when the view was begun")


@pytest.mark.parametrize(
    ("watermark", "verdict", "told"),
    [(None, "wrong", "a first view needs it from 0"), (2, "wrong", "the view needs it from 2"), (3, "warning", "from the beginning again")],
)
async def test_a_beginning_that_is_gone_is_held_against_the_watermark(
    apache_kafka_at: Server, stack: Stack, watermark: int | None, verdict: str, told: str
) -> None:
    await _cut(apache_kafka_at.address, stack)
    if watermark is None:
        await stack.redis.flushall()
    else:
        await _watermarks(stack, tweets=watermark)
    found = await stack.examine()
    assert found["view", "positions"].verdict == verdict
    assert told in found["view", "positions"].found
    assert stack.topic("users") not in found["view", "positions"].found


async def _record(stack: Stack, **changed: object) -> None:
    record = msgspec.structs.replace(stack.view.record, **changed)
    await stack.redis.set(layout.generation_key(stack.definition.name, "g1"), record.encode())


async def _watermarks(stack: Stack, *, topic_id: str | None = None, **offsets: int) -> None:
    """On every shard; 0 where no offset is given. topic_id: Kafka's own where none is given."""
    ids = await _ids(stack)
    pipeline = stack.redis.pipeline()
    for header in stack.view.keys.headers:
        for topic in stack.definition.topics:
            stored = Watermark(offsets.get(topic.removeprefix(stack.settings.topic_prefix), 0), 0, topic_id or ids[topic])
            pipeline.hset(header, mapping={f"{topic}:{number}": stored.encode() for number in range(PARTITIONS)})
    await pipeline.execute()


async def _ids(stack: Stack) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.settings.kafka_bootstrap)
    await admin.start()
    try:
        return dict(await topic_ids(admin._client, stack.definition.topics))
    finally:
        await admin.close()


async def _cut(bootstrap: str, stack: Stack) -> None:
    """Some tweets in each partition, of which Kafka keeps those from 3 on."""
    publisher = Publisher(bootstrap, stack.settings.topic_prefix)
    for number in range(40):
        publisher.publish("c", None, Tweets(number, 1, "x", CREATED), 1)
    publisher.flush()
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        partitions = {TopicPartition(stack.topic("tweets"), number): RecordsToDelete(3) for number in range(PARTITIONS)}
        await admin.delete_records(partitions)
    finally:
        await admin.close()
