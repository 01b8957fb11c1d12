"""Damaged rows and claims are put right at the watermarks of their shard, and nothing else is touched."""

import random
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from projectors.audit import Mismatch
from projectors.repair import RepairStuck
from projectors.replay import ReplayImpossible
from tests.faults.arranged import Tables, World, follow
from tests.faults.mending import FOLLOWERS, MALLORY, NAME, PEOPLE, MemoryBase, claims, mender, populated, row, stand_still, strays
from tests.faults.snapshots import dump, lose, restore

Damage = Callable[[World], Awaitable[object]]


@pytest.mark.parametrize(
    ("damage", "ids", "told"),
    [
        (lambda w: w.redis.hincrby(row(w, 2), FOLLOWERS, 40), [2], [Mismatch("2", "follower_count", b"44", b"4")]),
        (lambda w: w.redis.hset(row(w, 2), FOLLOWERS, "many"), [2], [Mismatch("2", "follower_count", b"many", b"4")]),
        (lambda w: w.redis.hset(row(w, 5), NAME, MALLORY), [5], [Mismatch("5", "name", b'"Mallory"', b'"Name 5"')]),
        (lambda w: w.redis.hdel(row(w, 5), NAME), [5], [Mismatch("5", "name", None, b'"Name 5"')]),
        (lambda w: w.redis.hset(row(w, 5), "zz", "1"), [5], [Mismatch("5", "zz", b"1", None)]),
        (lambda w: w.redis.delete(row(w, 5)), [5], [Mismatch("5", "id", None, b'"5"')]),
        (lambda w: replaced(w.redis, row(w, 5)), [5], [Mismatch("5", "key", b"of another type", b'"5"')]),
        (lambda w: w.redis.hset(row(w, 99), mapping={"0": '"ghost"', FOLLOWERS: "3"}), [99], [Mismatch("99", "id", b'"99"', None)]),
        (lambda w: w.redis.hset(row(w, 99), FOLLOWERS, "3"), [99], [Mismatch("99", "follower_count", b"3", None)]),
        (lambda w: w.redis.hset(row(w, "x"), "0", '"x"'), ["x"], [Mismatch("x", "id", b'"x"', None)]),
        (lambda w: w.redis.delete(row(w, 70)), [70], [Mismatch("70", "follower_count", None, b"1")]),
        (lambda w: w.redis.hdel(claims(w, "user5"), "5"), [5], [Mismatch("user5", "by username", None, b'"5"')]),
        (lambda w: w.redis.hset(claims(w, "user3"), "3", "9:9"), [3], [Mismatch("user3", "by username", b'"3"', None)]),
        (lambda w: replaced(w.redis, claims(w, "user5")), [5], [Mismatch("user5", "by username", b"of another type", b'"5"')]),
    ],
)
async def test_whatever_is_damaged_is_put_right_and_told(world: World, damage: Damage, ids: list[int | str], told: list[Mismatch]) -> None:
    await populated(world)
    await damage(world)
    repair = await mender(world)
    assert await repair.run(ids) == told
    await world.exact()
    assert await strays(world) == []
    assert await repair.run([*PEOPLE, *ids, 70]) == []


async def replaced(redis: Redis, key: str) -> None:
    await redis.delete(key)
    await redis.rpush(key, "a list")


async def test_a_repair_that_loses_the_race_changes_nothing_and_tries_again_at_the_new_watermarks(world: World) -> None:
    owner, repair = await populated(world), await mender(world)
    await world.redis.hincrby(row(world, 2), FOLLOWERS, 40)
    races = 3

    async def race(where: str) -> None:
        nonlocal races
        if where == "call" and races:
            races -= 1
            world.put(follow(200 + races, 5, 2))
            await owner.level()

    repair.store.pause = race
    assert await repair.run([2]) == [Mismatch("2", "follower_count", b"47", b"7")]
    assert len(repair.store.sent) == 4
    await world.exact()


