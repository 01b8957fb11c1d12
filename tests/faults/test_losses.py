"""A Redis that forgets: rolled back by a failover, come back empty, or short of a shard."""

import asyncio
import math
import random
from functools import partial

import msgspec
import pytest
from redis.asyncio import Redis

from loaders.view import ViewLoader
from projectors.apply import RedisStore, StoreUnavailable
from projectors.generations import GenerationRefused, Generations, ShardLost
from schema import layout
from schema.loader import ViewNotReady
from schema.positions import Partition
from schema.user import Users
from tests.faults.arranged import CHECKPOINT_SECONDS, DEFINITION, Owner, Tables, World, follow, user
from tests.faults.memory import Rounds
from tests.faults.snapshots import dump, restore
from tests.faults.stores import Halting, go_on

USERS = range(1, 20)


async def populated(world: World, limit: int = 7, stale: int = 0) -> Owner:
    """Users on every shard who follow each other, all applied."""
    owner = await world.owner(Halting(world.redis, world.keys, "0"), limit=limit, stale=stale)
    for number in USERS:
        world.put(user(number, f"user{number}"))
        world.put(follow(number, number, number % 7 + 1))
    await owner.level()
    await world.exact()
    return owner


def more(world: World, changes: int = 60) -> None:
    tables = Tables(world, random.Random(changes))
    for _ in range(changes):
        tables.change()


@pytest.mark.parametrize("shard", [None, 0, 3])
@pytest.mark.parametrize("stale", [0, 3])
async def test_lost_writes_are_read_again_and_batches_in_hand_thrown_away(world: World, shard: int | None, stale: int) -> None:
    owner = await populated(world, stale=stale, limit=5)
    earlier = await dump(world.redis, world.keys, shard)
    more(world)
    await owner.level()
    await restore(world.redis, earlier)
    more(world, 80)
    await owner.level()
    await world.exact()
    assert owner.tally.rewinds > 0


async def test_after_a_loss_on_one_shard_those_that_lost_less_are_not_believed_either(world: World) -> None:
    owner = await populated(world, limit=4)
    oldest = await dump(world.redis, world.keys, 1)
    more(world, 20)
    await owner.level()
    older = await dump(world.redis, world.keys, 2)
    more(world, 30)
    await owner.level()
    # shard 2 lost a little, shard 1 more: whichever is noticed first, reading begins where shard 1 needs it
    await restore(world.redis, oldest)
    await restore(world.redis, older)
    more(world, 40)
    await owner.level()
    await world.exact()


async def test_a_loss_while_no_changes_come_is_noticed_by_the_next_checkpoint(world: World) -> None:
    owner = await populated(world)
    earlier = await dump(world.redis, world.keys)
    more(world)
    await owner.level()
    await restore(world.redis, earlier)
    await owner.step()
    assert owner.tally.rewinds == 0
    assert await world.shown() != world.counted()
    owner.clock.seconds += CHECKPOINT_SECONDS
    await owner.step()
    assert owner.tally.rewinds > 0
    await owner.level()
    await world.exact()


async def test_redis_that_goes_away_in_the_middle_of_reading_again_stops_no_partition(world: World) -> None:
    owner = await populated(world)
    earlier = await dump(world.redis, world.keys)
    more(world)
    await owner.level()
    await restore(world.redis, earlier)
    store = owner.store
    assert isinstance(store, Halting)

    async def go_away(where: str) -> None:
        if where == "headers":
            store.pause = go_on
            raise StoreUnavailable("on purpose")

    store.pause = go_away
    owner.clock.seconds += CHECKPOINT_SECONDS
    await owner.projector.run(Rounds(1))
    assert store.pause is go_on
    await owner.level()
    await world.exact()


async def test_a_shard_that_lost_its_promotion_too_is_promoted_again(world: World) -> None:
    """The first checkpoint promotes; what a replica had before it says "building"."""
    owner = await populated(world)
    header = world.keys.headers[world.shard_of(1)]
    await world.redis.hset(header, "state", "building")
    earlier = await dump(world.redis, world.keys, world.shard_of(1))
    more(world)
    await owner.level()
    await restore(world.redis, earlier)
    unknown = next(number for number in range(1000, 2000) if world.shard_of(number) == world.shard_of(1))
    world.users.add(unknown)
    with pytest.raises(ViewNotReady):
        await world.shown()
    await owner.level()
    await world.exact()


async def test_a_shard_that_lost_its_promotion_alone_is_seen_again_though_nothing_else_differs(world: World) -> None:
    owner = await populated(world)
    header = world.keys.headers[world.shard_of(1)]
    await world.redis.hset(header, "state", "building")
    owner.clock.seconds += CHECKPOINT_SECONDS
    await owner.step(2)
    assert await world.redis.hget(header, "state") == b"live"
    assert owner.tally.rewinds == 0


