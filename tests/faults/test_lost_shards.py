"""Shards that are gone under a live generation: the others go on, and they are built again by a projector of their own."""

import random
from collections.abc import Sequence

import msgspec
import pytest

from loaders.view import ViewLoader
from projectors.apply import RedisStore
from projectors.building import Filled, LostShards
from projectors.generations import GenerationDropped, Generations, ShardLost, first_header
from schema import layout
from schema.generation import Generation
from schema.loader import ViewNotReady
from schema.seen import Seen
from tests.faults.arranged import CHECKPOINT_SECONDS, Owner, Tables, World, follow, user
from tests.faults.snapshots import dump, lose, restore
from tests.faults.stores import Crashed, Halting

USERS = range(1, 20)


async def populated(world: World) -> Owner:
    owner = await world.owner()
    for number in USERS:
        world.put(user(number, f"user{number}"))
        world.put(follow(number, number, number % 7 + 1))
    await owner.level()
    await world.exact()
    return owner


def more(world: World, seed: int, changes: int = 60) -> None:
    tables = Tables(world, random.Random(seed))
    for _ in range(changes):
        tables.change()


async def shown_right_or_not_ready(world: World, lost: set[int], reader: ViewLoader) -> None:
    """Users of lost shards are refused; all the others are as they are counted."""
    everybody, expected = world.users, world.counted()
    try:
        for number in everybody:
            world.users = {number}
            if world.shard_of(number) in lost:
                with pytest.raises(ViewNotReady):
                    await world.shown(reader)
            else:
                assert await world.shown(reader) == {str(number): expected[str(number)]}
    finally:
        world.users = everybody


async def finish(owner: Owner) -> None:
    for _ in range(500):
        if owner.projector._build.finished:
            return
        owner.clock.seconds += CHECKPOINT_SECONDS
        await owner.step()
    raise AssertionError("the lost shards are not level after 500 steps")


@pytest.mark.parametrize("shards", [{0}, {1, 2}, {0, 1, 2, 3}])
async def test_the_others_go_on_while_lost_shards_are_built_again_and_no_reader_sees_a_zero(world: World, shards: set[int]) -> None:
    owner, old_reader = await populated(world), ViewLoader(world.redis, world.definition)
    assert await world.shown(old_reader) == world.counted()
    for shard in shards:
        await lose(world.redis, world.keys, shard)
    more(world, seed=1)
    await owner.level()
    assert owner.projector.lost == len(shards)
    for reader in (old_reader, ViewLoader(world.redis, world.definition)):
        await shown_right_or_not_ready(world, shards, reader)
    rebuilder = await world.owner_of_the_lost(limit=2)
    await rebuilder.step(3)
    assert await world.redis.keys(f"{world.keys.rows_prefix(min(shards), '*').replace('{', '[{]')}*") != []
    more(world, seed=2)
    await owner.level()
    for reader in (old_reader, ViewLoader(world.redis, world.definition)):
        await shown_right_or_not_ready(world, shards, reader)
    await finish(rebuilder)
    await owner.level()
    assert owner.projector.lost == 0
    await world.exact()
    assert await world.shown(old_reader) == world.counted()
    more(world, seed=3)
    await owner.level()
    await world.exact()


async def test_an_old_owner_that_remembers_a_lost_shard_writes_nothing_to_it(world: World) -> None:
    zombie = await populated(world)
    await lose(world.redis, world.keys, 1)
    rebuilder = await world.owner_of_the_lost(limit=3)
    more(world, seed=4)
    await rebuilder.step(4)
    await zombie.level()
    await finish(rebuilder)
    await zombie.level()
    await world.exact()


