"""Calls that arrive twice, late, or from two projectors at once change nothing more."""

import random

import pytest
from redis.asyncio import Redis

from projectors.apply import RedisStore
from projectors.generations import Generations
from schema.positions import Watermark
from tests.faults.arranged import CHECKPOINT_SECONDS, Owner, Tables, World, follow, tweet, user
from tests.faults.stores import Crashed, Halting


async def one_by_one(world: World, limit: int = 7) -> tuple[Owner, Halting]:
    store = Halting(world.redis, world.keys, "0")
    return await world.owner(store, limit=limit), store


def produce(world: World, seed: int, changes: int = 120) -> None:
    tables = Tables(world, random.Random(seed))
    for _ in range(changes):
        tables.change()


async def test_calls_that_are_sent_again_at_once_or_late_change_nothing(world: World) -> None:
    owner, store = await one_by_one(world)
    produce(world, seed=1)
    await owner.level()
    await world.exact()
    calls = [call for call in store.sent if call.keys]
    assert len(calls) > 40
    random.Random(1).shuffle(calls)
    for call in [*calls, *calls[::-1]]:
        await store.apply([call])
    await world.exact()
    produce(world, seed=2)
    for call in calls:
        await owner.step()
        await store.apply([call])
    await owner.level()
    await world.exact()
    assert owner.tally.rewinds == 0


@pytest.mark.parametrize(("mine", "theirs"), [(7, 3), (3, 7), (50, 1), (5, 5)])
async def test_two_owners_that_take_turns_between_any_two_calls_count_once(world: World, mine: int, theirs: int) -> None:
    first, store = await one_by_one(world, limit=mine)
    other, _ = await one_by_one(world, limit=theirs)
    rng = random.Random(mine)

    async def take_turns(_: str) -> None:
        if rng.random() < 0.3:
            await other.step()

    for seed in range(6):
        produce(world, seed, 40)
        store.pause = take_turns
        await first.step(rng.randint(1, 4))
    await first.level()
    await world.exact()
    await other.level()
    await world.exact()
    assert first.tally.rewinds + other.tally.rewinds == 0


async def test_a_zombie_that_wakes_with_old_memory_adds_nothing(world: World) -> None:
    zombie, _ = await one_by_one(world, limit=4)
    produce(world, seed=3, changes=30)
    await zombie.step(2)
    heir, store = await one_by_one(world, limit=9)
    produce(world, seed=4, changes=60)
    await heir.level()
    await world.exact()
    sent = len(store.sent)
    await zombie.level()
    await world.exact()
    produce(world, seed=5, changes=60)
    await zombie.level()
    await heir.level()
    await world.exact()
    assert len(store.sent) > sent


async def test_what_cancels_out_in_one_batch_is_undone_where_another_owner_applied_its_first_half(world: World) -> None:
    slow, _ = await one_by_one(world, limit=2)
    fast, _ = await one_by_one(world, limit=1)
    await slow.step()
    await fast.step()
    world.put(user(1, "one"))
    await fast.level()
    world.put(follow(1, 1, 2))
    await fast.step()
    world.delete(type(follow(1, 1, 2)), 1)
    world.put(follow(3, 1, 3))
    # to `slow` the follow came and went: nothing to add, were it not for `fast`
    await slow.level()
    await world.exact()


@pytest.mark.parametrize("calls", range(1, 12))
async def test_a_projector_that_dies_between_two_calls_is_continued_by_one_that_drops_what_is_there(world: World, calls: int) -> None:
    dying, store = await one_by_one(world, limit=20)
    produce(world, seed=calls, changes=60)
    left = 2 * calls

    async def die(where: str) -> None:
        nonlocal left
        left -= where != "headers"
        if left < 0:
            raise Crashed

    store.pause = die
    with pytest.raises(Crashed):
        await dying.level()
    heir = await world.owner(limit=3)
    await heir.level()
    await world.exact()
    assert heir.tally.dropped > 0
    assert heir.tally.rewinds == 0


async def test_a_late_change_never_brings_a_deleted_user_back_and_never_loses_a_count(world: World) -> None:
    owner = await world.owner()
    world.put(follow(1, 1, 2))
    await owner.level()
    assert (await world.shown())["2"] is None
    world.put(user(2, "two"))
    await owner.level()
    world.delete(type(user(2, "two")), 2)
    world.put(tweet(1, 2))
    await owner.level()
    assert (await world.shown())["2"] is None
    assert await world.found("two") is None
    world.put(user(2, "again"))
    await owner.level()
    await world.exact()
    assert await world.found("again") == b'"2"'
    (row,) = [fields for key, fields in (await world.shown()).items() if key == "2"]
    assert row is not None
    assert (row["follower_count"], row["tweet_count"]) == (b"1", b"1")


async def test_a_generation_is_promoted_when_its_last_shard_is_level_and_not_before(redis: Redis) -> None:
    world = World(redis)
    partition = world.put(tweet(1, 1))
    await world.begin()
    owner = await world.owner()
    generations = Generations(redis, world.definition)
    level = Watermark(world.topics.ends[partition], 0, "first").encode()
    for header in world.keys.headers:
        # another projector is at it, shard by shard
        await owner.projector._build.settle()
        assert await generations.live() is None
        await redis.hset(header, str(partition), level)
    await owner.projector._build.settle()
    assert await generations.live() == "g1"


async def test_a_projector_that_opens_a_generation_late_does_not_undo_its_promotion(redis: Redis) -> None:
    world = World(redis)
    late = await world.begin()
    await (await world.owner()).level()
    generations = Generations(redis, world.definition)
    promoted = await generations.read("g1")
    assert promoted is not None
    assert promoted.state == "live"
    # what it would do that read the record before all that
    await generations.opened(late, RedisStore.of(redis, world.definition, late))
    assert await generations.read("g1") == promoted


async def test_a_checkpoint_brings_every_shard_to_what_was_folded_and_no_further(world: World) -> None:
    owner = await world.owner(limit=3)
    await owner.step(2)
    for number in range(1, 30):
        world.put(tweet(number, 1), gap=1)
    partition = world.topics.partitions[1 * 2]
    owner.clock.seconds += CHECKPOINT_SECONDS
    await owner.step()
    assert {watermark.offset for watermark in await watermarks(world, owner, str(partition))} == {3}
    assert owner.log.committed[partition] == 3
    await owner.step()
    heir = await world.owner(limit=3)
    await heir.step(2)
    assert heir.log.sought[partition] == 3
    await heir.level()
    assert {watermark.offset for watermark in await watermarks(world, owner, str(partition))} == {world.topics.ends[partition]}
    await world.exact()


async def watermarks(world: World, owner: Owner, partition: str) -> list[Watermark]:
    return [header.watermarks[partition] for header in await owner.store.headers()]
