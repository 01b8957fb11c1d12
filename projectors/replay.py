"""What rows must be at given watermarks: a base, and the log folded on it, of some keys only. Reads the log; knows no view."""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from aiokafka import TopicPartition

from projectors.clock import Clock
from projectors.fold import Changes, Claim, Effects, Key, fold
from projectors.log import Batch
from projectors.records import decoders
from projectors.records.envelope import Change, Undecodable
from projectors.records.transaction import transaction
from projectors.repeats import Repeats
from projectors.rows_at import Counted
from projectors.topic_reader import KafkaReader
from schema.definition import Definition
from schema.layout import Layout
from schema.positions import Partition
from schema.seen import Seen

WAIT_MS = 20
STUCK_SECONDS = 30.0
# of a value that a row of the base bears: when it was claimed is not known
LONG_AGO = (0, 0)
Offsets = Mapping[Partition, int]


class Basis(NamedTuple):
    """What rows were at `start`, from which the log is read; of that log they have what they have `seen`, and from `level` on all of it."""

    start: Offsets
    counted: Iterable[Counted] = ()
    seen: Seen | None = None
    level: Offsets = MappingProxyType({})


class ReplayImpossible(Exception):
    """What is right cannot be told from this log; the message says why, and what to do."""


class BaseAhead(Exception):
    """The base has more than some shard has yet: wait for the projector."""


class WritesLost(Exception):
    """A shard is further back than it was when it was last looked at, or was not to be looked at then: begin again."""


class Tail(Protocol):
    """The log, read from given offsets on and for as long as one likes."""

    async def bounds(self) -> Mapping[Partition, tuple[int, int]]:
        """First offset and end offset of each partition."""
        ...

    def begin(self, offsets: Offsets) -> None:
        """Read these partitions from these offsets; what was fetched before is forgotten."""
        ...

    async def fetch(self) -> Sequence[Batch]:
        """What has come, after a moment at most; a partition's batches follow upon each other without a gap."""
        ...


class KafkaTail(KafkaReader):
    """A Tail in Kafka, by a consumer as KafkaReader wants it."""

    _starts: dict[Partition, int]

    def begin(self, offsets: Offsets) -> None:
        self._starts = dict(offsets)
        self._consumer.assign([TopicPartition(*partition) for partition in offsets])
        for partition, offset in offsets.items():
            self._consumer.seek(TopicPartition(*partition), offset)

    async def fetch(self) -> Sequence[Batch]:
        fetched = await self._consumer.getmany(timeout_ms=WAIT_MS)
        batches = []
        for partition, start in self._starts.items():
            at = TopicPartition(*partition)
            # past gaps and transaction markers too, which no record tells of
            end = await self._consumer.position(at)
            if end > start:
                batches.append(Batch(partition, start, end, fetched.get(at, ())))
                self._starts[partition] = end
        return batches


