"""A person erased while projectors write: whatever comes between two steps, the view ends as the count, and what was left is gone."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
import pytest
from redis.asyncio import Redis

from projectors.erasure import Bearing, Erasure, NotSettled
from projectors.generations import Generations
from schema.definition import read_definition
from schema.fields import Column, Count, Row
from schema.generation import Generation
from schema.positions import Partition
from schema.user import Follows, Likes, Users
from tests.faults.arranged import CHECKPOINT_SECONDS, DEFINITION, Owner, Tables, World, follow, user
from tests.faults.memory import HandClock
from tests.request.arranged import View

HISTORIES = 20
USERS = 5
NAMES = [f"name{number}" for number in range(20)]
INTERRUPTED = {"hget", "hgetall", "eval", "exists"}


class Aged(Row, topic="aged", key="aged_id"):
    aged_id: int
    age: int


@dataclass
class AgedView:
    id: str
    age: Annotated[int, Column(Aged)]
    likes: Annotated[int, Count(Likes, by="user_id")]


class Interrupted:
    """A client of Redis before each of whose commands somebody else may have a turn."""

    def __init__(self, redis: Redis, history: "History") -> None:
        self._redis, self._history = redis, history

    def __getattr__(self, name: str) -> Any:
        command = getattr(self._redis, name)
        if name == "pipeline":
            return self._pipeline
        if name not in INTERRUPTED:
            return command

        async def after_a_turn(*arguments: Any, **named: Any) -> Any:
            await self._history.turn()
            return await command(*arguments, **named)

        return after_a_turn

    def _pipeline(self, **how: Any) -> Any:
        made: Any = self._redis.pipeline(**how)
        execute = made.execute

        async def after_a_turn() -> Any:
            await self._history.turn()
            return await execute()

        made.execute = after_a_turn
        return made


class History(HandClock):
    """Changes, a projector, and erasures of those who are gone, which may be created anew meanwhile. Its clock goes on by its turns."""

    def __init__(self, world: World, seed: int) -> None:
        super().__init__()
        self.rng, self._world = random.Random(seed), world
        self._tables = Tables(world, self.rng, users=USERS, rows=6)
        self.erased = self.unsettled = 0

    async def run(self) -> None:
        self._owner: Owner = await self._world.owner(limit=self.rng.randint(1, 5))
        for _ in range(20):
            for _ in range(self.rng.randint(1, 4)):
                await self.turn()
            if gone := sorted(self._world.users - self._world.rows[Users].keys()):
                await self.erase(self.rng.choice(gone))

    async def turn(self) -> None:
        """Nothing mostly, or some changes, or a step of the projector."""
        what = self.rng.random()
        if what < 0.15:
            self._tables.change()
        elif what < 0.3:
            self._owner.clock.seconds += self.rng.choice((0, CHECKPOINT_SECONDS))
            await self._owner.step()

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self.turn()

    async def erase(self, row_id: int) -> None:
        """One who is gone, and claims a name that nothing releases."""
        record = await live(self._world)
        name = self.rng.choice(NAMES)
        await self._world.redis.hset(claim_key(self._world, record, name), str(row_id), "1:1")
        erasure = Erasure(Interrupted(self._world.redis, self), DEFINITION, str(row_id), NAMES)  # type: ignore[arg-type]  # acts as one
        try:
            await erasure.erase_settled(record, self.ends, self, self.seconds + 20)
            self.erased += 1
        except NotSettled:
            self.unsettled += 1
            await self._clean(record, name, row_id)

    async def _clean(self, record: Generation, name: str, row_id: int) -> None:
        """As nobody else would: the row is there again, and claims what it bears."""
        key = claim_key(self._world, record, name)
        if await self._world.redis.hget(key, str(row_id)) == b"1:1":
            await self._world.redis.hdel(key, str(row_id))

    async def ends(self) -> Mapping[Partition, int]:
        await self.turn()
        return dict(self._world.topics.ends)

    async def heal(self) -> None:
        await self._owner.level()
        await self._world.exact()


async def live(world: World) -> Generation:
    record = await Generations(world.redis, world.definition).read("g1")
    assert record is not None
    return record


def claim_key(world: World, record: Generation, name: str) -> str:
    return world.keys.claims_prefix(world.keys.shard(name), record.build, DEFINITION.lookups[0]) + name


def row_key(world: World, record: Generation, row_id: int) -> str:
    return world.keys.rows_prefix(world.shard_of(row_id), record.build) + str(row_id)


async def test_an_erasure_between_any_two_steps_of_a_projector_leaves_the_view_exact(redis: Redis) -> None:
    erased = unsettled = 0
    for seed in range(HISTORIES):
        await redis.flushall()
        world = World(redis)
        await world.open()
        history = History(world, seed)
        try:
            await history.run()
            await history.heal()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        erased, unsettled = erased + history.erased, unsettled + history.unsettled
    # a run without both has not raced
    assert erased > HISTORIES
    assert unsettled > 0


@pytest.fixture
async def world(redis: Redis) -> World:
    """User 1, who is called name1, follows user 2 and is followed by nobody; all of it is in the view."""
    made = World(redis)
    await made.open()
    for row in (user(1, "name1", "One"), user(2, "name2"), follow(7, 1, 2)):
        made.put(row)
    await (await made.owner()).level()
    return made


async def test_what_is_found_is_erased_and_nothing_of_a_stranger(world: World) -> None:
    record, erasure = await live(world), Erasure(world.redis, DEFINITION, "1")
    before = await erasure.find(record)
    assert before.claims.keys() == {Bearing("username", "name1")}
    assert (len(before.profile), before.counts) == (len(DEFINITION.columns), {"following_count": 1})
    assert await erasure.erase(before)
    after = await erasure.find(record)
    assert (after.profile, after.claims, after.counts, after.is_erasable) == ({}, {}, before.counts, False)
    shown = await world.shown()
    assert (shown["1"], shown["2"]) == (None, world.counted()["2"])
    assert (await world.found("name1"), await world.found("name2")) == (None, b'"2"')


async def test_a_count_that_stays_goes_on_being_right(world: World) -> None:
    record, erasure = await live(world), Erasure(world.redis, DEFINITION, "1")
    assert await erasure.erase(await erasure.find(record))
    world.delete(Users, 1)
    owner = await world.owner()
    await owner.level()
    assert (await erasure.find(record)).counts == {"following_count": 1}
    world.delete(Follows, 7)
    await owner.level()
    assert not (await erasure.find(record)).has_row
    await world.exact()


@pytest.mark.parametrize("change", ["profile", "claim"])
async def test_what_has_changed_since_it_was_found_is_left_as_it_is(world: World, change: str) -> None:
    record, erasure = await live(world), Erasure(world.redis, DEFINITION, "1")
    found = await erasure.find(record)
    if change == "claim":
        # their claims of a name lie on its own shard
        found = replace(found, profile={}, has_row=False)
        world.put(user(1, "name3"))
    world.put(user(1, "name1", "Another"))
    await (await world.owner()).level()
    assert not await erasure.erase(found)
    await world.exact()


async def test_a_row_of_zeros_without_a_profile_goes(world: World) -> None:
    record, erasure = await live(world), Erasure(world.redis, DEFINITION, "3")
    await world.redis.hset(row_key(world, record, 3), mapping={record.codes["like_count"]: "0"})
    found = await erasure.find(record)
    assert found.is_erasable
    assert await erasure.erase(found)
    assert not await world.redis.exists(row_key(world, record, 3))


async def test_a_column_of_numbers_is_no_count(redis: Redis) -> None:
    view = View(redis, definition=read_definition(AgedView))
    await redis.hset(view.key("1"), mapping={view.code("age"): "44", view.code("likes"): "3", "z9": "5", "z8": '"left"'})
    erasure = Erasure(redis, view.definition, "1")
    found = await erasure.find(view.record)
    assert found.profile.keys() == {view.code("age"), "z8"}
    assert found.counts == {"likes": 3, "z9": 5}
    assert await erasure.erase(found)
    assert (await redis.hgetall(view.key("1"))).keys() == {view.code("likes").encode(), b"z9"}


async def test_what_builds_left_that_nobody_reads_is_found_by_a_scan_and_goes(world: World) -> None:
    record, erasure = await live(world), Erasure(world.redis, DEFINITION, "1", ["name1"])
    old = replace_build(record, "dead")
    await world.redis.hset(row_key(world, old, 1), mapping={record.codes["username"]: "name1", record.codes["follower_count"]: "3"})
    await world.redis.hset(claim_key(world, old, "name9"), "1", "1:1")
    await world.redis.hset(row_key(world, old, 2), mapping={record.codes["follower_count"]: "3"})
    assert (await erasure.find(record)).stale == []
    await erasure.scan(record)
    found = await erasure.find(record)
    assert set(found.stale) == {row_key(world, old, 1), claim_key(world, old, "name9")}
    assert found.claims.keys() == {Bearing("username", "name1")}
    assert await erasure.erase(found)
    assert not await world.redis.exists(*found.stale)
    assert await world.redis.exists(row_key(world, old, 2))


async def test_a_build_that_has_become_the_one_that_is_read_is_no_old_one(world: World) -> None:
    record, erasure = await live(world), Erasure(world.redis, DEFINITION, "1")
    new = replace_build(record, "next")
    await world.redis.hset(row_key(world, new, 1), mapping={record.codes["follower_count"]: "3"})
    await erasure.scan(record)
    found = await erasure.find(record)
    assert list(found.stale) == [row_key(world, new, 1)]
    await world.redis.hset(world.keys.headers[world.shard_of(1)], "build", "next")
    assert not await erasure.erase(found)
    assert await world.redis.hgetall(row_key(world, new, 1)) == {record.codes["follower_count"].encode(): b"3"}


async def test_a_scan_finds_names_that_nobody_knows_any_more(world: World) -> None:
    record, erasure = await live(world), Erasure(world.redis, DEFINITION, "2")
    await world.redis.hset(claim_key(world, record, "a:b}@c"), "2", "1:1")
    await world.redis.hset(claim_key(world, record, "stranger"), "1", "1:1")
    await erasure.scan(record)
    assert erasure.values == {"name2", "a:b}@c"}
    assert {claim.value for claim in (await erasure.find(record)).claims} == {"name2", "a:b}@c"}


async def test_a_projector_that_is_behind_and_a_row_that_is_there_are_told(world: World) -> None:
    record, erasure, clock = await live(world), Erasure(world.redis, DEFINITION, "1"), HandClock()

    async def ends() -> Mapping[Partition, int]:
        return dict(world.topics.ends)

    with pytest.raises(NotSettled, match="generation g1 is level with Kafka and still has the profile"):
        await erasure.erase_settled(record, ends, clock, until=1)
    world.delete(Users, 1)
    with pytest.raises(NotSettled, match="generation g1 is 1 records behind Kafka"):
        await erasure.erase_settled(record, ends, clock, until=clock.seconds + 1)
    await (await world.owner()).level()
    assert not (await erasure.erase_settled(record, ends, clock, until=clock.seconds + 1)).is_erasable


def replace_build(record: Generation, build: str) -> Generation:
    return msgspec.structs.replace(record, build=build)
