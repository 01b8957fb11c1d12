"""Batches in the air: in the order of their partition, beside those of others, and nothing that they raise is lost."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from projectors.flights import AT_ONCE, Flights
from projectors.log import Batch, Fetched
from schema.positions import Partition
from tests.faults.memory import Rounds
from tests.simulation.world import Owner, World

A, B, C, *_ = MORE = [Partition("people", number) for number in range(AT_ONCE + 1)]


def batch(partition: Partition, start: int) -> Batch:
    return Batch(partition, start, start + 1, ())


class Runway:
    """What each batch does is told by the test."""

    def __init__(self) -> None:
        self.begun: list[tuple[Partition, int]] = []
        self.ended: list[tuple[Partition, int]] = []
        self.may_end: dict[tuple[Partition, int], asyncio.Event] = {}
        self.raises: dict[tuple[Partition, int], Exception] = {}
        self.flights = Flights(self._project)

    async def _project(self, batch: Batch) -> None:
        which = batch.partition, batch.start
        self.begun.append(which)
        await self.may_end.setdefault(which, asyncio.Event()).wait()
        if which in self.raises:
            raise self.raises[which]
        self.ended.append(which)

    def begin(self, partition: Partition, start: int) -> None:
        self.flights.begin(batch(partition, start))

    def end(self, partition: Partition, start: int) -> None:
        self.may_end.setdefault((partition, start), asyncio.Event()).set()


async def turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_batch_waits_for_the_one_before_of_its_partition_and_not_for_others() -> None:
    runway = Runway()
    for partition, start in ((A, 0), (A, 1), (B, 0)):
        runway.begin(partition, start)
    await turns()
    assert runway.begun == [(A, 0), (B, 0)]
    runway.end(A, 0)
    await turns()
    assert runway.begun == [(A, 0), (B, 0), (A, 1)]
    await runway.flights.abandon()


async def test_no_more_than_so_many_are_worked_on_and_room_waits_for_one_of_them() -> None:
    runway = Runway()
    for partition in MORE:
        runway.begin(partition, 0)
    room = asyncio.create_task(runway.flights.room())
    await turns()
    assert [partition for partition, _ in runway.begun] == MORE[:AT_ONCE]
    assert not room.done()
    runway.end(B, 0)
    await asyncio.wait_for(room, 5)
    await turns()
    assert [partition for partition, _ in runway.begun] == MORE
    await runway.flights.abandon()


@pytest.mark.parametrize("waiting", [Flights.room, Flights.land])
async def test_what_one_raises_is_raised_when_the_others_have_ended(waiting: Callable[[Flights], Awaitable[None]]) -> None:
    runway = Runway()
    runway.raises[A, 0] = ValueError("of the first")
    for partition in MORE:
        runway.begin(partition, 0)
        runway.end(partition, 0)
    with pytest.raises(ValueError, match="of the first"):
        await waiting(runway.flights)
    assert [partition for partition, _ in runway.ended] == MORE[1:]
    # it is told once
    await runway.flights.land()


async def test_what_is_abandoned_ends_without_having_been_done() -> None:
    runway = Runway()
    runway.begin(A, 0)
    await turns()
    await runway.flights.abandon()
    assert (runway.begun, runway.ended) == ([(A, 0)], [])
    await runway.flights.land()


def test_a_log_has_more_only_where_something_came() -> None:
    ends = {A: 5, B: 7}
    assert not Fetched(ends=ends).has_more({A: 0, B: 0})
    assert Fetched([Batch(A, 0, 4, ())], ends=ends).has_more({A: 0, B: 7})
    assert Fetched([Batch(A, 0, 5, ())], ends=ends).has_more({A: 0, B: 6})
    assert not Fetched([Batch(A, 0, 5, ())], ends=ends).has_more({A: 0, B: 7})


async def under_way() -> tuple[World, Owner]:
    """A projector that has begun to read sixty changes."""
    world, rng = World(), random.Random(1)
    for _ in range(60):
        world.change(rng)
    await world.open(by_itself=True)
    (record,) = await world.fed()
    owner = await world.begin(record, limit=3)
    await owner.run(1)
    return world, owner


async def test_the_log_is_read_on_while_redis_has_not_answered_yet_and_nothing_is_in_the_air_at_the_end() -> None:
    world, owner = await under_way()
    answered, slow, before = asyncio.Event(), Partition("ties", 0), len(owner.store.sent)

    async def pause(at: str) -> None:
        if at == "answer" and [advance.partition for advance in owner.store.sent[-1].advances] == [slow]:
            await answered.wait()

    owner.store.pause = pause
    running = asyncio.create_task(owner.run(40))
    await turns(300)
    calls = [call.advances[0].partition for call in owner.store.sent[before:]]
    assert calls.count(slow) == 1
    assert len(calls) > 4
    assert owner.log.at[Partition("ties", 1)] > 3
    answered.set()
    await asyncio.wait_for(running, 10)
    world.check()
    assert {partition: reading.next for partition, reading in owner.projector._readings.items()} == world.topics.ends


async def test_a_projector_that_is_cancelled_leaves_nothing_in_the_air() -> None:
    _, owner = await under_way()

    async def never(at: str) -> None:
        if at == "answer":
            await asyncio.Event().wait()

    owner.store.pause = never
    running = asyncio.create_task(owner.projector.run(Rounds(40)))
    await turns(200)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not [task for task in asyncio.all_tasks() if "_fly" in repr(task)]