class Replay:
    """Of the keys that are wanted. told: how many records were just read."""

    def __init__(
        self, definition: Definition, keys: Layout, tail: Tail, clock: Clock, wanted: Callable[[str], bool], told: Callable[[int], None]
    ) -> None:
        self._definition, self._keys, self._tail, self._clock = definition, keys, tail, clock
        self._wanted, self._told = wanted, told
        self._decoders = decoders(definition)
        self.shards: list[_Shard] = []
        self._reading = asyncio.Lock()
        self._read: dict[Partition, int] = {}
        self._repeats: dict[Partition, Repeats] = {}
        self._seen: Seen | None = None

    async def begin(self, basis: Basis, watermarks: Sequence[Offsets | None]) -> None:
        """Begin with what the base counts to, and read the log up to the watermarks of each shard; None: not to be looked at.

        Raises BaseAhead, and ReplayImpossible where the log no longer has `start`, or ends before a watermark.
        """
        start, level = basis.start, {**basis.start, **basis.level}
        if any(offsets is not None and offsets.get(partition, -1) < level[partition] for offsets in watermarks for partition in level):
            raise BaseAhead
        self._seen = basis.seen
        self.shards = [_Shard(dict(offsets or start), offsets is not None) for offsets in watermarks]
        self._read = dict(start)
        self._repeats = {p: Repeats() for p in start if self._definition.topics[p.topic].source.position == "debezium"}
        for counted in basis.counted:
            self._share(self._of_base(counted), self._add)
        bounds = await self._tail.bounds()
        cut = [str(partition) for partition, offset in start.items() if bounds[partition][0] > offset]
        if cut:
            raise ReplayImpossible(f"Kafka no longer has the beginning of {', '.join(cut)}, so nobody can tell what it counted to.")
        self._tail.begin(start)
        for offsets in watermarks:
            await self.reach(offsets or {})

    def has(self, watermarks: Offsets) -> bool:
        """Whether the log was read as far."""
        return all(self._read[partition] >= offset for partition, offset in watermarks.items())

    async def reach(self, watermarks: Offsets) -> None:
        """Read the log as far. Raises ReplayImpossible."""
        # of several who wait, one reads
        async with self._reading:
            moved_at = self._clock.monotonic()
            while not self.has(watermarks):
                if await self._read_on():
                    moved_at = self._clock.monotonic()
                elif self._clock.monotonic() - moved_at > STUCK_SECONDS:
                    behind = [str(partition) for partition, offset in watermarks.items() if self._read[partition] < offset]
                    raise ReplayImpossible(f"the view is further in {', '.join(behind)} than Kafka: was the log cut short?")

    async def read_on(self) -> None:
        """Take what has come. Raises ReplayImpossible."""
        async with self._reading:
            await self._read_on()

    async def _read_on(self) -> int:
        """How many offsets."""
        batches = await self._tail.fetch()
        for batch in batches:
            self._take(batch)
        self._told(sum(len(batch.records) for batch in batches))
        return sum(batch.end - batch.start for batch in batches)

    def at(self, number: int, watermarks: Offsets) -> Effects:
        """What a shard must hold of the wanted keys, once it has exactly what lies below the watermarks: a live object, not a copy.

        The log must have been read as far. A shard goes forward only: raises WritesLost.
        """
        shard = self.shards[number]
        if not shard.is_judged or any(watermarks.get(partition, -1) < floor for partition, floor in shard.floor.items()):
            raise WritesLost
        for partition, later in shard.later.items():
            place = bisect_left(later, watermarks[partition], key=itemgetter(0))
            if place:
                effects = fold(self._definition, self._definition.topics[partition.topic], later[:place])
                self._share(effects, self._add, only=number)
                del later[:place]
        shard.floor = dict(watermarks)
        return shard.effects

    def _take(self, batch: Batch) -> None:
        if batch.start != self._read[batch.partition]:
            # fetched before another beginning
            return
        self._read[batch.partition] = batch.end
        row = self._definition.topics[batch.partition.topic]
        changes = self._decode(batch)
        # what every shard has is folded at once, the rest one by one
        lowest = min((shard.floor[batch.partition] for shard in self.shards if shard.is_judged), default=batch.end)
        place = bisect_left(changes, lowest, key=itemgetter(0))
        self._share(fold(self._definition, row, changes[:place]), self._add)
        for change in changes[place:]:
            self._take_one(batch.partition, change, fold(self._definition, row, [change]))

    def _take_one(self, partition: Partition, change: tuple[int, Change[Any]], effects: Effects) -> None:
        touched: set[int] = set()
        self._share(effects, lambda number, _: touched.add(number))
        for number in touched:
            shard = self.shards[number]
            if change[0] < shard.floor[partition]:
                self._share(effects, self._add, only=number)
            else:
                shard.later.setdefault(partition, []).append(change)

    def _decode(self, batch: Batch) -> Changes:
        decode, changes = self._decoders[batch.partition.topic], []
        for record in batch.records:
            try:
                change = decode(record)
            except Undecodable:
                # it is in the dead letters, and in no view
                continue
            if change is None:
                continue
            if change.op == "t":
                raise ReplayImpossible(f"the table of topic {batch.partition.topic} was truncated at {batch.partition}:{record.offset}.")
            changes.append((record.offset, change))
        return self._unseen(batch, repeats.told(changes) if (repeats := self._repeats.get(batch.partition)) else changes)

    def _unseen(self, batch: Batch, changes: Changes) -> Changes:
        """Those that the base has not."""
        if self._seen is None:
            return changes
        records, unseen = {record.offset: record for record in batch.records}, []
        for offset, change in changes:
            told = transaction(records[offset])
            if told is None:
                raise ReplayImpossible(f"{batch.partition}:{offset} does not tell which transaction wrote it. Run `viewgate rebuild`.")
            if not self._seen.has(told.commit, told.tx_id):
                unseen.append((offset, change))
        return unseen

    def _share(self, effects: Effects, give: Callable[[int, Effects], None], only: int | None = None) -> None:
        """Give each shard that is looked at, or only one, its part of the wanted effects."""
        parts: dict[int, Effects] = {}

        def part(text: str, key: Key) -> Effects | None:
            if not self._wanted(str(key)):
                return None
            number = self._keys.shard(text)
            mine = only in {None, number} and self.shards[number].is_judged
            return parts.setdefault(number, Effects()) if mine else None

        for name, deltas in effects.counts.items():
            for key, delta in deltas.items():
                if mine := part(str(key), key):
                    mine.counts.setdefault(name, {})[key] = delta
        for key, row in effects.profiles.items():
            if mine := part(str(key), key):
                mine.profiles[key] = row
        for claim, when in effects.claims.items():
            if mine := part(claim.value, claim.key):
                mine.claims[claim] = when
        for number, effects_of_shard in parts.items():
            give(number, effects_of_shard)

    def _add(self, number: int, effects: Effects) -> None:
        self.shards[number].effects.add(effects)

    def _of_base(self, counted: Counted) -> Effects:
        key, row = counted.key, counted.row
        effects = Effects({name: {key: amount} for name, amount in counted.amounts.items()}, {key: row})
        if row is not None:
            effects.claims = {Claim(f.name, getattr(row, f.name), key): LONG_AGO for f in self._definition.lookups}
        return effects


class _Shard:
    """effects: of everything below the floor. later: what was read beyond it, by partition in the order of offsets."""

    __slots__ = ("effects", "floor", "is_judged", "later")

    def __init__(self, floor: dict[Partition, int], is_judged: bool) -> None:
        self.effects, self.floor, self.is_judged = Effects(), floor, is_judged
        self.later: dict[Partition, list[tuple[int, Change[Any]]]] = {}


def offsets_of(watermarks: Mapping[str, Any]) -> dict[Partition, int]:
    """A header's watermarks as offsets."""
    return {partition_of(name): watermark.offset for name, watermark in watermarks.items()}


def partition_of(name: str) -> Partition:
    """What `str()` of a partition has made."""
    topic, _, number = name.rpartition(":")
    return Partition(topic, int(number))
