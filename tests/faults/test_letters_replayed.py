"""Dead letters brought into a view once their decoder is mended: each exactly once, whoever has read their records by then."""

import contextlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis

from projectors.apply import StoreUnavailable
from projectors.letters import Today, read_letters
from tests.faults.arranged import CHECKPOINT_SECONDS, Owner, World
from tests.faults.memory import Rounds
from tests.faults.snapshots import Snapshot, dump, restore
from tests.faults.stores import Crashed, go_on
from tests.faults.stricter import TODAY, Likes, People
from tests.faults.town import Town

HISTORIES = 40
LENGTH = 24


@pytest.fixture
async def town(redis: Redis) -> Town:
    return await Town.open(redis)


def put(town: Town, rows: Iterable[People | Likes]) -> None:
    for row in rows:
        town.world.put(row)


def some(town: Town) -> None:
    """Seven likes of each of five people: of these 11 are refused by yesterday's decoders, three of person 4's among them, and person 3."""
    put(town, [People(number, f"name{number}", None if number == 3 else 1990) for number in range(5)])
    put(town, [Likes(number, number % 5, None if number % 17 < 5 else "") for number in range(35)])


async def test_letters_are_brought_in_once_and_a_second_replay_changes_nothing(town: Town) -> None:
    some(town)
    await (await town.owner(of_today=False)).level()
    before = await town.shown()
    assert (before["3"], before["4"]) == (None, (b'"name4"', b"4"))
    await town.replay()
    await town.exact()
    # of those that are refused each is one letter, buried once
    letters = await read_letters(town.letters, Today(TODAY))
    assert (len(letters), {letter.times for letter in letters}) == (12, {1})
    assert await town.replay() == []
    # one of yesterday that takes it up again buries nothing anew, and one of today goes on
    put(town, [Likes(100, 3, None), Likes(101, 3, "")])
    await (await town.owner(of_today=True)).level()
    await town.exact()
    assert await town.replay() == []


@pytest.mark.parametrize("when", ["before the letters", "before the replay"])
async def test_a_projector_that_was_rewound_in_between_counts_nothing_twice(town: Town, when: str) -> None:
    world = town.world
    old = await town.owner(of_today=False, limit=3)
    put(town, [People(number, f"name{number}", 1990) for number in range(5)])
    await old.level()
    kept = await dump(world.redis, world.keys, world.shard_of(3))
    some(town)
    await old.level()
    if when == "before the replay":
        kept = await dump(world.redis, world.keys, world.shard_of(3))
    await town.replay()
    await town.exact()
    new = await town.owner(of_today=True)
    await new.level()
    await restore(world.redis, kept)
    # it reads again what the shard lost; the others have it already, by the replay. A replay alone that was lost no watermark tells of
    await new.level()
    assert bool(new.tally.rewinds) is (when == "before the letters")
    assert bool(await town.replay()) is (when == "before the replay")
    await town.exact()
    assert await town.replay() == []


@pytest.mark.parametrize("where", ["call", "answer"])
async def test_a_replay_that_was_killed_is_gone_on_with(town: Town, where: str) -> None:
    some(town)
    await (await town.owner(of_today=False)).level()
    kills = 0
    while True:

        async def kill(at: str) -> None:
            if at == where and town.calls < 10:
                raise Crashed

        try:
            await town.replay(kill if kills < 3 else go_on)
            break
        except Crashed:
            kills += 1
    assert kills == 3
    await town.exact()


async def test_a_projector_that_writes_between_look_and_call_loses_nothing(town: Town) -> None:
    some(town)
    await (await town.owner(of_today=False)).level()
    new, races = await town.owner(of_today=True), 0

    async def go_on_with(at: str) -> None:
        nonlocal races
        if at == "call" and races < 3:
            races += 1
            put(town, [Likes(100 + 10 * races + number, number, None) for number in range(5)])
            await new.level()

    assert await town.replay(go_on_with)
    assert races == 3
    await town.exact()
    assert await town.replay() == []


async def test_an_old_row_never_comes_on_top_of_a_newer_one_and_its_name_is_released(town: Town) -> None:
    put(town, [People(1, "a", 1990), People(1, "b", None)])
    town.world.delete(People, 1)
    put(town, [People(1, "c", 1991), People(2, "a", None)])
    await (await town.owner(of_today=False)).level()
    assert await town.world.redis.hkeys(claimants(town.world, "a")) == [b"1"]
    await town.replay()
    await town.exact()
    assert await town.world.redis.hkeys(claimants(town.world, "a")) == [b"2"]


