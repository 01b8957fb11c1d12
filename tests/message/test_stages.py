"""The stages of a process: partitions that come and go, and what Kafka refuses."""

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from projectors.log import Fetched
from projectors.reading import SourceChanged
from projectors.rows import reached_of
from projectors.stage import Stage
from projectors.stages import FENCED_SECONDS, LOOK_SECONDS, Stages
from schema.positions import Partition
from tests.faults.memory import Rounds, Tally
from tests.message.changelog import KEPT_SECONDS, PEOPLE, World, person


@dataclass(slots=True)
class OneLog:
    """A Log of the one partition of a world."""

    world: World
    assigned: list[Partition] = field(default_factory=lambda: [PEOPLE])
    revoked: list[Partition] = field(default_factory=list)
    at: int | None = None
    committed: dict[Partition, int] = field(default_factory=dict)

    async def fetch(self) -> Fetched:
        changed = Fetched(assigned=self.assigned, revoked=self.revoked)
        if self.assigned or self.revoked:
            self.assigned, self.revoked = [], []
            return changed
        if self.at is None or self.at >= self.world.source.end:
            return Fetched()
        batch = self.world.source.batch(self.at, 2)
        self.at = batch.end
        return Fetched([batch])

    def seek(self, partition: Partition, offset: int) -> None:
        self.at = offset

    async def bounds(self, partitions: Iterable[Partition]) -> Mapping[Partition, tuple[int, int]]:
        return dict.fromkeys(partitions, (0, self.world.source.end))

    async def ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        return dict.fromkeys(topics, "first")

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        self.committed |= offsets


@dataclass(slots=True)
class Process:
    """What a process runs, with the world that it is in. opened, closed: how many stages were."""

    world: World = field(default_factory=World)
    topic_id: str = "first"
    opened: int = 0
    closed: int = 0
    log: OneLog = field(init=False)
    stages: Stages = field(init=False)

    def __post_init__(self) -> None:
        self.log = OneLog(self.world)
        self.stages = Stages(self.log, self.open, Tally(), self.world.clock, mark_ms=10_000)

    async def open(self, partition: Partition, closing: AsyncExitStack) -> Stage:
        self.opened += 1
        closing.callback(self.close)
        return await self.world.open(self.topic_id)

    def close(self) -> None:
        self.closed += 1

    async def steps(self, times: int = 8) -> None:
        for _ in range(times):
            self.world.clock.seconds += LOOK_SECONDS
            await self.stages.step()


async def test_what_is_assigned_is_read_to_its_end_and_told_to_lag_tools() -> None:
    process = Process()
    for user_id in range(1, 6):
        process.world.source.put(b"%d" % user_id, person(user_id, "ada"))
    await process.steps()
    assert process.world.state() == process.world.published()
    assert process.log.committed == {PEOPLE: 5}


async def test_what_is_revoked_is_written_down_and_closed_and_not_taken_again() -> None:
    process = Process()
    process.world.source.put(b"1", person(1, "ada"))
    await process.steps()
    process.world.source.put(b"1", person(1, "ada"))
    await process.steps(1)
    process.log.revoked = [PEOPLE]
    await process.steps(40)
    assert (process.opened, process.closed) == (1, 1)
    reached = reached_of(process.world.topic.written[-1])
    assert reached is not None
    assert reached.offset == 2


async def test_a_stage_that_was_shut_out_waits_before_it_shuts_out_the_other() -> None:
    process = Process()
    await process.steps()
    # another process has it now, and ours is not told so
    process.world.topic.open()
    process.world.source.put(b"1", person(1, "ada"))
    await process.steps(int(FENCED_SECONDS) - 2)
    assert (process.opened, process.closed) == (1, 1)
    assert not process.world.topic.changes()
    await process.steps(8)
    assert (process.opened, process.closed) == (2, 1)
    assert process.world.state() == process.world.published()


async def test_a_stage_that_was_shut_out_by_its_heir_leaves_it_alone() -> None:
    process = Process()
    await process.steps()
    process.world.topic.open()
    process.world.source.put(b"1", person(1, "ada"))
    await process.steps(2)
    process.log.revoked = [PEOPLE]
    await process.steps(int(FENCED_SECONDS) + 5)
    assert (process.opened, process.closed) == (1, 1)


async def test_a_stage_whose_write_was_refused_begins_anew_from_what_was_written() -> None:
    process = Process()
    process.world.source.put(b"1", person(1, "ada"))
    await process.steps(2)
    process.world.source.put(b"2", person(2, "bob"))
    process.world.journal.fault = "after"
    await process.steps()
    assert (process.opened, process.closed) == (2, 1)
    assert len(process.world.topic.changes()) == 2


async def test_tombstones_that_may_be_gone_are_noticed_on_a_quiet_topic() -> None:
    process = Process()
    process.world.source.put(b"1", person(1, "ada"))
    process.world.source.put(b"2", person(2, "bob"))
    await process.steps()
    process.world.source.put(b"2", None)
    process.world.clock.seconds += KEPT_SECONDS + 1
    process.world.source.compact(process.world.source.end)
    # as a consumer would that had been frozen: past the tombstone
    process.log.at = process.world.source.end
    await process.steps()
    assert process.world.state() == process.world.published()
    assert 2 not in process.world.state()


async def test_what_only_a_person_can_mend_ends_the_run_with_everything_closed() -> None:
    process = Process()
    process.world.source.put(b"1", person(1, "ada"))
    await process.stages.run(Rounds(6))
    assert process.closed == process.opened == 1
    process.topic_id, process.log.assigned, process.log.revoked = "second", [PEOPLE], []
    with pytest.raises(SourceChanged, match="deleted and made anew"):
        await process.stages.run(Rounds(6))
    assert process.closed == process.opened == 2