@pytest.mark.parametrize("seed", range(12))
async def test_a_rebuild_of_lost_shards_is_gone_on_with_after_a_crash_and_after_lost_writes(world: World, seed: int) -> None:
    rng = random.Random(seed)
    owner = await populated(world)
    shard = rng.randrange(world.shards)
    await lose(world.redis, world.keys, shard)
    left = rng.randint(2, 30)

    async def die(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Crashed

    rebuilder = await world.owner_of_the_lost(Halting(world.redis, world.keys, "0", die), limit=rng.randint(1, 9))
    earlier = None
    try:
        for _ in range(20):
            await rebuilder.step()
            if rng.random() < 0.2:
                earlier = await dump(world.redis, world.keys, shard)
            if earlier and rng.random() < 0.2:
                await restore(world.redis, earlier)
            more(world, rng.randrange(1000), changes=2)
            await owner.step()
    except Crashed:
        pass
    if rng.random() < 0.3:
        await lose(world.redis, world.keys, shard)
    for _ in range(3):
        await finish(await world.owner_of_the_lost())
        await owner.level()
        if owner.projector.lost == 0:
            break
    await world.exact()


async def test_a_generation_being_dropped_gets_no_shard_back(world: World) -> None:
    owner = await populated(world)
    generations = Generations(world.redis, world.definition)
    await generations.register.remove("g1")
    await lose(world.redis, world.keys, 0)
    with pytest.raises(GenerationDropped):
        await (await _rebuilder_of(world, owner)).level()
    assert not await world.redis.exists(world.keys.headers[0])


async def test_a_record_lost_with_some_shards_is_written_again_by_one_who_knows_it(world: World) -> None:
    owner = await populated(world)
    await world.redis.delete("{user}:generation:g1", "{user}:live")
    await lose(world.redis, world.keys, 2)
    await owner.level()
    await finish(await world.owner_of_the_lost())
    await owner.level()
    await world.exact()


async def test_rows_that_came_from_sql_cannot_be_read_again_from_kafka(world: World) -> None:
    owner = await populated(world)
    generations = Generations(world.redis, world.definition)
    record = await generations.read("g1")
    assert record is not None
    await generations.register.replace(record, msgspec.structs.replace(record, origin="sql"))
    await lose(world.redis, world.keys, 2)
    await owner.level()
    with pytest.raises(ShardLost, match="came from SQL"):
        await (await world.owner_of_the_lost()).level()


async def test_rows_of_a_later_moment_are_shown_when_the_log_was_read_as_far(world: World) -> None:
    owner = await populated(world)
    record = await Generations(world.redis, world.definition).read("g1")
    assert record is not None
    partition, end = next((at, end) for at, end in world.topics.ends.items() if at.topic.endswith("follows"))

    async def fill(record: Generation, shards: Sequence[int]) -> Filled:
        return Filled({shard: first_header(record, "later") for shard in shards}, {str(partition): end + 1})

    await lose(world.redis, world.keys, 2)
    await owner.level()
    store, ends = RedisStore.of(world.redis, world.definition, record), {str(p): offset for p, offset in world.topics.ends.items()}
    rebuilder = world._owner(LostShards(Generations(world.redis, world.definition), store, record, ends, fill), store, 7, 0)
    await rebuilder.level()
    assert (await store.headers())[2].state == layout.BUILDING
    number = 1000
    while world.topics.ends[partition] == end:
        world.put(follow(number := number + 1, 1, 2))
    await finish(rebuilder)
    await owner.level()
    assert (await store.headers())[2].state == layout.LIVE
    await world.exact()


async def test_a_shard_keeps_what_its_rows_have_seen(world: World) -> None:
    await populated(world)
    record = await Generations(world.redis, world.definition).read("g1")
    assert record is not None
    seen = Seen(2**63 - 1, 2**40, frozenset({2**39, 7}))
    record = msgspec.structs.replace(record, name="g2", seen=seen, slot="app", state="opening")
    store = RedisStore.of(world.redis, world.definition, record)
    await Generations(world.redis, world.definition).opened(record, store)
    assert {header.seen for header in await store.headers()} == {seen}
    assert Generation.decode(record.encode()) == record


async def _rebuilder_of(world: World, owner: Owner) -> Owner:
    record = owner.projector._build.record
    await Generations(world.redis, world.definition).register.restore(record)
    rebuilder = await world.owner_of_the_lost()
    await world.redis.delete("{user}:generation:g1")
    return rebuilder
