"""Publishes what the live generation's shards owe to the view topic, round by round. What they owe is kept in Redis (projectors/owed.py).

Two publishers at once harm nothing. The topic lets only the one write that opened it last: else a row that somebody held back for long
could come to lie behind a newer one, and compaction would keep the older.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence

import structlog

from projectors.clock import Clock
from projectors.owed import AT_ONCE, Fields, Hashes, Owed, Taken
from projectors.view_topic import Sent, ViewTopic, Wire
from schema import layout
from schema.definition import Definition
from schema.generation import Generation

# so often at most the watermarks of shards in which no row has changed are published, and up to when the view has everything
LOOK_SECONDS = 1.0
# few enough that between taking and reading hardly a change comes: it would have to wait for the next round
ABREAST = 32
# records in one transaction
MOST = 2_000
log = structlog.stdlib.get_logger()


class Publisher:
    """Of one generation, from the time it opened the topic. What it remembers only spares work."""

    def __init__(self, definition: Definition, record: Generation, owed: Owed, topic: ViewTopic, clock: Clock) -> None:
        self._record, self._owed, self._topic, self._clock = record, owed, topic, clock
        self._wire = Wire(record, topic.partitions)
        self._name = f"{topic.name}|{topic.topic_id}|{topic.partitions}"
        self._seen: dict[int, int] = {}
        self._told: dict[int, Fields] = {}
        self._behind: set[int] = set()
        self._scan = Scan(owed)
        self._look_at = clock.monotonic()

    async def round(self) -> bool:
        """Publish what is owed now. Whether there is more already. Raises StoreUnavailable, KafkaError: open the topic anew."""
        is_due = self._clock.monotonic() >= self._look_at
        # before anything is taken: what is published then has all of it
        as_of_ms = await self._owed.as_of_ms() if is_due else {}
        moved = await self._look() if is_due else []
        if self._scan.owing:
            await self._scan.step()
        self._behind = set(self._seen)
        more = await self._publish(moved)
        if is_due:
            self._look_at = self._clock.monotonic() + LOOK_SECONDS
            await self._level(as_of_ms)
        return more or bool(self._scan.owing)

    async def _look(self) -> list[int]:
        """Which shards are published; those that have moved since they were told of. The others that readers see begin."""
        headers = await self._owed.headers()
        mine = {shard: header for shard, header in enumerate(headers) if header.get(layout.TOPIC) == self._name.encode()}
        self._seen = {shard: self._seen.get(shard, 0) for shard in mine}
        if not self._scan.owing:
            owing = {shard for shard, header in enumerate(headers) if shard not in mine or layout.OWED in header}
            begun = await self._scan.begin([shard for shard in owing if headers[shard].get(layout.STATE) == layout.LIVE], self._name)
            self._seen |= {shard: self._seen.get(shard, 0) for shard in begun}
        return [shard for shard, header in mine.items() if _told(header) != self._told.get(shard)]

    async def _publish(self, moved: Iterable[int]) -> bool:
        shards, forced = sorted(self._seen), set(moved)
        more, records, versions = False, list[Sent](), dict[int, int]()
        for at in range(0, len(shards), ABREAST):
            taken = await self._take(shards[at : at + ABREAST], forced)
            more = more or any(len(one.keys) == AT_ONCE for one in taken.values())
            found = await self._owed.read(taken)
            if again := [shard for shard, hashes in found.items() if taken[shard].whole and not hashes.whole]:
                # a change came in between: with it they are as their header says once more
                taken |= (anew := await self._take(again, set(again)))
                found |= await self._owed.read(anew)
            for shard, hashes in found.items():
                records += self._records(shard, taken[shard], hashes)
                versions[shard] = taken[shard].version
            if len(records) >= MOST:
                await self._write(records, versions)
        await self._write(records, versions)
        return more

    async def _take(self, shards: Sequence[int], forced: set[int]) -> dict[int, Taken]:
        takings = await self._owed.take(self._name, {shard: self._seen[shard] for shard in shards}, forced)
        for shard in takings.absent:
            # a failover has undone that it is published, or it was lost: the next look sees it
            del self._seen[shard]
        self._behind -= takings.level
        self._seen |= {shard: taken.version for shard, taken in takings.taken.items()}
        return dict(takings.taken)

    def _records(self, shard: int, taken: Taken, hashes: Hashes) -> Iterable[Sent]:
        build = taken.header[layout.BUILD].decode()
        for key, stored in hashes.hashes.items():
            yield self._wire.hash(shard, build, taken.version, key, stored)
        # where more has changed while these were read, they may be newer than the header as it was when they were taken, never older
        header = hashes.header if hashes.whole else taken.header if taken.whole else None
        if header is not None:
            self._behind.discard(shard)
            self._told[shard] = _told(header)
            watermarks = {field: value for field, value in header.items() if field not in layout.NO_WATERMARKS}
            yield self._wire.shard(shard, build, taken.version, watermarks)

    async def _write(self, records: list[Sent], versions: dict[int, int]) -> None:
        if records:
            await self._topic.write(records)
        await self._owed.done(versions)
        records.clear()
        versions.clear()

    async def _level(self, as_of_ms: Mapping[str, int]) -> None:
        """Of each partition all of whose shards are published as a whole, say so."""
        whole = set(self._seen) & set(self._told) - self._behind
        # the shards' own, so that it lies on their clock
        version = max(self._seen.values(), default=0)
        shards, partitions = range(self._record.shards), self._topic.partitions
        level = [number for number in range(partitions) if whole.issuperset(shards[number::partitions])]
        if level:
            await self._topic.write([self._wire.level(number, version, as_of_ms) for number in level])


class Scan:
    """Owes all of some shards, page by page of the whole Redis. owing: the shards, and what each is believed to have stored of it."""

    def __init__(self, owed: Owed) -> None:
        self._owed, self._cursor, self._pages = owed, 0, 0
        self.owing: dict[int, str] = {}
        self._shards = {header.rpartition(":")[2]: shard for shard, header in enumerate(owed.keys.headers)}

    async def begin(self, shards: Sequence[int], topic: str) -> set[int]:
        """While no other is under way. Which of them are published from now on."""
        if not shards:
            return set()
        self._cursor, self._pages, name = 0, 0, secrets.token_hex(4)
        self.owing = dict.fromkeys(await self._owed.begin(shards, topic, name), name)
        log.info("view_owed", generation=self._owed.keys.generation, shards=len(self.owing), topic=topic)
        return set(self.owing)

    async def step(self) -> None:
        """One page. Shards that have lost writes meanwhile are left to the next scan."""
        self._cursor, page = await self._owed.page(self._cursor)
        self._pages += 1
        found: dict[int, list[str]] = {}
        for key in page:
            # a set of ours has a tag too, and nothing after it
            shard = self._shards.get(_tag(key)) if not key.endswith("}") else None
            if shard in self.owing:
                found.setdefault(shard, []).append(key)
        await self._owe({shard: (f"{self.owing[shard].partition('.')[0]}.{self._pages}", keys) for shard, keys in found.items()})
        if self._cursor == 0:
            await self._owe({shard: ("", []) for shard in self.owing})
            self.owing = {}

    async def _owe(self, calls: Mapping[int, tuple[str, Sequence[str]]]) -> None:
        done = await self._owed.owe({shard: (self.owing[shard], new, keys) for shard, (new, keys) in calls.items()})
        for shard, (new, _) in calls.items():
            if shard in done:
                self.owing[shard] = new
            else:
                del self.owing[shard]


def _tag(key: str) -> str:
    return key[key.find("{") : key.find("}") + 1]


def _told(header: Fields) -> Fields:
    """What a shard is told of by."""
    return {field: value for field, value in header.items() if field == layout.BUILD or field not in layout.NO_WATERMARKS}
