"""The view in a Redis Cluster is exact while slots move, and when a master comes back empty."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from app.clients import open_redis
from app.cluster.client import ClusterClient
from app.settings import Settings
from demo.servers import redis_cluster
from demo.servers.process import until
from demo.servers.redis_cluster import Cluster
from demo.servers.server import Server
from loaders.view import ViewLoader
from projectors.apply import StoreUnavailable
from projectors.sweeping import pages
from schema import layout
from schema.loader import Read, Rows, ViewUnavailable
from schema.positions import Partition
from tests.conftest import CACHE
from tests.faults.arranged import CHECKPOINT_SECONDS, NAMES, Fields, Owner, Tables, World, user
from tests.faults.memory import Rounds
from tests.faults.test_lost_shards import USERS, finish, populated, shown_right_or_not_ready
from tests.request.arranged import USERS as STORED
from tests.request.arranged import MemoryLoader
from tests.request.cached import SlowLoader, cached, settled
from tests.request.cached import key as cache_key

SHARDS = 32


@pytest.fixture(scope="module")
async def cluster(servers_folder: Path) -> AsyncIterator[Cluster]:
    options = ("--appendonly", "no", "--save", "")
    async with redis_cluster.start(servers_folder / "cluster", CACHE, options=options, say=print) as started:
        yield started


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[ClusterClient]:
    """A client of an empty cluster."""
    async with opened(cluster) as client:
        await client.flushall()
        yield client


@asynccontextmanager
async def opened(cluster: Cluster, seconds: float = 5.0) -> AsyncIterator[ClusterClient]:
    client = open_redis(Settings(redis_timeout_seconds=seconds), cluster.server.address)
    assert isinstance(client, ClusterClient)
    try:
        yield client
    finally:
        await client.aclose()


async def test_a_view_on_three_masters_is_read_whole(client: ClusterClient, cluster: Cluster) -> None:
    world = World(client, shards=SHARDS)
    await world.open()
    tables = Tables(world, random.Random(1), users=60)
    for _ in range(300):
        tables.change()
    await (await world.owner()).level()
    await world.exact()
    sizes = []
    for master in cluster.masters:
        async with Redis.from_url(master.address) as one:
            sizes.append(await one.dbsize())
    assert min(sizes) > 10
    assert await client.dbsize() == sum(sizes)


async def test_counts_are_exact_and_readers_see_no_error_while_slots_move_back_and_forth(client: ClusterClient, cluster: Cluster) -> None:
    world = World(client, shards=SHARDS)
    await world.open()
    for number in range(100, 200):
        world.put(user(number, f"stays{number}"))
    owner = await world.owner()
    await owner.level()
    stay = await world.shown()
    tables, rng, moves = Tables(world, random.Random(2), users=60), random.Random(3), 0
    async with opened(cluster) as readers, asyncio.TaskGroup() as group:
        moving = group.create_task(_move(cluster, rng, 60))
        reading = group.create_task(_read(ViewLoader(readers, world.definition), stay, moving))
        while not moving.done():
            tables.change()
            await owner.step()
            await asyncio.sleep(0)
    moves, reads = moving.result(), reading.result()
    await owner.level()
    await world.exact()
    assert moves == 60
    assert reads > 100
    # each way of a master to say that the slot is not, or not wholly, with it has been met, also by those who read
    assert set(client.redirected) == {"MOVED", "ASK", "TRYAGAIN"}
    assert {"MOVED", "ASK"} <= set(readers.redirected)


async def _move(cluster: Cluster, rng: random.Random, times: int) -> int:
    """Slots of the view, and that of its records, one after the other to another master and back."""
    slots = [key_slot(b"{user}"), *(key_slot(tag.encode()) for tag in layout.tags(SHARDS))]
    for number in range(times):
        await cluster.move(rng.choice(slots), cluster.masters[number % len(cluster.masters)], keys=1, pause_seconds=0.01)
    return times


async def _read(reader: ViewLoader, stay: dict[str, Fields | None], moving: "asyncio.Task[int]") -> int:
    reads = 0
    while not moving.done():
        rows = (await reader.load([Read("id", key, NAMES) for key in stay])).rows
        assert {key: None if row is None else dict(zip(NAMES, row, strict=True)) for key, row in zip(stay, rows, strict=True)} == stay
        reads += 1
        await asyncio.sleep(0)
    return reads


async def test_while_a_slot_is_half_here_and_half_there_each_command_finds_its_keys(client: ClusterClient, cluster: Cluster) -> None:
    slot, both = key_slot(b"{half}"), ("{half}:1", "{half}:2")
    for key in both:
        await client.set(key, "here")
    owner = (await cluster.owners())[slot]
    to = next(master for master in cluster.masters if master is not owner)
    async with opened(cluster, seconds=0.5) as hasty, cluster.moving(slot, to) as step:
        assert await step(1) == 1
        for key in both:
            assert await hasty.get(key) == b"here"
        pipeline = hasty.pipeline(transaction=False)
        for text in ("first", "second"):
            for key in both:
                pipeline.set(key, text)
        for key in both:
            pipeline.get(key)
        assert (await pipeline.execute())[-2:] == [b"second", b"second"]
        with pytest.raises(RedisConnectionError, match=r"on their way for 0\.5 s"):
            await hasty.eval("redis.call('SET', KEYS[1], 'lost'); redis.call('SET', KEYS[2], 'lost')", 2, *both)
        waiting = asyncio.ensure_future(client.eval("return redis.call('MGET', KEYS[1], KEYS[2])", 2, *both))
        for key in both:
            transaction = hasty.pipeline(transaction=True)
            transaction.append(key, "!")
            transaction.get(key)
            assert await transaction.execute() == [7, b"second!"]
        assert not waiting.done()
    assert await waiting == [b"second!", b"second!"]
    assert hasty.redirected["TRYAGAIN"] > 0
    assert hasty.redirected["ASK"] > 0
    assert hasty.redirected["MOVED"] == 0


async def test_a_master_back_empty_is_built_again_and_no_reader_sees_a_zero(client: ClusterClient, cluster: Cluster) -> None:
    world = World(client, shards=SHARDS)
    await world.open()
    owner = await populated(world)
    master = await _without_records(cluster)
    lost = await _shards_of(cluster, master)
    async with opened(cluster) as readers:
        reader = ViewLoader(readers, world.definition)
        assert await world.shown(reader) == world.counted()
        await _restart(master)
        await shown_right_or_not_ready(world, lost, reader)
        Tables(world, random.Random(4), users=60).change()
        await _heard(owner)
        assert owner.projector.lost == len(lost)
        await shown_right_or_not_ready(world, lost, reader)
        await finish(await world.owner_of_the_lost())
        assert await world.shown(reader) == world.counted()
    await owner.level()
    await world.exact()


async def test_a_master_that_hangs_holds_up_no_reader_of_the_others(client: ClusterClient, cluster: Cluster) -> None:
    world = World(client, shards=SHARDS)
    await world.open()
    await populated(world)
    # the one that a client asks first who has what
    master, other, _ = sorted(cluster.masters, key=redis_cluster.port_of)
    await cluster.move(key_slot(b"{user}"), other)
    hanging = await _shards_of(cluster, master)
    there = [Read("id", str(number), ("name",)) for number in USERS if world.shard_of(number) in hanging]
    elsewhere = [Read("id", str(number), ("name",)) for number in USERS if world.shard_of(number) not in hanging]
    assert master.process
    async with opened(cluster, seconds=0.5) as readers:
        reader = ViewLoader(readers, world.definition)
        await reader.load([*there, *elsewhere])
        master.process.pause()
        try:
            for _ in range(3):
                # as many who wait for it as there are connections
                waiting = [asyncio.create_task(reader.load([read])) for read in there for _ in range(3)]
                began = time.monotonic()
                for read in elsewhere:
                    assert (await reader.load([read])).rows == [[b"null"]]
                assert time.monotonic() - began < 0.4
                assert {type(told) for told in await asyncio.gather(*waiting, return_exceptions=True)} == {ViewUnavailable}
        finally:
            master.process.resume()
        await until(lambda: redis_cluster.serves(master), 20)
        assert (await reader.load(there)).rows == [[b"null"]] * len(there)


async def test_what_a_master_has_lost_is_told_as_of_no_moment_until_a_projector_has_met_it(client: ClusterClient, cluster: Cluster) -> None:
    world = World(client, shards=SHARDS)
    await world.open()
    owner = await populated(world)
    master = await _without_records(cluster)
    lost = await _shards_of(cluster, master)
    number = next(number for number in USERS if world.shard_of(number) in lost)
    read = Read("id", str(number), ("name",))
    async with Redis.from_url(master.address) as one, opened(cluster) as readers:
        reader = ViewLoader(readers, world.definition)
        await one.save()
        world.put(user(number, f"user{number}", "acknowledged"))
        await owner.level()
        before = await reader.load([read])
        assert before.rows == [[b'"acknowledged"']]
        assert before.as_of_ms > 0
        # what a replica had that was promoted before it had everything
        await _restart(master, empty=False)
        assert (await reader.load([read])) == Rows([[b"null"]], "view", "g1", 0)
        assert (await ViewLoader(client, world.definition).load([read])).as_of_ms == 0
        with pytest.raises(StoreUnavailable, match="may be lost"):
            await owner.store.report({Partition("users", 0): 2 * before.as_of_ms})
        await _heard(owner)
        await owner.level()
        reader._watch_at = 0.0
        after = await reader.load([read])
        assert after.rows == before.rows
        assert after.as_of_ms >= before.as_of_ms
    await world.exact()


async def test_a_walk_over_all_keys_meets_each_also_while_slots_move(client: ClusterClient, cluster: Cluster) -> None:
    slots = {number: key_slot(f"{{{number}}}".encode()) for number in range(40)}
    names = {f"walk:{{{number}}}:{place}" for number in slots for place in range(50)}
    for name in names:
        await client.set(name, "")
    rng = random.Random(5)
    for _ in range(5):
        found: set[str] = set()
        number = 0
        async for page in pages(client, "walk:*"):
            found |= set(page)
            number += 1
            # slots go from a master that is still to come to one that was left
            if number < 20:
                await cluster.move(slots[rng.randrange(len(slots))], cluster.masters[0])
        assert found == names
        for slot in slots.values():
            await cluster.move(slot, cluster.masters[2])


async def test_each_kind_of_url_wants_its_kind_of_redis(cluster: Cluster, redis_at: Server) -> None:
    plain = cluster.masters[0].address
    for url, told in ((plain, "write redis\\+cluster://"), (f"redis+cluster://{redis_at.address.split('/')[2]}", "write redis://")):
        client = open_redis(Settings(), url)
        with pytest.raises(RedisConnectionError, match=told):
            await client.get("any")
        await client.aclose()


async def _without_records(cluster: Cluster) -> Server:
    owner = (await cluster.owners())[key_slot(b"{user}")]
    return next(master for master in cluster.masters if master is not owner)


async def _shards_of(cluster: Cluster, master: Server) -> set[int]:
    owners = await cluster.owners()
    return {shard for shard, tag in enumerate(layout.tags(SHARDS)) if owners[key_slot(tag.encode())] is master}


async def _restart(master: Server, *, empty: bool = True) -> None:
    """With nothing but its slots, or with what was saved last."""
    assert master.process
    await master.process.kill()
    if empty:
        (Path(master.process.command.log).parent / "redis" / "dump.rdb").unlink(missing_ok=True)
    await master.process.start()
    await until(lambda: redis_cluster.serves(master), 20)


async def _heard(owner: Owner) -> None:
    """The projector has met whoever has come, and read the watermarks again."""
    owner.clock.seconds += CHECKPOINT_SECONDS
    await owner.projector.run(Rounds(5))
    await owner.level()


async def test_a_cache_keeps_rows_on_every_master_and_a_deletion_voids_the_lease(client: ClusterClient) -> None:
    source = MemoryLoader()
    reads = [Read("id", stored["id"], ("username",)) for stored in STORED] + [Read("username", "ada", ("id",))]
    reading = cached(client, source, mode="cache-invalidate")
    first = (await reading.load(reads)).rows
    await settled(reading)
    asked = len(source.loads)
    assert (await reading.load(reads)).rows == first
    assert len(source.loads) == asked
    assert len({key_slot(cache_key("id", stored["id"], "cache-invalidate").encode()) * 3 // 16384 for stored in STORED}) > 1
    slow = SlowLoader(source)
    entry = cache_key("id", "1", "cache-invalidate")
    await client.unlink(entry)
    late = cached(client, slow, mode="cache-invalidate")
    request = asyncio.create_task(late.load(reads[:1]))
    await slow.asked.wait()
    await client.unlink(entry, layout.lease_key(entry))
    slow.go.set()
    assert (await request).rows == first[:1]
    await settled(late)
    assert not await client.exists(entry)