def claimants(world: World, name: str) -> str:
    (lookup,) = TODAY.lookups
    return world.keys.claims_prefix(world.keys.shard(name), "0", lookup) + name


@dataclass(slots=True)
class History:
    """Projectors of yesterday and of today on one view, replays beside them, while Redis forgets and each of them dies."""

    town: Town
    rng: random.Random
    running: list[Owner] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    mended: int = 0

    OPERATIONS = ("produce", "produce", "produce", "step", "step", "step", "replay", "replay", "snapshot", "rollback", "restart")

    LATER = ("produce", "step", "replay", "replay", "snapshot", "rollback")

    async def run(self) -> None:
        self.running = [await self._owner(of_today=False), await self._owner(of_today=True)]
        for _ in range(LENGTH):
            operation = self.rng.choice(self.OPERATIONS)
            self.told.append(operation)
            await getattr(self, f"_{operation}")()

    async def heal(self) -> None:
        """Everybody has the mended decoders, and then the letters are replayed. From now on no replay is needed, and none does harm."""
        self.running = [await self._owner(of_today=True) for _ in range(2)]
        await self.running[0].level()
        self.mended += len(await self.town.replay())
        await self.town.exact()
        self.snapshots.clear()
        for _ in range(LENGTH // 2):
            operation = self.rng.choice(self.LATER)
            self.told.append(operation)
            await getattr(self, f"_{operation}")()
        await self.running[1].level()
        await self.town.exact()
        assert await self.town.replay() == []

    async def _owner(self, *, of_today: bool) -> Owner:
        return await self.town.owner(of_today=of_today, limit=self.rng.randint(1, 9))

    async def _produce(self) -> None:
        rng = self.rng
        for _ in range(rng.randint(1, 6)):
            person, number = rng.randrange(6), rng.randrange(10)
            row = rng.choice(
                (
                    People(person, f"name{rng.randrange(12)}", rng.choice((None, 1990, 1991))),
                    Likes(number, person, rng.choice((None, "", "so"))),
                    Likes(number, person, rng.choice((None, "", "so"))),
                )
            )
            key = getattr(row, type(row).source.key)
            if key in self.town.world.rows[type(row)] and rng.random() < 0.3:
                self.town.world.delete(type(row), key)
            else:
                self.town.world.put(row, gap=rng.choice((0, 0, 1)))

    async def _step(self) -> None:
        owner = self.rng.choice(self.running)
        owner.clock.seconds += self.rng.choice((0, CHECKPOINT_SECONDS))
        await owner.projector.run(Rounds(3))

    async def _replay(self) -> None:
        """With one fault, or a projector that goes on, at one of its first calls."""
        left = self.rng.randint(1, 8)
        happens = self.rng.choice((self._nothing, self._crash, self._away, self._race, self._race, self._rollback))

        async def pause(_: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                await happens()

        with contextlib.suppress(Crashed, StoreUnavailable):
            self.mended += len(await self.town.replay(pause))

    async def _nothing(self) -> None: ...

    async def _race(self) -> None:
        """Rows change, and both projectors go on, before what was looked at is written."""
        await self._produce()
        for owner in self.running:
            await owner.projector.run(Rounds(3))

    async def _crash(self) -> None:
        raise Crashed

    async def _away(self) -> None:
        raise StoreUnavailable("on purpose")

    async def _snapshot(self) -> None:
        world = self.town.world
        self.snapshots.append(await dump(world.redis, world.keys, self.rng.choice((None, *range(world.shards)))))

    async def _rollback(self) -> None:
        if self.snapshots:
            await restore(self.town.world.redis, self.rng.choice(self.snapshots))

    async def _restart(self) -> None:
        self.running[self.rng.randrange(2)] = await self._owner(of_today=self.rng.random() < 0.5)


@pytest.mark.parametrize("first", range(0, 2 * HISTORIES, HISTORIES))
async def test_any_history_of_projectors_of_both_decoders_replays_and_faults_ends_exact(redis: Redis, first: int) -> None:
    mended = calls = 0
    for seed in range(first, first + HISTORIES):
        await redis.flushall()
        history = History(await Town.open(redis, partitions=1), random.Random(seed))
        try:
            await history.run()
            await history.heal()
        except BaseException as error:
            error.add_note(f"seed {seed}: {' '.join(history.told)}")
            raise
        mended, calls = mended + history.mended, calls + history.town.calls
    # a run without them has not looked where the errors would be
    assert mended > 100
    assert calls > 100
