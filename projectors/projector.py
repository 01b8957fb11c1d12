"""The loop that keeps the view: fetch, fold, apply, checkpoint. Its log, store, build, dead letters and clock are given to it."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence

import structlog

from projectors.apply import Header, Store, StoreUnavailable
from projectors.building import Build
from projectors.calls import Call, Packing
from projectors.clock import Clock
from projectors.dead_letters import DeadLetters
from projectors.decoding import BeginningUnknown, Decoding
from projectors.flights import Flights
from projectors.fold import Changes, Effects, fold, fold_rest
from projectors.log import Batch, Fetched, Log
from projectors.observing import Observer
from projectors.reading import Learned, Mark, Reading, added, check_topics, learned
from projectors.topic_ids import Topic
from schema.definition import Definition
from schema.positions import Partition

REPORT_SECONDS = 1.0
# so often at most shards are told that all is level: readers who wait for a write hear of it; it costs a call per shard
LEVEL_SECONDS = 0.25
# shards that are told of it between two fetches: changes that come meanwhile do not wait for all of them
SWEPT_AT_ONCE = 32
RETRY_SECONDS = 0.5
# a reading, and how far it had come
_Moved = tuple[Reading, Mark]
log = structlog.stdlib.get_logger()


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
        self._observer, self._clock = observer, clock
        self._packing = Packing(definition, build.record)
        self._decoding = Decoding(definition, build, dead_letters, observer)
        self._readings: dict[Partition, Reading] = {}
        self._untaken: set[Partition] = set()
        self._builds: dict[int, str] = {}
        self._topics: Mapping[str, Topic] = {}
        self._moved: list[_Moved] = []
        self._unswept: list[int] = []
        self._flights = Flights(self._project)
        # one batch at a time, so that one is folded while Redis works on another, and not both at once
        self._folding = asyncio.Lock()
        self.lost = 0
        self._checkpoint_seconds = checkpoint_seconds
        self._checkpoint_at = self._report_at = self._level_at = self._doubt_at = clock.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop; then the batches in hand are finished and a checkpoint written."""
        try:
            while not stop.is_set() and not self._build.finished:
                if not await self._reached(self.step()):
                    await self._clock.sleep(RETRY_SECONDS)
            await self._reached(self.checkpoint())
        finally:
            await self._flights.abandon()

    async def _reached(self, doing: Awaitable[None]) -> bool:
        """Whether Redis was there. If not, what was sent may have been applied: only the stored watermarks can tell."""
        try:
            await doing
        except StoreUnavailable as away:
            log.warning("redis_away", error=str(away))
            await self._flights.end()
            self._untaken |= set(self._readings)
            self._readings.clear()
            return False
        return True

    async def step(self) -> None:
        """One round: take what was assigned, fetch, project, and what is due. Raises StoreUnavailable, and see the class.

        While the log has more, what was fetched may still be in the air when it returns.
        """
        if self._untaken:
            await self._flights.land()
        if self._untaken:
            await self._take(sorted(self._untaken))
        asked_at_ms = self._clock.now_ms()
        fetched = await self._log.fetch()
        if fetched.topics is not self._topics:
            check_topics(fetched.topics, self._build.record)
            self._topics = fetched.topics
        try:
            await self._let_go(fetched.revoked)
        finally:
            # the log tells of them once
            self._untaken |= set(fetched.assigned)
        for batch in fetched.batches:
            self._flights.begin(batch)
        if fetched.has_more({partition: reading.next for partition, reading in self._readings.items()}):
            await self._flights.room()
        else:
            await self._flights.land()
        await self._keep_up(fetched, asked_at_ms)

    async def checkpoint(self) -> None:
        """Advance every shard to what has been folded, compare even where nothing moved, and promote a level build."""
        await self._flights.land()
        self._checkpoint_at = self._clock.monotonic() + self._checkpoint_seconds
        self._unswept = []
        if self._clock.monotonic() >= self._doubt_at:
            # a failover can undo a promotion and nothing else, which no compare shows
            self._build.doubt()
            self._doubt_at = self._checkpoint_at
        readings = list(self._readings.values())
        if readings:
            moved = [(reading, reading.folded) for reading in readings]
            sent = await self._send([self._idle_call(shard, moved) for shard in self._builds], readings)
            if sent.lost:
                await self._rewind(sorted(sent.lost))
            kept = [reading for reading in readings if reading.partition not in sent.lost]
            for reading in kept:
                reading.checkpointed = reading.next
            await self._log.commit({reading.partition: reading.lowest for reading in kept})
        await self._build.settle()
        if self.lost:
            await self._take(sorted({*self._readings, *self._untaken}), only_more=True)

    def _idle_call(self, shard: int, moved: Iterable[_Moved]) -> Call:
        advances = [reading.advance(shard, mark) for reading, mark in moved]
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
                raise added(partition, record)
            reading = Reading.begin(partition, self._definition.topics[partition.topic], headers)
            reading.check(record, ids.get(partition.topic, ""), bounds[partition])
            self._decoding.begin(partition, at_start=reading.began == record.start[str(partition)])
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
        async with self._folding:
            reading = self._readings.get(batch.partition)
            if reading is None or batch.start != reading.next:
                # fetched before a rewind or for an owner before us
                return
            try:
                decoded = await self._decoding.changes(batch)
            except BeginningUnknown:
                self._read_from_start(reading)
                return
            if self._readings.get(batch.partition) is not reading:
                # taken again meanwhile
                return
            changes = reading.fresh(batch, decoded, self._build.record)
            self._observer.duplicates(len(decoded) - len(changes))
            effects, end = self._fold(reading, changes), batch.end
        # as Flights does
        del batch, decoded
        ts_ms = max((change.ts_ms or 0 for _, change in changes), default=0)
        if await self._apply(reading, changes, effects, reading.mark(end, ts_ms)):
            reading.go_on(end, ts_ms, self._clock.now_ms())
        else:
            await self._rewind([reading.partition])

    def _read_from_start(self, reading: Reading) -> None:
        """Every shard drops what it has."""
        reading.read_from(self._build.record.start[str(reading.partition)])
        self._decoding.begin(reading.partition, at_start=True)
        self._log.seek(reading.partition, reading.next)

    async def _apply(self, reading: Reading, changes: Changes, effects: Effects, mark: Mark) -> bool:
        """Until every touched shard has the batch, from us or from someone else. False: writes were lost."""
        while True:
            calls = [
                Call(shard, self._builds[shard], (reading.advance(shard, mark),), keys, packed)
                for shard, (keys, packed) in self._packed(reading, effects)
            ]
            sent = await self._send(calls, [reading])
            if sent.lost:
                return False
            if not sent.adopted:
                self._observer.applied(len(changes))
                return True
            # the shards that have it now are covered and drop out
            effects, _ = fold_rest(self._definition, reading.row, changes, reading.covered(self._packing.layout.shard))

    def _packed(self, reading: Reading, effects: Effects) -> Iterable[tuple[int, tuple[Sequence[str], bytes]]]:
        """By shard, without those that are not ours to write."""
        builds = [self._builds.get(shard, "") for shard in range(self._build.record.shards)]
        packed = self._packing.shards(effects, builds)
        return [(shard, call) for shard, call in packed.items() if shard in self._builds and shard in reading.watermarks]

    def _fold(self, reading: Reading, changes: Changes) -> Effects:
        if not reading.mixed:
            return fold(self._definition, reading.row, changes)
        effects, dropped = fold_rest(self._definition, reading.row, changes, reading.covered(self._packing.layout.shard))
        self._observer.duplicates(dropped)
        return effects

    async def _send(self, calls: Sequence[Call], readings: Sequence[Reading]) -> Learned:
        """Send calls that advance these readings, and learn from each answer."""
        return learned(calls, await self._store.apply(calls) if calls else (), readings)

    async def _keep_up(self, fetched: Fetched, asked_at_ms: int) -> None:
        """What is due: the report to readers each second, a checkpoint every few and at once when there is nothing else to do."""
        now = self._clock.monotonic()
        if now >= self._report_at:
            self._report_at = now + REPORT_SECONDS
            await self._report(fetched, asked_at_ms)
        behind = any(reading.next != reading.checkpointed for reading in self._readings.values())
        level = all(reading.next >= fetched.ends.get(partition, reading.next + 1) for partition, reading in self._readings.items())
        if (behind and not fetched.batches) or now >= self._checkpoint_at:
            await self.checkpoint()
        elif self._unswept or (behind and now >= self._level_at and level):
            await self._flights.land()
            await self._sweep()

    async def _sweep(self) -> None:
        """Advance the shards that nothing has touched, some at a time, to what had been folded when this began."""
        if not self._unswept:
            self._level_at = self._clock.monotonic() + LEVEL_SECONDS
            self._moved = [(reading, reading.folded) for reading in self._readings.values() if reading.next != reading.checkpointed]
            self._unswept = list(self._builds)
        shards, self._unswept = self._unswept[:SWEPT_AT_ONCE], self._unswept[SWEPT_AT_ONCE:]
        moved = [one for one in self._moved if self._readings.get(one[0].partition) is one[0]]
        calls = [self._idle_call(shard, moved) for shard in shards if shard in self._builds] if moved else ()
        sent = await self._send(calls, [reading for reading, _ in moved])
        if sent.lost:
            await self._rewind(sorted(sent.lost))
        elif not self._unswept:
            for reading, mark in moved:
                reading.checkpointed = mark.offset

    async def _report(self, fetched: Fetched, asked_at_ms: int) -> None:
        as_of_ms = {}
        for partition, end in fetched.ends.items():
            if reading := self._readings.get(partition):
                as_of_ms[partition] = reading.as_of_ms(fetched.asked_ms.get(partition, asked_at_ms), end)
                self._observer.lag(partition, max(0, end - reading.next), max(0.0, (asked_at_ms - as_of_ms[partition]) / 1000))
        await self._store.report(as_of_ms)
