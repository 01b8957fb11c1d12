"""Random histories of damage, repairs, changes and faults: each ends as the plain count, once it is healed and repaired."""

import random
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis

from projectors.apply import StoreUnavailable
from projectors.records.envelope import decoder
from schema.user import Users
from tests.faults.arranged import CHECKPOINT_SECONDS, Owner, Tables, World
from tests.faults.memory import Rounds
from tests.faults.mending import FOLLOWERS, MALLORY, NAME, claims, mender, row, strays
from tests.faults.snapshots import Snapshot, dump, restore
from tests.faults.stores import Crashed, Halting, go_on

HISTORIES = 40
LENGTH = 24


def borne(world: World) -> list[tuple[str, int]]:
    """Every username, with each user that ever bore it."""
    records = [record for partition, stored in world.topics.records.items() if partition.topic == "users" for record in stored]
    changes = [decoder(Users)(record.value) for record in records if record.value is not None]
    return sorted({(side.username, side.user_id) for change in changes for side in (change.before, change.after) if side is not None})


@dataclass(slots=True)
class History:
    """Two owners and a repair on one view, while it is damaged, Redis forgets, and each of them dies or stands still between two calls."""

    world: World
    rng: random.Random
    owners: list[Owner] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    sent: list[Halting] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    mended: int = 0

    OPERATIONS = (
        "produce",
        "produce",
        "step",
        "step",
        "damage",
        "damage",
        "damage",
        "mend",
        "mend",
        "late",
        "rollback",
        "snapshot",
        "restart",
    )

    async def run(self) -> None:
        self.owners = [await self.world.owner(limit=self.rng.randint(1, 9)) for _ in range(2)]
        tables = Tables(self.world, self.rng)
        for _ in range(LENGTH):
            operation = self.rng.choice(self.OPERATIONS)
            self.told.append(operation)
            if operation == "produce":
                for _ in range(self.rng.randint(1, 6)):
                    tables.change()
            else:
                await getattr(self, f"_{operation}")()

    async def heal(self) -> None:
        for owner in self.owners:
            await owner.level()
        self.mended += len(await (await mender(self.world)).run(range(12)))
        assert await strays(self.world) == []
        await self.world.exact()

    async def _step(self) -> None:
        await self.rng.choice(self.owners).projector.run(Rounds(3))

    async def _damage(self) -> None:
        """What no projector stumbles over; those that do are put right by hand first, in the tests above."""
        redis, key = self.world.redis, row(self.world, self.rng.randrange(12))
        name, bearer = self.rng.choice(borne(self.world) or [("nobody", 1)])
        await self.rng.choice(
            (
                lambda: redis.hincrby(key, FOLLOWERS, self.rng.randint(-3, 3)),
                lambda: redis.hset(key, NAME, MALLORY),
                lambda: redis.hdel(key, NAME),
                lambda: redis.delete(key),
                lambda: redis.hset(claims(self.world, name), str(bearer), "1:1") if name != "nobody" else self._go_on(),
                lambda: redis.delete(claims(self.world, name)),
            )
        )()

    async def _mend(self) -> None:
        """With one fault or race at one of its first calls."""
        repair, left = await mender(self.world, limit=self.rng.randint(1, 9)), self.rng.randint(1, 12)
        fault = self.rng.choice((self._go_on, self._crash, self._away, self._step, self._step, self._rollback, self._other))

        async def pause(_: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                await fault()

        repair.store.pause = pause
        self.sent.append(repair.store)
        try:
            self.mended += len(await repair.run(range(12)))
        except (Crashed, StoreUnavailable):
            pass
        finally:
            repair.store.pause = go_on

    async def _other(self) -> None:
        await (await mender(self.world)).run(range(12))

    async def _late(self) -> None:
        """A call of an earlier repair comes now."""
        calls = [(store, call) for store in self.sent for call in store.sent]
        if calls:
            store, call = self.rng.choice(calls)
            await store.apply([call])

    async def _go_on(self) -> None: ...

    async def _crash(self) -> None:
        raise Crashed

    async def _away(self) -> None:
        raise StoreUnavailable("on purpose")

    async def _snapshot(self) -> None:
        shard = self.rng.choice((None, *range(self.world.shards)))
        self.snapshots.append(await dump(self.world.redis, self.world.keys, shard))

    async def _rollback(self) -> None:
        if self.snapshots:
            await restore(self.world.redis, self.rng.choice(self.snapshots))

    async def _restart(self) -> None:
        place = self.rng.randrange(2)
        self.owners[place].clock.seconds += CHECKPOINT_SECONDS
        self.owners[place] = await self.world.owner(limit=self.rng.randint(1, 9))


@pytest.mark.parametrize("first", range(0, 3 * HISTORIES, HISTORIES))
async def test_any_history_of_damage_repairs_changes_and_faults_ends_exact(redis: Redis, first: int) -> None:
    mended = calls = 0
    for seed in range(first, first + HISTORIES):
        await redis.flushall()
        world = World(redis, partitions=1)
        await world.open()
        history = History(world, random.Random(seed))
        try:
            await history.run()
            await history.heal()
        except BaseException as error:
            error.add_note(f"seed {seed}: {' '.join(history.told)}")
            raise
        mended, calls = mended + history.mended, calls + sum(len(store.sent) for store in history.sent)
    # a run without them has not looked where the errors would be
    assert mended > 40
    assert calls > 50
