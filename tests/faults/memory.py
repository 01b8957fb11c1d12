"""What a projector is given, in memory: a log with its broker's topics, a clock, a place for dead letters, an observer."""

import asyncio
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from projectors.log import Batch, Fetched, Record
from schema.definition import Definition
from schema.positions import Partition


@dataclass(slots=True)
class Stored:
    """A record in the log."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Topics:
    """What the broker has: records by partition, offsets with gaps, an id per topic."""

    def __init__(self, definition: Definition, partitions: int) -> None:
        self.partitions = [Partition(topic, number) for topic in definition.topics for number in range(partitions)]
        self.records: dict[Partition, list[Stored]] = {partition: [] for partition in self.partitions}
        self.begins, self.ends = dict.fromkeys(self.partitions, 0), dict.fromkeys(self.partitions, 0)
        self.ids = dict.fromkeys(definition.topics, "first")
        self._count = partitions

    def append(self, topic: str, key: bytes, value: bytes | None, gap: int = 0) -> Partition:
        """One record, and after it as many offsets without one, as transaction markers leave."""
        partition = Partition(topic, zlib.crc32(key) % self._count)
        offset = self.ends[partition]
        self.records[partition].append(Stored(offset, 0, key, value))
        self.ends[partition] = offset + 1 + gap
        return partition

    def delete_all(self) -> None:
        """Retention has passed the end of every partition."""
        self.begins |= self.ends
        for records in self.records.values():
            records.clear()


@dataclass(slots=True)
class MemoryLog:
    """The log of one projector. limit: the most offsets in one batch. stale: how many batches it still hands out from where it was
    after a `seek`; none, by the contract of projectors/log.py, unless a test wants to see them thrown away."""

    topics: Topics
    limit: int = 7
    stale: int = 0
    wait_seconds: float = 0.001
    assigned: list[Partition] = field(default_factory=list)
    revoked: list[Partition] = field(default_factory=list)
    mine: set[Partition] = field(default_factory=set)
    at: dict[Partition, int] = field(default_factory=dict)
    sought: dict[Partition, int] = field(default_factory=dict)
    committed: dict[Partition, int] = field(default_factory=dict)
    quiet: int = 0
    _late: list[Batch] = field(default_factory=list)

    async def fetch(self) -> Fetched:
        # others run meanwhile, as they would while Kafka is asked
        await asyncio.sleep(self.wait_seconds if self.quiet > 2 else 0)
        if self.assigned or self.revoked:
            fetched = Fetched(assigned=self.assigned, revoked=self.revoked)
            self.mine = (self.mine - {*self.revoked}) | {*self.assigned}
            for partition in self.revoked:
                self.at.pop(partition, None)
            self.assigned, self.revoked = [], []
            return fetched
        if self._late:
            return Fetched([self._late.pop(0)])
        batches = [batch for partition in list(self.at) if (batch := self._next(partition))]
        self.quiet = 0 if batches else self.quiet + 1
        return Fetched(batches, ends={partition: self.topics.ends[partition] for partition in self.at})

    def _next(self, partition: Partition) -> Batch | None:
        start = self.at[partition]
        end = min(start + self.limit, self.topics.ends[partition])
        self.at[partition] = max(start, end)
        records: list[Record] = [stored for stored in self.topics.records[partition] if start <= stored.offset < end]
        return Batch(partition, start, end, records) if end > start else None

    def seek(self, partition: Partition, offset: int) -> None:
        if partition not in self.mine:
            return
        if self.at.get(partition, offset) != offset:
            self._late += [batch for _ in range(self.stale) if (batch := self._next(partition)) and batch.start != offset]
        self.at[partition] = offset
        self.sought[partition] = offset
        self.quiet = 0

    async def bounds(self, partitions: Iterable[Partition]) -> Mapping[Partition, tuple[int, int]]:
        return {partition: (self.topics.begins[partition], self.topics.ends[partition]) for partition in partitions}

    async def ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        return {topic: self.topics.ids[topic] for topic in topics}

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        self.committed |= offsets


@dataclass(slots=True)
class Buried:
    letters: list[tuple[Partition, int, str]] = field(default_factory=list)

    async def bury(self, partition: Partition, record: Record, reason: str) -> None:
        self.letters.append((partition, record.offset, reason))


@dataclass(slots=True)
class Tally:
    """What a projector told its observer."""

    changes: int = 0
    dropped: int = 0
    rewinds: int = 0

    def applied(self, changes: int) -> None:
        self.changes += changes

    def duplicates(self, changes: int) -> None:
        self.dropped += changes

    def dead_letter(self, partition: Partition) -> None: ...

    def rewound(self, partition: Partition) -> None:
        self.rewinds += 1

    def lag(self, partition: Partition, records: int, seconds: float) -> None: ...


@dataclass(slots=True)
class HandClock:
    """Stands still but for `sleep` and the hand of the test."""

    seconds: float = 0.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


class Rounds(asyncio.Event):
    """Tells a projector's loop to stop after so many rounds."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self._left = rounds

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0
