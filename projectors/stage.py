"""The stage before the projector: one partition of a changelog to changes with `before` and `after`, in a topic of its own.

That topic, the rows topic, is the stage's log and its state: nothing is kept anywhere else. Which partitions are whose is decided in
app/stages.py.
"""

from collections.abc import AsyncIterator, Sequence
from operator import attrgetter
from typing import Protocol

import structlog
from aiokafka import AIOKafkaProducer

from projectors.clock import Clock
from projectors.dead_letters import DeadLetters
from projectors.log import Batch, Record, RetentionPassed
from projectors.observing import Observer
from projectors.reading import SourceChanged
from projectors.records.envelope import Undecodable
from projectors.rows import Reached, Rows, Written
from projectors.topic_reader import Reader
from projectors.transaction import Outgoing, write_together
from schema.positions import Partition

# in one transaction, which Kafka ends by itself when it takes too long
AT_ONCE = 2_000
log = structlog.stdlib.get_logger()


class Journal(Protocol):
    """One partition of the rows topic. Whoever has opened it last is the only one who can write it."""

    def written(self) -> AsyncIterator[Record]:
        """All that was ever written, in order, without what was broken off."""
        ...

    async def write(self, records: Sequence[Written]) -> None:
        """All of it or nothing. Raises KafkaError (ProducerFenced if another has opened it): what is written then, only `written` tells."""
        ...


class KafkaJournal:
    """In Kafka. producer: started, transactional, nobody else's; when it started Kafka shut out the one before. reader: of the topic."""

    def __init__(self, producer: AIOKafkaProducer, reader: Reader, partition: Partition) -> None:
        self._producer, self._reader, self._partition = producer, reader, partition

    async def written(self) -> AsyncIterator[Record]:
        first, end = (await self._reader.bounds())[self._partition]
        async for record in self._reader.records(self._partition, first, end):
            yield record

    async def write(self, records: Sequence[Written]) -> None:
        await write_together(self._producer, (Outgoing(self._partition, r.key, r.value, r.headers) for r in records))


