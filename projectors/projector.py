"""The loop that keeps the view: fetch, fold, apply, checkpoint. Its log, store, build, dead letters and clock are given to it."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from projectors.apply import Applied, Header, Store, StoreUnavailable
from projectors.building import Build
from projectors.calls import Call, Packing
from projectors.clock import Clock
from projectors.dead_letters import DeadLetters
from projectors.fold import Changes, Covered, Effects, fold, fold_rest
from projectors.log import Batch, Fetched, Log
from projectors.reading import Reading, SourceChanged
from projectors.records import envelope
from projectors.records.envelope import Change, Undecodable
from schema.definition import Definition
from schema.positions import Partition

REPORT_SECONDS = 1.0
# so often at most is a checkpoint written because everything is level: it tells readers who wait for a write, and costs a call per shard
LEVEL_SECONDS = 0.25
RETRY_SECONDS = 0.5
log = structlog.stdlib.get_logger()


class Observer(Protocol):
    """Told of what happens; app/telemetry.py makes metrics of it."""

    def applied(self, changes: int) -> None: ...
    def duplicates(self, changes: int) -> None: ...
    def dead_letter(self, partition: Partition) -> None: ...
    def rewound(self, partition: Partition) -> None: ...
    def lag(self, partition: Partition, records: int, seconds: float) -> None:
        """Records not yet in the view, and how long ago everything was that is in it."""
        ...


@dataclass(slots=True)
class _Sent:
    """What the answers to some calls said. lost: partitions with lost writes. adopted: someone else was ahead, send the rest."""

    lost: set[Partition] = field(default_factory=set)
    adopted: bool = False


class Projector:
    """Keeps one generation of one view from the partitions that its log assigns to it.

    Raises what a restart does not heal (ShardLost, ShardFailed, SourceChanged, RetentionPassed) with its sentence;
    Redis being away is waited for.
    """

    def __init__(
        self,
        definition: Definition,
        build: Build,
        log_: Log,
        store: Store,
        dead_letters: DeadLetters,
        observer: Observer,
        clock: Clock,
        checkpoint_seconds: float,
    ) -> None:
        self._definition, self._build, self._log, self._store = definition, build, log_, store
        self._dead_letters, self._observer, self._clock = dead_letters, observer, clock
        self._packing = Packing(definition, build.record)
        self._decoders = {topic: envelope.decoder(row) for topic, row in definition.topics.items()}
        self._readings: dict[Partition, Reading] = {}
        self._untaken: set[Partition] = set()
        self._builds: dict[int, str] = {}
        self.lost = 0
        self._checkpoint_seconds = checkpoint_seconds
        self._checkpoint_at = self._report_at = self._level_at = clock.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop; then the batch is finished and a checkpoint written."""
        while not stop.is_set() and not self._build.finished:
            try:
                await self.step()
            except StoreUnavailable as away:
                # what was sent may have been applied: only the stored watermarks can tell
                log.warning("redis_away", error=str(away))
                self._untaken |= set(self._readings)
                self._readings.clear()
                await self._clock.sleep(RETRY_SECONDS)
        try:
            await self.checkpoint()
        except StoreUnavailable as away:
            log.warning("redis_away", error=str(away))

    async def step(self) -> None:
        """One round: take what was assigned, fetch, project, and what is due. Raises StoreUnavailable, and see the class."""
        if self._untaken:
            await self._take(sorted(self._untaken))
        asked_at_ms = self._clock.now_ms()
        fetched = await self._log.fetch()
        try:
            await self._let_go(fetched.revoked)
        finally:
            # the log tells of them once
            self._untaken |= set(fetched.assigned)
        results = await asyncio.gather(*(self._project(batch) for batch in fetched.batches), return_exceptions=True)
        for error in results:
            if isinstance(error, BaseException):
                raise error
        await self._keep_up(fetched, asked_at_ms)

    async def checkpoint(self) -> None:
        """Advance every shard to what has been folded, compare even where nothing moved, and promote a level build."""
        self._checkpoint_at = self._clock.monotonic() + self._checkpoint_seconds
        self._level_at = self._clock.monotonic() + LEVEL_SECONDS
        readings = list(self._readings.values())
        if readings:
            sent = await self._send([self._idle_call(shard, readings) for shard in self._builds], readings)
            if sent.lost:
                await self._rewind(sorted(sent.lost))
            kept = [reading for reading in readings if reading.partition not in sent.lost]
            for reading in kept:
                reading.checkpointed = reading.next
            await self._log.commit({reading.partition: reading.lowest for reading in kept})
        await self._build.settle()
        if self.lost:
            await self._take(sorted({*self._readings, *self._untaken}), only_more=True)

    def _idle_call(self, shard: int, readings: Sequence[Reading]) -> Call:
        advances = [reading.advance(shard, reading.next, reading.ts_ms) for reading in readings]
        return Call(shard, self._builds[shard], advances, (), self._packing.nothing)

    async def _take(self, partitions: Sequence[Partition], *, only_more: bool = False) -> None:
        """Read the watermarks and go on from the lowest. only_more: not if the shards to be written are the same as before."""
        headers = await self._build.take()
        builds = {shard: header.build or "" for shard, header in enumerate(headers) if self._build.holds(header)}
        self.lost = len(headers) - len(builds)
        if builds.keys() != self._builds.keys():
            # what was read without a shard that is there again, or with one that is gone, is read again
            partitions = sorted({*partitions, *self._readings})
        elif only_more:
            return
        self._builds = builds
        self._untaken |= set(partitions)
        self._readings = {partition: reading for partition, reading in self._readings.items() if partition not in partitions}
        if builds:
            await self._begin(partitions, {shard: headers[shard] for shard in builds})
        else:
            await self._clock.sleep(RETRY_SECONDS)

    async def _begin(self, partitions: Sequence[Partition], headers: Mapping[int, Header]) -> None:
        record = self._build.record
        ids = await self._log.ids({partition.topic for partition in partitions})
        bounds = await self._log.bounds(partitions)
        for partition in partitions:
            if str(partition) not in record.start:
                raise SourceChanged(
                    f"{partition} did not exist when generation {record.name} was begun: partitions were added, "
                    "so keys have moved between them. Run `viewgate rebuild`."
                )
            reading = Reading.begin(partition, self._definition.topics[partition.topic], headers)
            reading.check(record, ids.get(partition.topic, ""), bounds[partition])
            self._log.seek(partition, reading.next)
            self._readings[partition] = reading
            self._untaken.discard(partition)
        log.info("partitions_taken", generation=record.name, shards=len(headers), at={str(p): self._readings[p].next for p in partitions})

    async def _let_go(self, partitions: Sequence[Partition]) -> None:
        """Others go on from here; what is not written down is read again by them."""
        try:
            if partitions:
                await self.checkpoint()
        finally:
            for partition in partitions:
                self._readings.pop(partition, None)
                self._untaken.discard(partition)

    async def _rewind(self, partitions: Sequence[Partition]) -> None:
        """Writes were lost: forget everything known of these and read them again from what is stored."""
        log.warning("writes_lost", partitions=[str(partition) for partition in partitions])
        for partition in partitions:
            self._observer.rewound(partition)
            self._readings.pop(partition, None)
        # should Redis go away now, they are taken when Redis is back
        self._untaken |= set(partitions)
        self._build.doubt()
        await self._take(partitions)

    async def _project(self, batch: Batch) -> None:
        reading = self._readings.get(batch.partition)
        if reading is None or batch.start != reading.next:
            # fetched before a rewind or for an owner before us
            return
        changes = await self._decode(batch)
        ts_ms = max((change.ts_ms or 0 for _, change in changes), default=0)
        if await self._apply(reading, changes, batch.end, ts_ms):
            reading.next = batch.end
            reading.ts_ms = max(reading.ts_ms, ts_ms)
        else:
            await self._rewind([batch.partition])

    async def _decode(self, batch: Batch) -> Changes:
        decode = self._decoders[batch.partition.topic]
        changes: list[tuple[int, Change[Any]]] = []
        for record in batch.records:
            if record.value is None:
                continue
            try:
                change = decode(record.value)
            except Undecodable as reason:
                self._observer.dead_letter(batch.partition)
                await self._dead_letters.bury(batch.partition, record, str(reason))
                continue
            if change.op in "rt":
                await self._admit(batch.partition, record.offset, change.op)
            changes.append((record.offset, change))
        return changes

    async def _admit(self, partition: Partition, offset: int, op: str) -> None:
        """A snapshot builds a generation and is never added to a live one; a truncate cannot be counted at all."""
        if op == "t":
            raise SourceChanged(f"the table of topic {partition.topic} was truncated at {partition}:{offset}. Run `viewgate rebuild`.")
        if self._build.record.state != "live":
            await self._build.settle()
        record = self._build.record
        if record.state == "live" and offset >= record.promoted[str(partition)]:
            raise SourceChanged(
                f"a snapshot's row came at {partition}:{offset}, onto the live generation {record.name}, which has it already. "
                "Run `viewgate rebuild`."
            )

    async def _apply(self, reading: Reading, changes: Changes, end: int, ts_ms: int) -> bool:
        """Until every touched shard has the batch, from us or from someone else. False: writes were lost."""
        effects = self._fold(reading, changes)
        while True:
            calls = [
                Call(shard, self._builds[shard], (reading.advance(shard, end, ts_ms),), keys, packed)
                for shard, (keys, packed) in self._packed(reading, effects)
            ]
            sent = await self._send(calls, [reading])
            if sent.lost:
                return False
            if not sent.adopted:
                self._observer.applied(len(changes))
                return True
            # the shards that have it now are covered and drop out
            effects, _ = fold_rest(self._definition, reading.row, changes, self._covered(reading))

    def _packed(self, reading: Reading, effects: Effects) -> Iterable[tuple[int, tuple[Sequence[str], bytes]]]:
        """By shard, without those that are not ours to write."""
        builds = [self._builds.get(shard, "") for shard in range(self._build.record.shards)]
        packed = self._packing.shards(effects, builds)
        return [(shard, call) for shard, call in packed.items() if shard in self._builds and shard in reading.watermarks]

    def _fold(self, reading: Reading, changes: Changes) -> Effects:
        if not reading.mixed:
            return fold(self._definition, reading.row, changes)
        effects, dropped = fold_rest(self._definition, reading.row, changes, self._covered(reading))
        self._observer.duplicates(dropped)
        return effects

    def _covered(self, reading: Reading) -> Covered:
        shard_of = self._packing.layout.shard
        return lambda name, offset: (stored := reading.watermarks.get(shard_of(name))) is None or offset < stored.offset

    async def _send(self, calls: Sequence[Call], readings: Sequence[Reading]) -> _Sent:
        """Send calls that advance these readings, and learn from each answer."""
        sent = _Sent()
        replies = await self._store.apply(calls) if calls else ()
        for call, reply in zip(calls, replies, strict=True):
            for place, (reading, advance) in enumerate(zip(readings, call.advances, strict=True)):
                if isinstance(reply, Applied):
                    reading.watermarks[call.shard] = advance.new
                elif reply.build != call.build or reading.is_behind(advance, reply.watermarks[place]):
                    sent.lost.add(reading.partition)
                else:
                    sent.adopted |= reading.adopt(call.shard, advance, reply.watermarks[place])
        return sent

    async def _keep_up(self, fetched: Fetched, asked_at_ms: int) -> None:
        """What is due: the report to readers each second, a checkpoint every few and at once when there is nothing else to do."""
        now = self._clock.monotonic()
        if now >= self._report_at:
            self._report_at = now + REPORT_SECONDS
            await self._report(fetched.ends, asked_at_ms)
        behind = any(reading.next != reading.checkpointed for reading in self._readings.values())
        level = not fetched.batches or (now >= self._level_at and self._is_level(fetched.ends))
        if (behind and level) or now >= self._checkpoint_at:
            await self.checkpoint()

    def _is_level(self, ends: Mapping[Partition, int]) -> bool:
        return all(reading.next >= ends.get(partition, reading.next + 1) for partition, reading in self._readings.items())

    async def _report(self, ends: Mapping[Partition, int], asked_at_ms: int) -> None:
        as_of_ms = {}
        for partition, end in ends.items():
            if reading := self._readings.get(partition):
                as_of_ms[partition] = asked_at_ms if reading.next >= end else reading.ts_ms
                self._observer.lag(partition, max(0, end - reading.next), max(0.0, (asked_at_ms - as_of_ms[partition]) / 1000))
        await self._store.report(as_of_ms)
