"""A changelog in memory that Kafka compacts, the topic that its stage writes, and stages that break off or come back too late."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from aiokafka.errors import KafkaTimeoutError, ProducerFenced

from projectors.log import Batch, Record
from projectors.records.envelope import Change, decoder
from projectors.rows import Rows, Written
from projectors.stage import Stage
from projectors.topic_reader import Bounds
from schema.fields import Row
from schema.positions import Partition
from tests.faults.memory import Buried, HandClock, Stored, Tally

WINDOW_MS = 100_000
# Kafka keeps a tombstone twice as long
KEPT_SECONDS = 2 * WINDOW_MS / 1000
Fault = Literal["none", "before", "after"]


class People(Row, topic="people", key="person_id", form="changelog"):
    person_id: int
    username: str
    age: int | None


PEOPLE, ROWS = Partition("people", 0), Partition("view.people.rows", 0)


def person(person_id: int, username: str, age: int | None = None) -> bytes:
    return msgspec.json.encode(People(person_id, username, age))


def read(value: bytes) -> Change[People]:
    """A change, its rows of the class that a test makes."""
    change = _DECODE(value)
    before, after = (None if side is None else People(*msgspec.structs.astuple(side)) for side in (change.before, change.after))
    return Change(change.op, before, after, change.ts_ms)


_DECODE = decoder(People)


def stored(offset: int, key: bytes | None, value: bytes | None, timestamp: int = 0) -> Stored:
    return Stored(offset, timestamp, key, value)


@dataclass(slots=True)
class Source:
    """One partition of a changelog, and a Reader of it. newest: what each key says, as whoever publishes knows it."""

    clock: HandClock
    records_: list[Stored] = field(default_factory=list)
    end: int = 0
    first: int = 0
    newest: dict[bytes, bytes] = field(default_factory=dict)
    # what is done while the whole of it is read
    meanwhile: list[Any] = field(default_factory=list)

    def put(self, key: bytes, value: bytes | None) -> None:
        self.records_.append(stored(self.end, key, value, self.clock.now_ms()))
        self.end += 1
        self.newest.pop(key, None)
        if value is not None:
            self.newest[key] = value

    def compact(self, below: int) -> None:
        """Of each key the newest record stays, of those that lie below an offset, and a tombstone only as long as it must."""
        last = {record.key: record.offset for record in self.records_ if record.offset < below}
        oldest = self.clock.now_ms() - KEPT_SECONDS * 1000
        self.records_ = [
            record
            for record in self.records_
            if record.offset >= below or (last[record.key] == record.offset and (record.value is not None or record.timestamp >= oldest))
        ]

    def batch(self, start: int, limit: int) -> Batch:
        """What a consumer is given that reads on from an offset."""
        end = min(self.end, start + limit)
        return Batch(PEOPLE, start, end, [record for record in self.records_ if start <= record.offset < end])

    async def bounds(self) -> Bounds:
        return {PEOPLE: (self.first, self.end)}

    async def records(self, partition: Partition, start: int, end: int) -> AsyncIterator[Record]:
        assert partition == PEOPLE
        for record in list(self.records_):
            if self.meanwhile:
                self.meanwhile.pop(0)()
            if start <= record.offset < end:
                yield record


@dataclass(slots=True)
class RowsTopic:
    """What has been written, and who may write: whoever opened it last."""

    written: list[Stored] = field(default_factory=list)
    owner: int = 0

    def open(self) -> "MemoryJournal":
        self.owner += 1
        return MemoryJournal(self, self.owner)

    def changes(self) -> list[Change[People]]:
        return [read(record.value) for record in self.written if record.value is not None]


@dataclass(slots=True)
class MemoryJournal:
    """fault: what becomes of the next transaction: broken off before it is there, or its answer lost after."""

    topic: RowsTopic
    epoch: int
    fault: Fault = "none"

    async def written(self) -> AsyncIterator[Record]:
        for record in list(self.topic.written):
            yield record

    async def write(self, records: Sequence[Written]) -> None:
        await asyncio.sleep(0)
        if self.epoch != self.topic.owner:
            raise ProducerFenced
        if self.fault == "before":
            raise KafkaTimeoutError
        end = len(self.topic.written)
        self.topic.written += [Stored(end + n, 0, r.key, r.value, r.headers) for n, r in enumerate(records)]
        if self.fault == "after":
            raise KafkaTimeoutError


@dataclass(slots=True)
class World:
    """One partition with its stage. Stages that were broken off are thrown away; those that were shut out are kept, and try again."""

    clock: HandClock = field(default_factory=lambda: HandClock(1_000_000.0))
    topic: RowsTopic = field(default_factory=RowsTopic)
    buried: Buried = field(default_factory=Buried)
    source: Source = field(init=False)
    stage: Stage = field(init=False)
    journal: MemoryJournal = field(init=False)

    def __post_init__(self) -> None:
        self.source = Source(self.clock)

    async def open(self, topic_id: str = "first", row: type[Row] = People) -> Stage:
        """Another stage takes over."""
        self.journal = self.topic.open()
        self.stage = Stage(PEOPLE, Rows(row), self.journal, self.source, self.buried, Tally(), self.clock, WINDOW_MS)
        await self.stage.begin(topic_id)
        return self.stage

    async def turn(self, limit: int = 100) -> None:
        """One round as projectors/stages.py makes it."""
        batch, (end, asked_ms) = self.source.batch(self.stage.reached.offset, limit), (self.source.end, self.clock.now_ms())
        if self.stage.may_have_missed:
            await self.stage.reconcile()
        elif batch.end > batch.start:
            await self.stage.take(batch)
        self.stage.aim(end, asked_ms)

    async def level(self) -> None:
        """All that there is has been read."""
        while self.stage.may_have_missed or self.stage.reached.offset < self.source.end:
            await self.turn()

    def state(self) -> dict[int, People]:
        """What the changes make, each undone by what it was before. Fails where a change does not fit to what was there."""
        rows: dict[int, People] = {}
        for change in self.topic.changes():
            before, after = change.before, change.after
            if before is not None:
                assert rows.pop(before.person_id) == before
            if after is not None:
                assert after.person_id not in rows
                rows[after.person_id] = after
        return rows

    def published(self) -> dict[int, People]:
        rows = [msgspec.json.decode(value, type=People) for value in self.source.newest.values()]
        return {row.person_id: row for row in rows}
