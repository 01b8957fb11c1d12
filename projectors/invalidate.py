"""Deletes from a cache what changes have made stale, for mode cache-invalidate. Keeps no view, and no state but Kafka's committed offsets.

At least once is enough, for to delete again changes nothing: offsets are committed after the deletes. A refill under way reads from before
the change, perhaps; so its lease goes with the entry, and nobody keeps what it read (loaders/cache.py). An entry is deleted once the
tables have the change and not before, or the next refill would bring the old row back, and nothing would delete it again.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import asyncpg
import structlog
from redis.asyncio import Redis

from projectors.apply import StoreUnavailable, reached
from projectors.clock import Clock
from projectors.fold import Changes, fold
from projectors.log import Batch, Log, RetentionPassed
from projectors.records import decoders
from projectors.records.envelope import Undecodable
from schema import layout, sql
from schema.definition import Definition
from schema.loader import Mode
from schema.positions import Partition

MODE: Mode = "cache-invalidate"
RETRY_SECONDS, LOOK_SECONDS = 0.5, 0.005
AT_ONCE = 1_000
log = structlog.stdlib.get_logger()


class CommittedLog(Log, Protocol):
    """A log whose commits are read again."""

    async def committed(self, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        """Up to where each was done with; those that never were are missing."""
        ...


class Tables(Protocol):
    """What a refill would read."""

    async def have(self, ends: Mapping[Partition, int]) -> bool:
        """Whether they have all that lies below these offsets. Raises StoreUnavailable."""
        ...


class Told(Protocol):
    """Hears of what was done; app/telemetry.py makes metrics of it."""

    def invalidated(self, entries: int) -> None: ...
    def behind(self, partition: Partition, records: int) -> None: ...


class SinkTables:
    """The source database. Where a sink fills it from the same topics, it lags behind them and its offsets say by how much; where change
    data capture fills the topics from it, it has every change before they do."""

    def __init__(self, pool: asyncpg.Pool, definition: Definition, away: tuple[type[Exception], ...]) -> None:
        self._pool, self._definition, self._away = pool, definition, away
        self._is_there = False

    async def have(self, ends: Mapping[Partition, int]) -> bool:
        """Raises StoreUnavailable."""
        try:
            self._is_there = self._is_there or await self._pool.fetchval("SELECT to_regclass($1)", sql.POSITIONS) is not None
            if not self._is_there:
                return True
            stored = await self._pool.fetch(sql.positions(), list(self._definition.topics))
        except self._away as away:
            raise StoreUnavailable(f"PostgreSQL cannot be reached: {away}") from away
        offsets = {Partition(topic, number): offset for topic, number, offset in stored}
        # no offset of any of our topics: no sink of theirs
        return not offsets or all(offsets.get(partition, 0) >= end for partition, end in ends.items())


class Invalidator:
    """All that its log assigns to it; several share the partitions. Raises RetentionPassed where a topic is gone; others are waited for."""

    def __init__(self, redis: Redis, definition: Definition, log_: CommittedLog, tables: Tables, told: Told, clock: Clock) -> None:
        self._redis, self._definition, self._log, self._tables, self._told, self._clock = redis, definition, log_, tables, told, clock
        self._decoders = decoders(definition)
        self._next: dict[Partition, int] = {}
        self._untaken: set[Partition] = set()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self.step(stop)
            except StoreUnavailable as away:
                log.warning("invalidation_waits", error=str(away))
                for partition, offset in self._next.items():
                    self._log.seek(partition, offset)
                await self._clock.sleep(RETRY_SECONDS)

    async def step(self, stop: asyncio.Event) -> None:
        """One round. Raises StoreUnavailable."""
        if self._untaken:
            await self._take(sorted(self._untaken), stop)
        try:
            fetched = await self._log.fetch()
        except RetentionPassed as gone:
            if gone.__cause__ is None:
                raise
            log.warning("invalidations_lost", error=str(gone))
            await self._begin_anew(list(self._next), stop)
            return
        for partition in (*fetched.revoked, *fetched.assigned):
            self._next.pop(partition, None)
        self._untaken = (self._untaken - set(fetched.revoked)) | set(fetched.assigned)
        batches = [batch for batch in fetched.batches if batch.start == self._next.get(batch.partition)]
        if batches:
            await self._invalidate(batches, stop)
        for partition, end in fetched.ends.items():
            self._told.behind(partition, max(0, end - self._next.get(partition, end)))

    async def _take(self, partitions: Sequence[Partition], stop: asyncio.Event) -> None:
        committed = await self._log.committed(partitions)
        if unknown := [partition for partition in partitions if partition not in committed]:
            await self._begin_anew(unknown, stop)
        for partition, offset in committed.items():
            self._next[partition] = offset
            self._log.seek(partition, offset)
        self._untaken.clear()

    async def _begin_anew(self, partitions: Sequence[Partition], stop: asyncio.Event) -> None:
        """Nobody knows what was missed: everything goes, once the tables have what will not be read."""
        ends = {partition: end for partition, (_, end) in (await self._log.bounds(partitions)).items()}
        await self._reached(ends, stop)
        await self._forget()
        self._next |= ends
        for partition, end in ends.items():
            self._log.seek(partition, end)
        await self._log.commit(ends)

    async def _invalidate(self, batches: Sequence[Batch], stop: asyncio.Event) -> None:
        entries: set[tuple[str, str]] = set()
        is_truncated = False
        for batch in batches:
            changes = self._changes(batch)
            is_truncated |= any(change.op == "t" for _, change in changes)
            entries |= self._touched(batch.partition.topic, changes)
        ends = {batch.partition: batch.end for batch in batches}
        await self._reached(ends, stop)
        if stop.is_set():
            return
        await (self._forget() if is_truncated else self._delete(sorted(entries)))
        self._told.invalidated(len(entries))
        self._next |= ends
        await self._log.commit(ends)

    async def _reached(self, ends: Mapping[Partition, int], stop: asyncio.Event) -> None:
        while not stop.is_set() and not await self._tables.have(ends):
            await self._clock.sleep(LOOK_SECONDS)

    def _changes(self, batch: Batch) -> Changes:
        """What cannot be decoded is none: the projector buries it."""
        decode, changes = self._decoders[batch.partition.topic], []
        for record in batch.records:
            try:
                change = decode(record)
            except Undecodable:
                continue
            if change is not None:
                changes.append((record.offset, change))
        return changes

    def _touched(self, topic: str, changes: Changes) -> set[tuple[str, str]]:
        """(by, value) of every entry that these make stale."""
        effects = fold(self._definition, self._definition.topics[topic], changes)
        ids = {str(key) for deltas in effects.counts.values() for key in deltas} | {str(key) for key in effects.profiles}
        return {("id", key) for key in ids} | {(claim.field, claim.value) for claim in effects.claims}

    async def _delete(self, entries: Sequence[tuple[str, str]]) -> None:
        for start in range(0, len(entries), AT_ONCE):
            pipeline = self._redis.pipeline(transaction=False)
            for by, value in entries[start : start + AT_ONCE]:
                key = layout.cache_key(self._definition.name, MODE, by, value)
                pipeline.unlink(key, layout.lease_key(key))
            await reached(pipeline.execute())

    async def _forget(self) -> None:
        """Every entry, and every lease."""
        pattern = layout.cache_key(self._definition.name, MODE, "*", "*") + "*"
        keys = self._redis.scan_iter(pattern, count=AT_ONCE)
        while (key := await reached(anext(keys, None))) is not None:
            await reached(self._redis.unlink(key))
