"""`viewgate rebuild`, `generations`, `promote`, `rollback` and `drop`, while readers read all the time."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from demo.servers.process import NotReadyError, free_port, until
from demo.servers.server import Server
from demo.sink import end_offsets
from loaders.view import ViewLoader
from projectors.apply import RedisStore
from projectors.generations import Generations
from schema import layout
from schema.loader import Read
from tests.commands.running import run, start
from tests.faults.traffic import Traffic
from tests.road import Fields, Road, open_road, variables

NEW = "tests.message.test_new_aggregate:UserView"


@pytest.fixture
async def traffic(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Traffic]:
    """A live g1 of a few thousand changes, kept by one projector."""
    async with open_road(kafka_at, redis_at, postgres_at) as road:
        published = Traffic(road, seed=1)
        published.publish(3000)
        await road.project()
        await road.sunk()
        await road.agree()
        yield published


@pytest.fixture
def road(traffic: Traffic) -> Road:
    return traffic.road


@dataclass(slots=True)
class Reader:
    """Reads every row again and again with one loader; what it must see does not change meanwhile."""

    road: Road
    expected: dict[str, Fields]
    generations: list[str | None] = field(default_factory=list)
    reads: int = 0

    async def run(self) -> None:
        loader = ViewLoader(self.road.redis, self.road.definition)
        names = tuple(f.name for f in self.road.definition.fields)
        while True:
            rows = await loader.load([Read("id", key, names) for key in self.expected])
            found = {key: dict(zip(names, row or (), strict=False)) for key, row in zip(self.expected, rows.rows, strict=True)}
            assert found == self.expected
            self.reads += 1
            if rows.generation not in self.generations[-1:]:
                self.generations.append(rows.generation)
            await asyncio.sleep(0.005)


@asynccontextmanager
async def reading(road: Road) -> AsyncIterator[Reader]:
    reader = Reader(road, await road.in_sql())
    running = asyncio.create_task(reader.run())
    yield reader
    if running.done():
        running.result()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def told(road: Road, *arguments: str, **settings: str) -> str:
    """What a command says that succeeds."""
    code, out, err = await run(*arguments, **{**variables(road.settings), **settings})
    assert code == 0, out + err
    return out


async def refused(road: Road, *arguments: str, **settings: str) -> str:
    code, out, err = await run(*arguments, **{**variables(road.settings), **settings})
    assert code == 1, out + err
    return err


async def shows(reader: Reader, name: str) -> None:
    if reader.generations[-1:] != [name]:
        raise NotReadyError(f"read from {reader.generations}")


async def test_a_generation_is_built_compared_and_put_live_and_back_while_readers_see_nothing_of_it(traffic: Traffic, road: Road) -> None:
    async with reading(road) as reader:
        assert "g2 is level" in await told(road, "rebuild")
        listed = await told(road, "generations")
        assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["g1", "live"], ["g2", "building"]]
        promoted = await told(road, "promote")
        assert "compared with SQL" in promoted
        assert "g2 is live. g1 is kept up to date" in promoted
        await until(lambda: shows(reader, "g2"), 10)
        assert "g1 is live" in await told(road, "rollback")
        await until(lambda: shows(reader, "g1"), 10)
        assert "g2 is live" in await told(road, "rollback")
        await until(lambda: shows(reader, "g2"), 10)
        assert "g2 is live: promote another first" in await refused(road, "drop", "g2", "--yes")
        assert "g1 is gone" in await told(road, "drop", "g1", "--yes")
        before = reader.reads
        await until(lambda: more_than(reader, before + 20), 10)
        assert reader.generations == ["g1", "g2", "g1", "g2"]
    assert [key async for key in road.redis.scan_iter("user:g1*", count=5000)] == []
    traffic.publish(500)
    await road.sunk()
    await road.agree()
    # a name is never used again
    assert "Building g3" in await told(road, "rebuild", "--promote")


async def more_than(reader: Reader, reads: int) -> None:
    if reader.reads <= reads:
        raise NotReadyError(f"{reader.reads} reads")


async def test_an_interrupted_rebuild_is_gone_on_with_where_it_was(road: Road) -> None:
    for process in road.processes:
        process.terminate()
        await process.wait()
    child = await start("rebuild", "--rate", "1000", **variables(road.settings))
    generations = Generations(road.redis, road.definition)
    await until(lambda: begun(road), 30)
    child.send_signal(signal.SIGKILL)
    await child.wait()
    record = await generations.read("g2")
    assert record is not None
    assert (record.state, record.rate) == ("building", 1000)
    child = await start("rebuild", **variables(road.settings))
    assert child.stdout is not None
    # by then it listens to signals
    assert b"Going on with g2" in await asyncio.wait_for(child.stdout.readline(), 60)
    child.send_signal(signal.SIGINT)
    out, _ = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 0
    # not level, and nobody keeps it
    assert "is not level" in await refused(road, "promote", "g2") or b"g2 is level" in out
    assert "g2 is live" in await told(road, "rebuild", "--promote")
    await road.agree()


async def begun(road: Road) -> None:
    if not [key async for key in road.redis.scan_iter("user:g2.*", count=5000)]:
        raise NotReadyError("no row of g2 yet")


async def test_what_differs_is_not_put_live_unless_forced(road: Road) -> None:
    await told(road, "rebuild")
    one = next(iter(await road.in_sql()))
    (key,) = [key async for key in road.redis.scan_iter(f"user:g2.*:{{*}}:{one}", count=5000)]
    await road.redis.hset(key, layout.codes(road.definition)["follower_count"], "123456789")
    said = await refused(road, "promote", "g2")
    assert "g2 differs from SQL in 1 of" in said
    assert "123456789" in said
    assert await Generations(road.redis, road.definition).live() == "g1"
    assert "g2 is live" in await told(road, "promote", "g2", "--force")
    assert "There is no generation g7" in await refused(road, "promote", "g7")
    assert "is live already" in await refused(road, "promote", "g2")


@dataclass(slots=True)
class Client:
    """Asks two gateways the same and, of the newer one, also for what only it knows."""

    old: str
    new: str
    answers: int = 0
    fallbacks: int = 0

    async def run(self) -> None:
        async with httpx.AsyncClient(timeout=10) as http:
            while True:
                for url, fields in ((self.old, "tweetCount"), (self.new, "tweetCount"), (self.new, "tweetCount replyCount")):
                    answer = await http.post(url, json={"query": f'{{ users(ids: ["1", "2"]) {{ username {fields} }} }}'})
                    body = answer.json()
                    assert "errors" not in body, body
                    assert None not in body["data"]["users"]
                    self.answers += 1
                    if "replyCount" in fields:
                        self.fallbacks = self.fallbacks + 1 if "viewgate-fallback" in answer.headers else 0
                await asyncio.sleep(0.01)


async def ready(url: str) -> None:
    try:
        async with httpx.AsyncClient() as http:
            answer = await http.get(url.replace("/graphql", "/readyz"))
    except httpx.HTTPError as error:
        raise NotReadyError(repr(error)) from error
    if answer.status_code != 200:
        raise NotReadyError(answer.text)


async def from_the_view(client: Client) -> None:
    if client.fallbacks or not client.answers:
        raise NotReadyError("the new field is still answered by the fallback")


async def test_a_definition_with_one_field_more_comes_without_an_error_to_a_reader(traffic: Traffic, road: Road) -> None:
    urls = [f"http://127.0.0.1:{free_port()}/graphql" for _ in range(2)]
    ports = [url.split(":")[2].split("/")[0] for url in urls]
    await road.start("-m", "app", "serve", VIEWGATE_PORT=ports[0], VIEWGATE_FALLBACK="sql")
    await road.start("-m", "app", "serve", VIEWGATE_PORT=ports[1], VIEWGATE_FALLBACK="sql", VIEWGATE_VIEW=NEW)
    for url in urls:
        await until(lambda url=url: ready(url), 30)  # type: ignore[misc]  # the default binds the loop's value
    client = Client(urls[0], urls[1])
    asking = asyncio.create_task(client.run())
    await told(road, "rebuild", VIEWGATE_VIEW=NEW)
    await road.start("-m", "app", "project", VIEWGATE_VIEW=NEW)
    assert "another definition" in await refused(road, "promote", "g2")
    assert client.fallbacks > 0
    assert "g2 is live" in await told(road, "promote", "g2", VIEWGATE_VIEW=NEW)
    await until(lambda: from_the_view(client), 20)
    # the old generation is kept by the old projector, should one have to go back
    traffic.publish(300)
    await road.sunk()
    await road.agree()
    assert "g1 is live" in await told(road, "rollback")
    await road.agree()
    assert "g2 is live" in await told(road, "promote", "g2", VIEWGATE_VIEW=NEW)
    await until(lambda: from_the_view(client), 20)
    if asking.done():
        asking.result()
    asking.cancel()
    assert client.answers > 50


async def test_topics_without_their_beginning_are_built_from_sql_and_so_are_shards_that_redis_loses(
    apache_kafka_at: Server, traffic: Traffic, road: Road
) -> None:
    await cut(road)
    assert "Kafka no longer has the beginning" in await refused(road, "rebuild")
    async with reading(road) as reader:
        assert "g2 is live" in await told(road, "rebuild", "--from", "sql", "--promote")
        await until(lambda: shows(reader, "g2"), 10)
    traffic.publish(500)
    await road.sunk()
    await road.agree()
    record = await Generations(road.redis, road.definition).read("g2")
    assert record is not None
    keys = layout.Layout(road.definition.name, "g2", record.shards)
    lost = range(0, record.shards, 3)
    for shard in lost:
        tag = "{" + layout.tags(record.shards)[shard] + "}"
        found = [key async for key in road.redis.scan_iter(f"user:g2.*:{tag}*", count=5000)]
        await road.redis.delete(keys.headers[shard], *found)
    traffic.publish(500)
    await road.sunk()
    await road.agree()
    headers = await RedisStore.of(road.redis, road.definition, record).headers()
    assert all(headers[shard].build != record.build for shard in lost)


async def test_a_rebuild_from_sql_that_was_killed_begins_again_and_leaves_nothing_behind(road: Road) -> None:
    child = await start("rebuild", "--from", "sql", "--rate", "200", **variables(road.settings))
    await until(lambda: begun(road), 30)
    child.kill()
    await child.wait()
    generations = Generations(road.redis, road.definition)
    first = await generations.read("g2")
    assert first is not None
    assert first.state == "filling"
    assert "g2 is live" in await told(road, "rebuild", "--promote")
    await road.agree()
    again = await generations.read("g2")
    assert again is not None
    assert again.build != first.build
    assert [key async for key in road.redis.scan_iter(f"user:g2.{first.build}:*", count=5000)] == []


async def test_without_offsets_beside_its_rows_a_database_is_refused(road: Road) -> None:
    await road.pool.execute("DROP TABLE sink_positions")
    assert "keeps no offsets beside its rows" in await refused(road, "rebuild", "--from", "sql")
    assert await Generations(road.redis, road.definition).read("g2") is None


async def test_topics_without_a_snapshot_are_refused(road: Road) -> None:
    assert "there is no snapshot in" in await refused(road, "rebuild", "--from", "snapshot")
    assert await Generations(road.redis, road.definition).read("g2") is None


async def cut(road: Road) -> None:
    """Delete all that the topics hold by now, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=road.settings.kafka_bootstrap)
    await admin.start()
    try:
        ends = await end_offsets(road.settings.kafka_bootstrap, road.definition.topics)
        await admin.delete_records({TopicPartition(*partition): RecordsToDelete(before_offset=end) for partition, end in ends.items()})
    finally:
        await admin.close()