class Stage:
    """One partition, from `begin` on. After an error of Kafka's it is of no more use: what it knows may not be what was written.

    source: of the changelog's topic. window_ms: for so long Kafka keeps a tombstone that it was not read, at the least.
    """

    def __init__(
        self,
        partition: Partition,
        rows: Rows,
        journal: Journal,
        source: Reader,
        dead_letters: DeadLetters,
        observer: Observer,
        clock: Clock,
        window_ms: int,
    ) -> None:
        self.partition, self._rows, self._journal, self._source = partition, rows, journal, source
        self._dead_letters, self._observer, self._clock, self._window_ms = dead_letters, observer, clock, window_ms
        self.reached = self._marked = Reached(0, 0, "")
        self._aim: tuple[int, int] | None = None
        # whether it has been level since it began, and whether that is still to be written down
        self._was_level = self._owes_mark = False

    @property
    def may_have_missed(self) -> bool:
        """Whether tombstones that were not read may be gone: then only the whole changelog tells which rows are."""
        return self._clock.now_ms() - self.reached.level_ms > self._window_ms

    async def begin(self, topic_id: str) -> None:
        """Read what was written, and go on after it. Raises SourceChanged, RetentionPassed where that cannot be."""
        began_ms, found = self._clock.now_ms(), None
        async for record in self._journal.written():
            found = self._rows.recall(record) or found
        # asked now: whoever was here before us may have read on until we opened the journal
        first, end = (await self._source.bounds())[self.partition]
        # without rows no tombstone was missed yet
        self.reached = self._marked = found or Reached(first, began_ms, topic_id, self._rows.declared)
        self._check(topic_id, first, end)
        if self.reached.declared != self._rows.declared:
            # what was buried by another declaration may be a row by this one: it is looked for in the whole changelog
            self.reached = self.reached._replace(level_ms=0, declared=self._rows.declared)
        log.info("rows_taken", partition=str(self.partition), rows=len(self._rows), at=self.reached.offset)

    def _check(self, topic_id: str, first: int, end: int) -> None:
        offset, known, mend = self.reached.offset, self.reached.topic_id, "Delete its rows topic and run `viewgate rebuild`."
        if known and topic_id and known != topic_id:
            raise SourceChanged(f"topic {self.partition.topic} was deleted and made anew. {mend}")
        if end < offset:
            raise SourceChanged(
                f"{self.partition} ends at offset {end}, but its rows are of offset {offset}: the log was cut short. {mend}"
            )
        if first > offset:
            raise RetentionPassed(
                f"{self.partition} begins at offset {first}, but its rows are of offset {offset}: records were deleted there. {mend}"
            )

    async def take(self, batch: Batch) -> None:
        """Write what the batch changes. One that does not go on where the last one ended is thrown away. Raises KafkaError."""
        if batch.start != self.reached.offset:
            return
        written = []
        for record in batch.records:
            change = await self._change(record)
            if change is not None:
                written.append(Written(record.key or b"", change, self.reached._replace(offset=record.offset + 1)))
        reached = self._levelled(self.reached._replace(offset=batch.end))
        if written:
            written[-1] = written[-1]._replace(reached=reached)
            await self._write(written)
        self.reached = reached

    async def _change(self, record: Record) -> bytes | None:
        try:
            return self._rows.change(record)
        except Undecodable as reason:
            self._observer.dead_letter(self.partition)
            await self._dead_letters.bury(self.partition, record, str(reason))
            return None

    async def _write(self, written: Sequence[Written]) -> None:
        await self._journal.write(written)
        self._marked, self._owes_mark = written[-1].reached, False

    def aim(self, end: int, asked_ms: int) -> None:
        """The partition ended at `end` when it was asked, at asked_ms or later: once that is read, it was level then."""
        self._aim = self._aim or (end, asked_ms)
        self.reached = self._levelled(self.reached)

    def _levelled(self, reached: Reached) -> Reached:
        if self._aim is None or reached.offset < self._aim[0]:
            return reached
        (_, asked_ms), self._aim = self._aim, None
        self._was_level, self._owes_mark = True, self._owes_mark or not self._was_level
        return reached._replace(level_ms=max(reached.level_ms, asked_ms))

    async def mark(self, after_ms: int = 0) -> None:
        """Write down how far was read, where no change has told it: when first level, and then each so often. Raises KafkaError."""
        is_due = self._owes_mark or self.reached.level_ms - self._marked.level_ms >= after_ms
        if self.reached != self._marked and is_due:
            await self._write([Written(b"", None, self.reached)])

    async def reconcile(self) -> None:
        """Hold the rows against the whole changelog, up to its end now: a row that is no longer in it was deleted. Raises KafkaError.

        It is written down in several transactions; until the last of them the next one to begin would do it again.
        """
        seen, reached = await self._seen()
        gone = self._rows.missing(seen)
        log.warning("rows_reconciled", partition=str(self.partition), level_ms=self.reached.level_ms, deleted=len(gone), read=len(seen))
        written = [Written(key, self._rows.delete(key, None), self.reached) for key in gone]
        for record in sorted(filter(None, seen.values()), key=attrgetter("offset")):
            # what was read before is in the dead letters already
            change = await self._change(record) if record.offset >= self.reached.offset else self._changed(record)
            if change is not None:
                written.append(Written(record.key or b"", change, self.reached))
        for start in range(0, len(written), AT_ONCE):
            await self._write(written[start : start + AT_ONCE])
        self.reached, self._aim = reached, None
        await self.mark()

    def _changed(self, record: Record) -> bytes | None:
        try:
            return self._rows.change(record)
        except Undecodable:
            return None

    async def _seen(self) -> tuple[dict[bytes, Record | None], Reached]:
        """By key the newest record, None where it says what is known. If it took so long that tombstones went, it is due again at once."""
        asked_ms = self._clock.now_ms()
        first, end = (await self._source.bounds())[self.partition]
        seen: dict[bytes, Record | None] = {}
        async for record in self._source.records(self.partition, first, end):
            if record.key is not None:
                seen[record.key] = None if self._rows.has(record) else record
            elif record.offset >= self.reached.offset:
                await self._change(record)
        return seen, self.reached._replace(offset=end, level_ms=asked_ms)
