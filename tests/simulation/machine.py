"""What may happen to a view, as a state machine that Hypothesis drives: each history ends healed, and equal to a plain count."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import structlog
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from schema import layout
from tests.simulation.store import NODES
from tests.simulation.world import SHARDS, Owner, World, at_pause, away, crash

SEEDS, SOME = st.integers(0, 2**32 - 1), st.integers(0, 11)
NODE = st.integers(0, NODES - 1)
PAUSES = st.integers(1, 12)


class Histories(RuleBasedStateMachine):
    """One loop for all histories of a process: a machine is made for each."""

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def _do(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(what)

    def _owner(self, number: int) -> Owner | None:
        return self.world.owners[number % len(self.world.owners)] if self.world.owners else None

    @initialize(seed=SEEDS, limit=st.integers(1, 9), other=st.integers(1, 9))
    def begin(self, seed: int, limit: int, other: int) -> None:
        rng = random.Random(seed)
        for _ in range(rng.randrange(12)):
            self.world.change(rng)

        async def go() -> None:
            await self.world.open(by_itself=True)
            (record,) = await self.world.fed()
            for most in (limit, other):
                await self.world.begin(record, most)

        self._do(go())

    @rule(seed=SEEDS)
    def produce(self, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(rng.randint(1, 6)):
            self.world.change(rng)

    @rule(back=st.integers(1, 12))
    def send_again(self, back: int) -> None:
        """An at-least-once connector was killed: it sends what it sent last once more, at new offsets."""
        self.world.connector.send_again(back)

    @rule(which=SOME, rounds=st.integers(1, 4))
    def project(self, which: int, rounds: int) -> None:
        if owner := self._owner(which):
            self._do(self.world.step(owner, rounds))

    @rule(which=SOME, rounds=st.integers(1, 4))
    def project_more(self, which: int, rounds: int) -> None:
        self.project(which, rounds)

    @rule(which=SOME, limit=st.integers(1, 9))
    def start(self, which: int, limit: int) -> None:
        """One more projector; the one that it stands in for lives on as a zombie with old memory, and may be woken."""

        async def go() -> None:
            if records := await self.world.fed():
                await self.world.begin(records[which % len(records)], limit)

        self._do(go())

    @rule(which=SOME, pause=PAUSES)
    def crash(self, which: int, pause: int) -> None:
        """Between any two calls."""
        if owner := self._owner(which):
            self._do(self.world.step(owner, 3, at_pause(pause, crash)))

    @rule(which=SOME, pause=PAUSES)
    def go_away(self, which: int, pause: int) -> None:
        """Redis, from one projector: it cannot know whether its call was carried out."""
        if owner := self._owner(which):
            self._do(self.world.step(owner, 3, at_pause(pause, away)))

    @rule(which=SOME, other=SOME, pause=PAUSES)
    def race(self, which: int, other: int, pause: int) -> None:
        """One runs while another stands between two of its calls."""
        first, second = self._owner(which), self._owner(other)
        if first and second and first is not second:

            async def let_run() -> None:
                await self.world.step(second)

            self._do(self.world.step(first, 3, at_pause(pause, let_run)))

    @rule(which=SOME, number=st.integers(0, 2**16))
    def repeat(self, which: int, number: int) -> None:
        """A client's retry that arrives late."""
        owner = self._owner(which)
        if owner and owner.store.sent:
            owner.store.carry_out(owner.store.sent[number % len(owner.store.sent)])

    @rule(which=SOME, other=SOME, seed=SEEDS)
    def rebalance(self, which: int, other: int, seed: int) -> None:
        """Some partitions go from one projector to another of the same generation; the first may not hear of it in time."""
        first, second, rng = self._owner(which), self._owner(other), random.Random(seed)
        if first and second and first is not second and first.generation == second.generation:
            moved = rng.sample(self.world.topics.partitions, 2)
            second.log.assigned = [*second.log.assigned, *(p for p in moved if p not in second.log.mine)]
            if rng.random() < 0.7:
                first.log.revoked = [*first.log.revoked, *(p for p in moved if p in first.log.mine)]

    @rule(node=NODE)
    def replicate(self, node: int) -> None:
        self.world.cluster.replicate(node)

    @rule(node=NODE)
    def fail_over(self, node: int) -> None:
        """The tail of one node's writes is gone."""
        self.world.cluster.fail_over(node)

    @rule(node=NODE, seed=SEEDS)
    def empty(self, node: int, seed: int) -> None:
        """A node comes back with nothing; one time in three, for else little else would be seen."""
        if random.Random(seed).random() < 0.3:
            self.world.cluster.empty(node)

    @rule(seed=SEEDS)
    def take_snapshot(self, seed: int) -> None:
        """Once in a history, and not in all; whatever was being read then can only be built anew, from there."""
        if not self.world.snapshot_at and random.Random(seed).random() < 0.1:
            self.world.take_snapshot()

    @rule()
    def rebuild(self) -> None:
        """The next generation, beside those that are there."""

        async def go() -> None:
            if len(await self.world.generations.all()) < 3:
                await self.world.open(by_itself=False)

        self._do(go())

    @rule(which=SOME, limit=st.integers(1, 9))
    def rebuild_lost(self, which: int, limit: int) -> None:
        async def go() -> None:
            records = [record for record in await self.world.fed() if record.state in {"live", "retired"}]
            if records:
                await self.world.begin(records[which % len(records)], limit, lost=True)

        self._do(go())

    @rule(which=SOME)
    def promote(self, which: int) -> None:
        """Or roll back: any that is not live."""

        async def go() -> None:
            live = await self.world.generations.live()
            records = [record for record in await self.world.fed() if record.name != live and record.state != "opening"]
            if records:
                await self.world.promote(records[which % len(records)])

        self._do(go())

    @rule(which=SOME)
    def drop(self, which: int) -> None:
        async def go() -> None:
            records = [
                record for record in await self.world.generations.all() if record.state in {"retired", "building"} and not record.by_itself
            ]
            if records:
                await self.world.drop(records[which % len(records)])

        self._do(go())

    @rule(which=SOME, pause=PAUSES, seed=SEEDS)
    def mend(self, which: int, pause: int, seed: int) -> None:
        """Rows that somebody else has damaged, while changes come and projectors run between two steps of the repair."""
        rng = random.Random(seed)

        async def go() -> None:
            records = [record for record in await self.world.fed() if record.state != "opening"]
            if not records:
                return
            record = records[which % len(records)]

            async def let_run() -> None:
                for _ in range(6):
                    self.world.change(rng)
                for owner in [owner for owner in self.world.owners if owner.generation == record.name]:
                    await self.world.step(owner)

            await self.world.mend(record, rng, at_pause(pause % 6 + 1, let_run))

        self._do(go())

    @invariant()
    def every_shard_is_what_its_watermarks_say(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """Whatever has happened: healed within a bounded number of rounds, and exact."""

        async def go() -> None:
            await self.world.heal()
            self.world.check()
            await self.world.exact()

        self._do(go())


def quiet() -> None:
    """Without the projector's log, of which there would be a million lines."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    assert SHARDS <= layout.SHARDS