async def test_an_empty_redis_is_never_read_as_zeros_and_stops_the_loop(world: World) -> None:
    owner = await populated(world)
    await world.redis.flushall()
    with pytest.raises(ViewNotReady):
        await world.shown()
    more(world)
    with pytest.raises(ShardLost):
        await owner.level()
    assert await world.redis.dbsize() == 0


@pytest.mark.parametrize("limit", [1, 7, 50])
async def test_one_that_outlived_an_empty_redis_shows_nothing_of_what_another_has_begun_until_it_is_level(world: World, limit: int) -> None:
    """What the old one knows of the generation was reached long ago, and its readers know where the old rows were."""
    old, reader = await populated(world), ViewLoader(world.redis, world.definition)
    assert await world.shown(reader) == world.counted()
    # it looks at the pointer once a second: this is within that second
    reader._watch_at = math.inf
    await world.redis.flushall()
    await world.begin("again")
    heir = await world.owner(limit=limit)
    refused = 0
    for _ in range(200):
        for owner in (heir, old):
            owner.clock.seconds += CHECKPOINT_SECONDS
            await owner.step()
            for reading in (reader, None):
                try:
                    assert await world.shown(reading) == world.counted()
                except ViewNotReady:
                    refused += 1
    assert refused > 1
    await world.exact()
    assert await world.shown(reader) == world.counted()


async def test_a_late_promotion_does_not_touch_what_was_begun_anew(world: World) -> None:
    generations = Generations(world.redis, world.definition)
    old = await generations.read("g1")
    assert old is not None
    seen = await RedisStore.of(world.redis, world.definition, old).headers()
    await world.redis.flushall()
    await world.begin("again")
    await world.owner()
    before = await dump(world.redis, world.keys)
    # it had found it level when Redis came back empty
    assert await generations.promote(old, RedisStore.of(world.redis, world.definition, old), seen) is None
    assert (await dump(world.redis, world.keys)).values == before.values


async def test_projectors_that_begin_on_an_empty_redis_open_one_generation(redis: Redis) -> None:
    stores, bounds = partial(RedisStore.of, redis, DEFINITION), {Partition("users", 0): (0, 0)}
    both = [Generations(redis, DEFINITION).open_first(stores, bounds, {}) for _ in range(2)]
    opened = {record.build for record in await asyncio.gather(*both)}
    # one that had looked before any was there
    opened.add((await Generations(redis, DEFINITION).open_first(stores, bounds, {})).build)
    assert len(opened) == 1
    assert [record.name for record in await Generations(redis, DEFINITION).all()] == ["g1"]


async def test_no_two_openings_bear_the_same_build(redis: Redis) -> None:
    builds = set()
    for _ in range(4):
        await redis.flushall()
        stores = partial(RedisStore.of, redis, DEFINITION)
        builds.add((await Generations(redis, DEFINITION).open_first(stores, {Partition("users", 0): (0, 0)}, {})).build)
    assert len(builds) == 4


async def test_one_that_outlived_an_empty_redis_does_not_write_what_was_begun_with_another_definition(world: World) -> None:
    old = await populated(world)
    await world.redis.flushall()
    record = msgspec.structs.replace(await world.begin("again"), definition="another")
    await Generations(world.redis, world.definition).opened(record, RedisStore.of(world.redis, world.definition, record))
    await world.redis.set(layout.generation_key(world.definition.name, "g1"), record.encode())
    before = await dump(world.redis, world.keys)
    more(world)
    with pytest.raises(GenerationRefused, match="another definition"):
        await old.level()
    assert (await dump(world.redis, world.keys)).values == before.values


async def test_a_record_that_was_lost_alone_is_written_again(world: World) -> None:
    owner = await populated(world)
    lost = (layout.generation_key(world.definition.name, "g1"), layout.live_key(world.definition.name))
    assert await world.redis.delete(*lost) == 2
    with pytest.raises(ViewNotReady):
        await world.shown()
    more(world)
    await owner.level()
    await world.exact()
    # but not over shards that were begun anew: whose record it was is not known
    assert await world.redis.delete(*lost) == 2
    await world.redis.hset(world.keys.headers[1], "build", "again")
    with pytest.raises(ShardLost, match="record of generation g1 is gone"):
        await owner.level()


async def test_a_shard_of_another_build_is_not_written(world: World) -> None:
    owner = await populated(world)
    shard = world.shard_of(1)
    await world.redis.hset(world.keys.headers[shard], "build", "1")
    world.put(user(1, "renamed"))
    world.delete(Users, 2)
    await owner.level()
    assert await world.redis.exists(world.keys.rows_prefix(shard, "1") + "1")
    old = await world.redis.hget(world.keys.rows_prefix(shard, "0") + "1", "0")
    assert old == b"user1"
