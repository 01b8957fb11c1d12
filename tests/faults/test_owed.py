"""What a shard owes to the view topic: whatever writes a hash owes it, a lost write is owed again, and unpublished nothing is."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from aiokafka.errors import ProducerFenced
from redis.asyncio import Redis

from demo.servers.server import Server
from projectors import owed as owed_module
from projectors import publisher
from projectors.calls import Packing
from projectors.erasure import Erasure
from projectors.fold import Claim
from projectors.owed import Hashes, Owed, Taken
from projectors.replay import partition_of
from projectors.scan import Scan
from projectors.view_topic import read
from schema import layout
from tests.faults.arranged import DEFINITION, Owner, World, follow, like, user
from tests.faults.copying import TOPIC, Copying, Publishing
from tests.faults.snapshots import dump, lose, restore

ADA, BOB, EVE = 7, 8, 9


@pytest.fixture
async def second(redis: Redis, redis_at: Server) -> AsyncIterator[Redis]:
    client = Redis.from_url(f"{redis_at.address.rpartition('/')[0]}/1")
    yield client
    await client.aclose()


@pytest.fixture
async def world(redis: Redis) -> World:
    """A live view, and who keeps it."""
    world = World(redis)
    await world.open()
    return world


async def owed(world: World) -> set[str]:
    """What follows the tag of each key that is owed."""
    found: set[str] = set()
    for shard in range(world.shards):
        for set_ in (world.keys.changed[shard], world.keys.taking[shard]):
            members: set[bytes] = await world.redis.smembers(set_)  # type: ignore[assignment]  # this client answers bytes
            found |= {key.decode().partition("}")[2] for key in members}
    return found


async def published(copying: Copying) -> Publishing:
    """Everything, by one that goes on."""
    publishing = await copying.publishing()
    await publishing.rounds(6)
    assert await owed(copying.world) == set()
    return publishing


async def test_without_a_view_topic_no_header_has_the_flag_and_nothing_is_owed(world: World) -> None:
    owner = await world.owner()
    world.put(user(ADA, "ada"))
    world.put(follow(1, ADA, BOB))
    await owner.level()
    own = {field.decode() for field in layout.NO_WATERMARKS} - {"state", "build"}
    for shard in range(world.shards):
        header: dict[bytes, bytes] = await world.redis.hgetall(world.keys.headers[shard])  # type: ignore[assignment]  # as above
        assert own & {field.decode() for field in header} == set()
    assert await owed(world) == set()


async def test_whatever_a_change_touches_is_owed(world: World, second: Redis) -> None:
    owner, copying = await world.owner(), Copying(world, second)
    await published(copying)
    world.put(user(ADA, "ada"))
    await owner.level()
    assert await owed(world) == {":7", "@username:ada"}
    await published(copying)
    world.put(user(ADA, "lady"))
    world.put(follow(1, ADA, BOB))
    await owner.level()
    assert await owed(world) == {":7", ":8", "@username:ada", "@username:lady"}


async def test_a_repair_owes_what_it_puts_right(world: World, second: Redis) -> None:
    owner, copying = await world.owner(), Copying(world, second)
    world.put(user(ADA, "ada"))
    await owner.level()
    await published(copying)
    shard, packing = world.shard_of(ADA), Packing(DEFINITION, await copying.live())
    header = (await owner.store.headers())[shard]
    watermarks = {partition_of(name): watermark for name, watermark in header.watermarks.items()}
    key = world.keys.rows_prefix(shard, header.build or "") + str(ADA)
    await owner.store.apply([packing.mend(shard, header.build or "", watermarks, {key: ["0", "lady"]}, {})])
    assert await owed(world) == {":7"}
    claim = Claim("username", "ada", ADA)
    home = packing.layout.shard("ada")
    await owner.store.apply([packing.mend(home, header.build or "", watermarks, {}, {claim: None})])
    assert await owed(world) == {":7", "@username:ada"}


async def test_an_erased_row_and_its_claim_are_owed_and_gone_in_the_second(world: World, second: Redis) -> None:
    owner, copying = await world.owner(), Copying(world, second)
    world.put(user(ADA, "ada"))
    world.put(user(BOB, "bob"))
    await owner.level()
    await copying.publish()
    populating = copying.populating()
    await populating.level()
    erasure = Erasure(world.redis, DEFINITION, str(ADA))
    traces = await erasure.find(await copying.live())
    assert await erasure.erase(traces)
    assert await owed(world) == {":7", "@username:ada"}
    await copying.publish()
    await populating.level()
    keys: list[bytes] = await second.keys("*")  # type: ignore[assignment]  # this client answers bytes
    assert [key for key in keys if key.endswith((b":7", b":ada"))] == []
    assert len([key for key in keys if key.endswith((b":8", b":bob"))]) == 2


async def test_a_set_that_holds_something_else_is_told_before_anything_is_written(world: World, second: Redis) -> None:
    owner = await world.owner()
    await published(Copying(world, second))
    await world.redis.set(world.keys.changed[world.shard_of(ADA)], "mine")
    world.put(like(1, ADA))
    before = await owner.store.headers()
    with pytest.raises(Exception, match="holds a string, not a set"):
        await owner.level()
    assert [header.state for header in await owner.store.headers()] == [header.state for header in before]


async def test_a_write_that_redis_lost_and_never_makes_again_is_published_again(world: World, second: Redis) -> None:
    owner, copying = await world.owner(), Copying(world, second)
    world.put(user(ADA, "ada"))
    await owner.level()
    publishing = await published(copying)
    before = await dump(world.redis, world.keys)
    world.put(like(1, ADA))
    await owner.level()
    await publishing.rounds(2)
    assert told(copying, ADA)["like_count"] == 1
    await restore(world.redis, before)
    # read again in one batch, the two cancel out, and nothing of the row is touched
    world.delete(type(like(1, ADA)), 1)
    lagging = await world.owner(limit=1000)
    await lagging.level()
    assert await owed(world) == set()
    await publishing.rounds(3)
    assert told(copying, ADA)["like_count"] == 0
    # what was published is remembered: nothing begins anew
    assert len(set(series(copying)) - {""}) == 1


async def test_a_publisher_that_knows_nothing_begins_a_shard_anew_that_has_lost_writes(world: World, second: Redis) -> None:
    owner, copying = await world.owner(), Copying(world, second)
    world.put(user(ADA, "ada"))
    await owner.level()
    await published(copying)
    populating = copying.populating()
    before = await dump(world.redis, world.keys, world.shard_of(EVE))
    world.put(like(1, EVE))
    await owner.level()
    await copying.publish()
    await populating.level()
    await restore(world.redis, before)
    world.delete(type(like(1, EVE)), 1)
    await (await world.owner(limit=1000)).level()
    await copying.publish()
    await populating.level()
    await copying.equal()
    assert len(set(series(copying)) - {""}) == 2


async def test_a_series_that_a_failover_has_brought_back_is_begun_anew(world: World, second: Redis) -> None:
    owner, copying = await world.owner(), Copying(world, second)
    world.put(user(ADA, "ada"))
    world.put(like(1, EVE))
    await owner.level()
    publishing = await published(copying)
    shard = world.shard_of(ADA)
    before = await dump(world.redis, world.keys)
    # the shard has lost more than is remembered
    await world.redis.hset(world.keys.headers[shard], "published", "-1")
    await publishing.rounds(4)
    populating = copying.populating()
    await populating.level()
    await restore(world.redis, before)
    await publishing.rounds(4)
    await populating.level()
    await copying.equal()
    assert len(set(series(copying)) - {""}) == 3


async def test_a_loss_is_found_though_one_that_was_shut_out_has_counted_on(world: World, second: Redis) -> None:
    owner, copying = await world.owner(), Copying(world, second)
    await owner.level()
    shut_out = await published(copying)
    before = await dump(world.redis, world.keys)
    world.put(like(1, EVE))
    await owner.level()
    await copying.publish()
    await restore(world.redis, before)
    world.delete(type(like(1, EVE)), 1)
    await (await world.owner(limit=1000)).level()
    with pytest.raises(ProducerFenced):
        await shut_out.rounds(1)
    await copying.publish()
    populating = copying.populating()
    await populating.level()
    await copying.equal()


async def test_more_than_is_remembered_begins_a_shard_anew(world: World, second: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "REMEMBERED", 1)
    owner, copying = await world.owner(), Copying(world, second)
    publishing = await published(copying)
    before = await dump(world.redis, world.keys)
    for key in range(20):
        world.put(like(key, key))
        await owner.level()
        await publishing.rounds(1)
    await restore(world.redis, before)
    await (await world.owner(limit=1000)).level()
    await publishing.rounds(5)
    populating = copying.populating()
    await populating.level()
    await copying.equal()
    assert len(set(series(copying)) - {""}) == 2


async def test_a_shard_that_was_lost_is_published_as_a_whole_once_it_is_there_again(world: World, second: Redis) -> None:
    owner, copying = await world.owner(), Copying(world, second)
    for key in range(8):
        world.put(user(key, f"name{key}"))
        world.put(like(key, key))
    await owner.level()
    publishing = await published(copying)
    populating = copying.populating()
    await populating.level()
    await lose(world.redis, world.keys, world.shard_of(1))
    for key in range(4):
        world.delete(type(user(0, "")), key)
        world.delete(type(like(0, 0)), key)
    await until_level(owner, await world.owner_of_the_lost())
    await publishing.rounds(6)
    await populating.level()
    await copying.equal()


async def until_level(owner: Owner, lost_owner: Owner) -> None:
    for _ in range(8):
        await owner.level()
        if not lost_owner.projector._build.finished:
            await lost_owner.level()


async def test_what_somebody_else_has_taken_meanwhile_is_neither_read_nor_done(world: World, second: Redis) -> None:
    owner, copying = await world.owner(), Copying(world, second)
    await published(copying)
    record = await copying.live()
    mine, theirs = Owed(world.redis, DEFINITION, record), Owed(world.redis, DEFINITION, record)
    topic = f"{TOPIC}|first|{copying.partitions}"
    shard = world.shard_of(ADA)
    world.put(like(1, ADA))
    await owner.level()
    taken = (await mine.take(topic, {shard: 0}, (), ())).taken
    assert [key.rpartition(":")[2] for key in taken[shard].keys] == [str(ADA)]
    assert (await mine.read(taken))[shard].whole
    world.put(like(2, ADA))
    await owner.level()
    later = (await theirs.take(topic, {shard: 0}, (), ())).taken
    assert later[shard].version > taken[shard].version
    assert await mine.read(taken) == {}
    await mine.done({shard: taken[shard].version})
    assert await owed(world) == {":7"}
    assert (await theirs.read(later))[shard].whole
    await theirs.done({shard: later[shard].version})
    assert await owed(world) == set()
    # whoever had the version before can tell
    assert (await mine.take(topic, {shard: taken[shard].version}, {shard}, ())).other == {
        shard: (later[shard].version, later[shard].header[layout.SERIES].decode())
    }


async def test_a_scan_whose_keys_redis_lost_does_not_end_what_is_owed(world: World, second: Redis) -> None:
    owner, copying = await world.owner(), Copying(world, second)
    for key in range(6):
        world.put(user(key, f"name{key}"))
    await owner.level()
    scan = Scan(Owed(world.redis, DEFINITION, await copying.live()), "topic")
    assert await scan.begin(dict.fromkeys(range(world.shards), 0), ()) == set(range(world.shards))
    before = await dump(world.redis, world.keys, world.shard_of(1))
    redis = world.redis
    pages = scan._owed.page

    async def page(cursor: int) -> tuple[int, Sequence[str]]:
        """A failover between the last page and the end."""
        found = await pages(cursor)
        return 1, found[1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan._owed, "page", page)
        await scan.step()
    await restore(redis, before)
    scan._cursor = 0
    while scan.owing:
        await scan.step()
    still = {shard for shard in range(world.shards) if await redis.hexists(world.keys.headers[shard], "owed")}
    assert still == {world.shard_of(1)}


async def test_a_partition_is_not_told_as_whole_while_a_shard_of_it_owes(world: World, second: Redis) -> None:
    owner, copying = await world.owner(), Copying(world, second)
    publishing = await published(copying)
    place = copying.log.partitions[world.shard_of(ADA) % copying.partitions]
    world.put(user(ADA, "ada"))
    await owner.level()
    end = copying.log.ends[place]
    # what a publisher left that another one has begun to take: as much as is taken at once, and one key more
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owed_module, "AT_ONCE", 1)
        keys = [world.keys.rows_prefix(world.shard_of(ADA), "0") + str(key) for key in (ADA, 1000, 1001)]
        await world.redis.sadd(world.keys.changed[world.shard_of(ADA)], *keys)
        publishing.clock.seconds += 1
        await publishing.publisher.round()
        found = [read(record) for record in copying.log.records[place] if record.offset >= end]
        assert [told.as_of for told in found if told.stamp.shard < 0] == []
        assert [told.watermarks for told in found if told.stamp.shard == world.shard_of(ADA) and told.at is None] == []
    await publishing.rounds(2)
    found = [read(record) for record in copying.log.records[place] if record.offset >= end]
    assert [told.stamp.shard for told in found][-1] == -1


async def test_a_change_between_taking_and_reading_comes_with_its_watermarks(world: World, second: Redis) -> None:
    owner, copying = await world.owner(), Copying(world, second)
    publishing = await published(copying)
    world.put(like(1, ADA))
    await owner.level()
    reading, left = publishing.publisher._owed.read, [like(2, ADA)]

    async def read_after_a_change(taken: Mapping[int, Taken]) -> dict[int, Hashes]:
        if left:
            world.put(left.pop())
            await owner.level()
        return await reading(taken)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing.publisher._owed, "read", read_after_a_change)
        await publishing.rounds(1)
    assert told(copying, ADA)["like_count"] == 2
    header = (await owner.store.headers())[world.shard_of(ADA)]
    newest = [read(r).watermarks for rs in copying.log.records.values() for r in rs if r.key == b'{"shard":%d}' % world.shard_of(ADA)][-1]
    assert newest == {partition: watermark.encode().decode() for partition, watermark in header.watermarks.items()}


def told(copying: Copying, key: int) -> dict[str, object]:
    """The newest row of a user in the topic."""
    rows = [json.loads(r.value) for rs in copying.log.records.values() for r in rs if r.key == b'{"id":"%d"}' % key and r.value]
    row = max(rows, key=lambda one: int(one["version"]))["row"]
    assert isinstance(row, dict)
    return row


def series(copying: Copying) -> list[str]:
    return [read(record).stamp.series for records in copying.log.records.values() for record in records]
