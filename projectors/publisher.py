"""Publishes what the live generation's shards owe to the view topic, round by round. What they owe is kept in Redis (projectors/owed.py).

Two publishers at once harm nothing. The topic lets only the one write that opened it last: else a row that somebody held back for long
could come to lie behind a newer one, and compaction would keep the older.
"""

from collections.abc import Iterable, Mapping, Sequence

import structlog

from projectors.apply import StoreUnavailable
from projectors.clock import Clock
from projectors.owed import AT_ONCE, Fields, Hashes, Owed, Taken
from projectors.scan import Scan
from projectors.view_topic import Sent, ViewTopic, Wire
from schema import layout
from schema.generation import Generation

# so often at most the watermarks of shards in which no row has changed are published, and up to when the view has everything
LOOK_SECONDS = 1.0
# few enough that between taking and reading hardly a change comes: it would have to be taken once more
ABREAST = 64
# records in one transaction
MOST = 2_000
# keys of each shard that are remembered as published
REMEMBERED = 1_000
log = structlog.stdlib.get_logger()


class Publisher:
    """Of one generation, for as long as it has the topic."""

    def __init__(self, record: Generation, owed: Owed, topic: ViewTopic, clock: Clock) -> None:
        self._record, self._owed, self._topic, self._clock = record, owed, topic, clock
        self._wire = Wire(record, topic.partitions)
        self._name = f"{topic.name}|{topic.topic_id}|{topic.partitions}"
        # by shard: the highest version; those whose last version was counted here; what they were told of by
        self._seen: dict[int, int] = {}
        self._mine: set[int] = set()
        self._told: dict[int, Fields] = {}
        self._memory: dict[int, Memory] = {}
        self._shards: set[int] = set()
        self._behind: set[int] = set()
        self._scan = Scan(owed, self._name)
        self._is_open = False
        self._look_at = clock.monotonic()

    async def round(self) -> bool:
        """Publish what is owed now. Whether there is more already.

        Raises StoreUnavailable: go on later; KafkaError: this one is of no more use, open the topic anew.
        """
        if not self._is_open:
            self._seen, self._is_open = dict(await self._topic.versions(self._record.name)), True
        try:
            return await self._round()
        except StoreUnavailable:
            # what was carried out is not known. What was published is still remembered, for Redis may have lost it
            self._mine, self._told, self._shards, self._look_at = set(), {}, set(), self._clock.monotonic()
            self._scan.forget()
            raise

    async def _round(self) -> bool:
        is_due = self._clock.monotonic() >= self._look_at
        # before anything is taken: what is published then has all of it
        as_of_ms = await self._owed.as_of_ms() if is_due else {}
        moved = await self._look() if is_due else set()
        if self._scan.owing:
            await self._scan.step()
        self._behind = set(self._shards)
        more = await self._publish(moved)
        if is_due:
            self._look_at = self._clock.monotonic() + LOOK_SECONDS
            await self._level(as_of_ms)
        return more or bool(self._scan.owing)

    async def _look(self) -> set[int]:
        """Which shards are published; those that have moved since they were told of. The others that readers see begin."""
        headers = dict(enumerate(await self._owed.headers()))
        self._shards = {shard for shard, header in headers.items() if header.get(layout.TOPIC) == self._name.encode()}
        if not self._scan.owing:
            owing = [shard for shard, header in headers.items() if shard not in self._shards or layout.OWED in header]
            await self._begin([shard for shard in owing if headers[shard].get(layout.STATE) == layout.LIVE], anew=())
        return {shard for shard in self._shards if _told(headers[shard]) != self._told.get(shard)}

    async def _begin(self, shards: Iterable[int], anew: Sequence[int]) -> None:
        begun = await self._scan.begin({shard: self._seen.get(shard, 0) for shard in shards}, anew)
        self._shards |= begun
        self._mine -= begun

    async def _publish(self, moved: set[int]) -> bool:
        shards, more = sorted(self._shards), False
        records, versions = list[Sent](), dict[int, int]()
        for at in range(0, len(shards), ABREAST):
            taken = await self._take(shards[at : at + ABREAST], moved)
            more = more or any(len(one.keys) == AT_ONCE for one in taken.values())
            found = await self._owed.read(taken)
            if again := [shard for shard, hashes in found.items() if taken[shard].whole and not hashes.whole]:
                # a change came in between: with it they are as their header says once more
                anew = await self._take(again, set(again))
                taken |= anew
                found = {shard: hashes for shard, hashes in found.items() if shard not in again} | await self._owed.read(anew)
            for shard, hashes in found.items():
                records += self._records(shard, taken[shard], hashes)
                versions[shard] = taken[shard].version
            if len(records) >= MOST:
                await self._write(records, versions)
        await self._write(records, versions)
        return more

    async def _take(self, shards: Sequence[int], forced: set[int]) -> dict[int, Taken]:
        takings = await self._owed.take(self._name, {shard: self._seen.get(shard, 0) for shard in shards}, self._mine, forced)
        # where a failover has undone that it is published, or it was lost, the next look sees it
        self._shards -= takings.absent
        self._behind -= takings.level
        for shard, taken in takings.taken.items():
            series = taken.header[layout.SERIES].decode()
            if shard not in self._memory or self._memory[shard].series != series:
                self._memory[shard] = Memory(series, taken.before)
            self._memory[shard].add(taken)
            self._seen[shard] = taken.version
            self._mine.add(shard)
        await self._mend(takings.other)
        return dict(takings.taken)

    async def _mend(self, stored: Mapping[int, tuple[int, str]]) -> None:
        """Redis has lost writes that were published. What was published since is owed again; if that is not known, all of the shard."""
        if not stored:
            return
        log.warning("published_writes_lost", generation=self._record.name, shards=len(stored))
        calls = {}
        for shard, (version, series) in stored.items():
            memory = self._memory.get(shard)
            if memory is not None and memory.series == series and memory.since <= version < self._seen[shard]:
                calls[shard] = (version, self._seen[shard], memory.after(version))
        done = await self._owed.again(calls)
        self._mine -= stored.keys()
        if rest := [shard for shard in stored if shard not in done]:
            # it may have been told of what never was, or of a series that is no more: copies have to begin anew
            await self._begin(rest, anew=rest)

    def _records(self, shard: int, taken: Taken, hashes: Hashes) -> Iterable[Sent]:
        series = taken.header[layout.SERIES].decode()
        for key, stored in hashes.hashes.items():
            yield self._wire.hash(shard, series, taken.version, key, stored)
        # where more has changed while these were read, they may be newer than the header as it was when they were taken, never older
        header = hashes.header if hashes.whole else taken.header if taken.whole else None
        if header is not None:
            self._behind.discard(shard)
            self._told[shard] = _told(header)
            watermarks = {field: value for field, value in header.items() if field not in layout.NO_WATERMARKS}
            yield self._wire.shard(shard, series, taken.version, watermarks)

    async def _write(self, records: list[Sent], versions: dict[int, int]) -> None:
        if records:
            await self._topic.write(records)
        await self._owed.done(versions)
        records.clear()
        versions.clear()

    async def _level(self, as_of_ms: Mapping[str, int]) -> None:
        """Of each partition all of whose shards are published as a whole, say so."""
        whole = self._shards & set(self._told) - self._behind
        shards, partitions = range(self._record.shards), self._topic.partitions
        level = {number: shards[number::partitions] for number in range(partitions) if whole.issuperset(shards[number::partitions])}
        if level:
            versions = {number: {shard: self._seen[shard] for shard in of} for number, of in level.items()}
            await self._topic.write([self._wire.level(number, of, as_of_ms) for number, of in versions.items()])


class Memory:
    """Keys of one shard that were published in a series, under versions above `since`."""

    def __init__(self, series: str, since: int) -> None:
        self.series, self.since = series, since
        self._versions: dict[str, int] = {}

    def add(self, taken: Taken) -> None:
        for key in taken.keys:
            # the newest at the end
            self._versions.pop(key, None)
            self._versions[key] = taken.version
        for key in list(self._versions)[: max(0, len(self._versions) - REMEMBERED)]:
            self.since = max(self.since, self._versions.pop(key))

    def after(self, version: int) -> Sequence[str]:
        return [key for key, published in self._versions.items() if published > version]


def _told(header: Fields) -> Fields:
    """What a shard is told of by."""
    return {field: value for field, value in header.items() if field == layout.SERIES or field not in layout.NO_WATERMARKS}