async def test_a_repair_that_is_sent_again_late_changes_nothing(world: World) -> None:
    owner, repair = await populated(world), await mender(world)
    tables = Tables(world, random.Random(1))
    for round_ in range(5):
        await world.redis.hincrby(row(world, round_), FOLLOWERS, 40)
        await world.redis.hdel(claims(world, f"user{round_}"), str(round_))
        await repair.run(range(5))
        for _ in range(20):
            tables.change()
        await owner.level()
        for call in list(repair.store.sent):
            await repair.store.apply([call])
        await world.exact()
    assert len(repair.store.sent) > 5


@pytest.mark.parametrize("seed", range(12))
async def test_a_view_that_is_behind_the_log_is_mended_to_what_it_has_and_not_beyond(world: World, seed: int) -> None:
    owner, rng = await populated(world), random.Random(seed)
    owner.log.limit = rng.randint(1, 4)
    tables, repair = Tables(world, rng, users=16), await mender(world, limit=rng.randint(1, 9))
    for _ in range(4):
        for _ in range(30):
            tables.change()
        await owner.step(rng.randint(0, 3))
        for number in range(0, 16, 3):
            await world.redis.hset(row(world, number), FOLLOWERS, "77")
        await repair.run(range(16))
        assert await repair.run(range(16)) == []
    await owner.level()
    await world.exact()


@pytest.mark.parametrize("seed", range(6))
async def test_from_rows_of_a_database_only_what_came_after_them_is_read(world: World, seed: int) -> None:
    owner = await populated(world)
    tables = Tables(world, random.Random(seed), users=16)
    base = MemoryBase(world)
    for _ in range(60):
        tables.change()
    await owner.level()
    for number in range(0, 16, 3):
        await world.redis.hset(row(world, number), FOLLOWERS, "77")
        await world.redis.hset(row(world, number), NAME, MALLORY)
    # nothing before the rows is there any more
    for partition, records in world.topics.records.items():
        world.topics.records[partition] = [record for record in records if record.offset >= base.offsets[partition]]
    repair = await mender(world, base)
    expected = world.counted()
    assert {m.id for m in await repair.run(range(16))} == {str(number) for number in range(0, 16, 3)}
    assert await world.shown() == expected


async def test_a_database_that_is_ahead_of_the_view_is_waited_for(world: World) -> None:
    owner = await populated(world)
    world.put(follow(300, 5, 2))
    repair = await mender(world, MemoryBase(world))
    with pytest.raises(RepairStuck, match="the view is behind SQL and stands still"):
        await repair.run([2])
    await owner.level()
    assert await repair.run([2]) == []


async def test_a_shard_that_is_being_built_again_is_left_alone(world: World) -> None:
    owner, repair = await populated(world), await mender(world)
    await lose(world.redis, world.keys, world.shard_of(2))
    await owner.level()
    rebuilder = await world.owner_of_the_lost(limit=2)
    await rebuilder.step(3)
    with pytest.raises(RepairStuck, match=f"shard {world.shard_of(2)} is building"):
        await repair.run([2])
    assert repair.store.sent == []


async def test_a_shard_that_comes_back_while_the_log_is_read_loses_nothing(world: World) -> None:
    owner, repair = await populated(world), await mender(world)
    kept = await dump(world.redis, world.keys, None)
    await lose(world.redis, world.keys, world.shard_of(2))

    async def come_back() -> None:
        repair.tail.asked = stand_still
        await restore(world.redis, kept)

    repair.tail.asked = come_back
    assert await repair.run(PEOPLE) == []
    await owner.level()
    await world.exact()


async def test_what_lies_before_the_beginning_of_the_log_cannot_be_put_right(world: World) -> None:
    await populated(world)
    repair = await mender(world)
    repair.tail.first = 1
    with pytest.raises(ReplayImpossible, match="Kafka no longer has the beginning of users:0"):
        await repair.run([2])
