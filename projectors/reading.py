"""One partition as a projector reads it: where it is, and what it believes is stored of it on each shard. Does no I/O."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from projectors.apply import Applied, Header, Outcome, Reply, judge
from projectors.calls import Advance, Call
from projectors.fold import Changes, Covered
from projectors.generations import ShardLost
from projectors.log import ANEW, Batch, RetentionPassed
from projectors.records.transaction import Transaction, transaction
from projectors.repeats import NotTold, Repeats
from projectors.topic_ids import Topic
from schema.fields import Row
from schema.generation import Generation
from schema.positions import Partition, Run, Watermark
from schema.seen import Seen


class SourceChanged(Exception):
    """The source is not what the generation was built from; the message names the rebuild command."""


def made_anew(topic: str, topic_id: str, was: str) -> SourceChanged:
    told = f"topic {topic} was deleted and made anew (id {topic_id}, was {was}): what is counted no longer matches it."
    return SourceChanged(f"{told} {ANEW}")


def added(partition: Partition, record: Generation) -> SourceChanged:
    return SourceChanged(
        f"{partition} did not exist when generation {record.name} was begun: partitions were added, so keys have moved between them, "
        "and the log no longer tells which of two rows is the newer one. Run `viewgate rebuild --from sql`."
    )


def check_topics(topics: Mapping[str, Topic], record: Generation) -> None:
    """Hold topics as they are now against a generation. Raises SourceChanged."""
    for name, topic in topics.items():
        if topic.id != (was := record.topic_ids.get(name, "")):
            raise made_anew(name, topic.id, was)
        for number in range(topic.partitions):
            if str(Partition(name, number)) not in record.start:
                raise added(Partition(name, number), record)


class Mark(NamedTuple):
    """What a watermark advances to: see Watermark."""

    offset: int
    ts_ms: int
    run: Run | None = None


@dataclass(slots=True)
class Reading:
    """began: where contiguous reading began. next: the offset to fold next. ts_ms: the newest source time that every shard has.
    watermarks: what is believed to be stored, by shard. checkpointed: the offset that the last checkpoint wrote everywhere.
    seen: by shard, what rows from SQL have in them of what is read. reached_ms: as ts_ms, without times that had not come yet."""

    partition: Partition
    row: type[Row]
    watermarks: dict[int, Watermark]
    began: int
    next: int
    ts_ms: int
    checkpointed: int = -1
    seen: Mapping[int, Seen] = field(default_factory=dict)
    reached_ms: int = field(init=False)
    _repeats: Repeats | None = field(init=False)
    # whether what is read may be in rows from SQL; and, of the batch that is folded next, the transactions that may be
    _overlaps: bool = field(init=False)
    _transactions: dict[int, Transaction] = field(init=False)

    def __post_init__(self) -> None:
        self.reached_ms = self.ts_ms
        self.read_from(self.began)

    @classmethod
    def begin(cls, partition: Partition, row: type[Row], headers: Mapping[int, Header]) -> Self:
        """Go on from the lowest watermark. headers: of the shards that are written, one at least. Raises ShardLost where one has none."""
        stored = {shard: header.watermarks.get(str(partition)) for shard, header in headers.items()}
        watermarks = {shard: watermark for shard, watermark in stored.items() if watermark is not None}
        if len(watermarks) < len(stored):
            raise ShardLost(f"{len(stored) - len(watermarks)} of {len(stored)} shards have no watermark of {partition}")
        began = min(watermark.begins for watermark in watermarks.values())
        lowest = min(watermark.offset for watermark in watermarks.values())
        # what is newer on other shards is not everywhere
        ts_ms = max(watermark.ts_ms for watermark in watermarks.values() if watermark.offset == lowest)
        seen = {shard: header.seen for shard, header in headers.items() if header.seen is not None}
        return cls(partition, row, watermarks, began, began, ts_ms, seen=seen)

    def read_from(self, offset: int) -> None:
        """Nothing is known of what was read before."""
        self.began = self.next = offset
        newest_ms = max(watermark.ts_ms for watermark in self.watermarks.values())
        self._repeats = Repeats(newest_ms) if self.row.source.position == "debezium" else None
        self._overlaps, self._transactions = bool(self.seen), {}

    def fresh(self, batch: Batch, changes: Changes, record: Generation) -> Changes:
        """Those that are not sent again, of the batch that is read next. Raises SourceChanged where that cannot be told."""
        if self._repeats is not None:
            try:
                changes = self._repeats.fresh(changes, record.promoted.get(str(self.partition)) if record.promoted else None)
            except NotTold as reason:
                raise SourceChanged(f"{self.partition}: {reason} Run `viewgate rebuild`.") from reason
        self._trace(batch, changes)
        return changes

    def _trace(self, batch: Batch, changes: Changes) -> None:
        """Learn which transactions wrote what is folded next, as long as rows from SQL may have them. Raises SourceChanged."""
        self._transactions = {}
        if not self._overlaps or not changes:
            return
        lsn, records = max(seen.lsn for seen in self.seen.values()), {record.offset: record for record in batch.records}
        for offset, _ in changes:
            told = transaction(records[offset])
            if told is None:
                raise SourceChanged(
                    f"the change at {self.partition}:{offset} tells no source.txId and source.sequence, as Debezium's connector for "
                    "PostgreSQL does, so whether the rows from SQL have it cannot be told. Run `viewgate rebuild`."
                )
            if told.commit < lsn:
                self._transactions[offset] = told
        # changes come in the order of their commits
        self._overlaps = bool(self._transactions)

    def go_on(self, offset: int, ts_ms: int, now_ms: int) -> None:
        """Every shard has what lies below the offset."""
        self.next = offset
        self.ts_ms = max(self.ts_ms, ts_ms)
        if ts_ms <= now_ms:
            self.reached_ms = max(self.reached_ms, ts_ms)

    def as_of_ms(self, asked_at_ms: int, end: int) -> int:
        """Up to when the view has the partition, which ended there when it was asked. 0: nobody knows.

        A time that has not come yet, by a clock or a unit that is wrong, tells nothing of what is still to come.
        """
        if self.next >= end:
            return asked_at_ms
        return self.reached_ms if self.reached_ms <= asked_at_ms else 0

    def mark(self, offset: int, ts_ms: int) -> Mark:
        """At the end of the batch that was read last."""
        return Mark(offset, ts_ms, None if self._repeats is None else self._repeats.run)

    def check(self, record: Generation, topic_id: str, bounds: tuple[int, int]) -> None:
        """Hold the watermarks against the topic as it is now. Raises SourceChanged, RetentionPassed."""
        known = {watermark.topic_id for watermark in self.watermarks.values()}
        if known - {topic_id}:
            raise made_anew(self.partition.topic, topic_id, ", ".join(sorted(known)))
        first, end = bounds
        newest = max(watermark.offset for watermark in self.watermarks.values())
        if newest > end:
            raise SourceChanged(
                f"{self.partition} ends at offset {end}, but generation {record.name} has it up to {newest}: "
                "the log was cut short. Run `viewgate rebuild`."
            )
        lowest = min(self.watermarks.values(), key=lambda watermark: watermark.offset)
        if lowest.offset < first:
            raise RetentionPassed(
                f"{self.partition} begins at offset {first}, but generation {record.name} needs it from {lowest.offset}: "
                f"retention has passed the watermark. {ANEW}"
            )
        if self.next < first and self._repeats is not None:
            # all is applied that retention has deleted; but that is where a run began
            forgotten = [w.run for w in self.watermarks.values() if w.run is not None and w.run.start < first]
            self._repeats.forget(max(forgotten), lowest.offset)
            self.next = first

    @property
    def folded(self) -> Mark:
        """What a checkpoint writes."""
        return self.mark(self.next, self.ts_ms)

    @property
    def mixed(self) -> bool:
        """Whether some shard already has part of what comes next, as after a restart, or by its rows from SQL."""
        return bool(self._transactions) or any(watermark.offset > self.next for watermark in self.watermarks.values())

    @property
    def lowest(self) -> int:
        """Where someone else would go on from."""
        return min(watermark.begins for watermark in self.watermarks.values())

    def covered(self, shard_of: Callable[[str], int]) -> Covered:
        """Whether the shard of a text has an offset already, or is not written here."""

        def covers(name: str, offset: int) -> bool:
            shard = shard_of(name)
            return (stored := self.watermarks.get(shard)) is None or offset < stored.offset or self._saw(shard, offset)

        return covers

    def _saw(self, shard: int, offset: int) -> bool:
        told, seen = self._transactions.get(offset), self.seen.get(shard)
        return told is not None and seen is not None and seen.has(told.commit, told.tx_id)

    def advance(self, shard: int, mark: Mark) -> Advance:
        """The step of one shard's watermark."""
        expected = self.watermarks[shard]
        if expected.begins < self.began:
            raise AssertionError(f"shard {shard} of {self.partition} goes on from {expected.begins}, but reading began at {self.began}")
        return Advance(self.partition, expected, expected.advanced(*mark))

    def is_behind(self, advance: Advance, stored: Watermark | None) -> bool:
        """Whether a refused call found less than was acknowledged, or nothing. Raises SourceChanged where no rewind helps."""
        outcome = judge(advance, stored)
        if outcome is Outcome.ABSENT:
            return True
        if outcome is Outcome.OTHER_TOPIC:
            raise SourceChanged(f"another projector writes {self.partition} of another topic of that name. Run `viewgate rebuild`.")
        return outcome is Outcome.BEHIND

    def adopt(self, shard: int, advance: Advance, stored: Watermark | None) -> bool:
        """Believe what a refused call found. Whether it was someone else's, so that the rest is still to be sent."""
        if stored is not None:
            self.watermarks[shard] = stored
        return judge(advance, stored) is Outcome.AHEAD


@dataclass(slots=True)
class Learned:
    """What the answers to some calls said. lost: partitions with lost writes. adopted: someone else was ahead, send the rest."""

    lost: set[Partition] = field(default_factory=set)
    adopted: bool = False


def learned(calls: Sequence[Call], replies: Sequence[Reply], readings: Sequence[Reading]) -> Learned:
    """Have these readings, which the calls advance in this order, believe what each answer says."""
    told = Learned()
    for call, reply in zip(calls, replies, strict=True):
        for place, (reading, advance) in enumerate(zip(readings, call.advances, strict=True)):
            if isinstance(reply, Applied):
                reading.watermarks[call.shard] = advance.new
            elif reply.build != call.build or reading.is_behind(advance, reply.watermarks[place]):
                told.lost.add(reading.partition)
            else:
                told.adopted |= reading.adopt(call.shard, advance, reply.watermarks[place])
    return told
