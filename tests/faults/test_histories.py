"""Random histories of changes and faults, each healed and then compared with a plain count."""

import random
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from projectors.apply import StoreUnavailable
from tests.faults.arranged import CHECKPOINT_SECONDS, Owner, Tables, World
from tests.faults.memory import Rounds
from tests.faults.snapshots import Snapshot, dump, restore
from tests.faults.stores import Crashed, Halting, go_on

HISTORIES = 60
LENGTH = 26
OFTEN = ("produce", "produce", "produce", "step", "step", "step", "checkpoint")
FAULTS = ("crash", "rollback", "snapshot", "restart", "race", "away")


class History:
    """Two owners of all partitions that fold the same changes, while Redis forgets and they die."""

    def __init__(self, world: World, seed: int) -> None:
        self._rng = random.Random(seed)
        self._world = world
        self._tables = Tables(world, self._rng)
        self._owners: list[Owner] = []
        self._all: list[Owner] = []
        self._snapshots: list[Snapshot] = []
        self.told: list[str] = []

    async def run(self) -> None:
        self._owners = [await self._owner(), await self._owner()]
        for _ in range(LENGTH):
            operation = self._rng.choice(OFTEN + FAULTS)
            self.told.append(operation)
            await getattr(self, f"_{operation}")()

    async def heal(self) -> tuple[int, int]:
        """One owner up to the end, then the other; how many changes all of them dropped, and how often they read again."""
        self._rng.shuffle(self._owners)
        for owner in self._owners:
            await owner.level()
            await self._world.exact()
        return sum(owner.tally.dropped for owner in self._all), sum(owner.tally.rewinds for owner in self._all)

    async def _owner(self) -> Owner:
        store = Halting(self._world.redis, self._world.keys, "0")
        self._all.append(await self._world.owner(store, limit=self._rng.randint(1, 9), stale=self._rng.randint(0, 2)))
        return self._all[-1]

    async def _produce(self) -> None:
        for _ in range(self._rng.randint(1, 6)):
            self._tables.change()

    async def _step(self) -> None:
        await self._rng.choice(self._owners).step()

    async def _crash(self) -> None:
        """One owner dies before or after one of its next calls, and is started again."""
        place = self._rng.randrange(2)

        async def die() -> None:
            raise Crashed

        try:
            await self._run(self._owners[place], die)
        except Crashed:
            self._owners[place] = await self._owner()

    async def _away(self) -> None:
        """Redis goes away from one owner, before a call or before its answer."""

        async def go() -> None:
            raise StoreUnavailable("on purpose")

        await self._run(self._rng.choice(self._owners), go)

    async def _race(self) -> None:
        """One owner runs while the other stands between two of its calls."""
        place = self._rng.randrange(2)
        other, rounds = self._owners[1 - place], self._rng.randint(1, 3)

        async def let_run() -> None:
            await other.step(rounds)

        await self._run(self._owners[place], let_run)

    async def _run(self, owner: Owner, fault: Callable[[], Awaitable[None]]) -> None:
        """A few rounds of the production loop, with one fault at one of the first places where there may be one."""
        left = self._rng.randint(1, 6)

        async def pause(_: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                await fault()

        store = owner.store
        assert isinstance(store, Halting)
        store.pause = pause
        try:
            await owner.projector.run(Rounds(3))
        finally:
            store.pause = go_on

    async def _snapshot(self) -> None:
        shard = self._rng.choice((None, *range(self._world.shards)))
        self._snapshots.append(await dump(self._world.redis, self._world.keys, shard))

    async def _rollback(self) -> None:
        if self._snapshots:
            await restore(self._world.redis, self._rng.choice(self._snapshots))

    async def _restart(self) -> None:
        self._owners[self._rng.randrange(2)] = await self._owner()

    async def _checkpoint(self) -> None:
        owner = self._rng.choice(self._owners)
        owner.clock.seconds += CHECKPOINT_SECONDS
        await owner.step()


@pytest.mark.parametrize("first", range(0, 4 * HISTORIES, HISTORIES))
async def test_any_history_of_changes_and_faults_is_exact_once_healed(redis: Redis, first: int) -> None:
    dropped = rewinds = 0
    for seed in range(first, first + HISTORIES):
        await redis.flushall()
        world = World(redis, partitions=1)
        await world.open()
        history = History(world, seed)
        try:
            await history.run()
            duplicates, rewound = await history.heal()
        except BaseException as error:
            error.add_note(f"seed {seed}: {' '.join(history.told)}")
            raise
        dropped, rewinds = dropped + duplicates, rewinds + rewound
    # a run without them has not looked where the errors would be
    assert dropped > 100
    assert rewinds > 20
