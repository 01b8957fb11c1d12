"""A projector on a real Redis, with everything else in memory: its log, its clock, its dead letters, and the rows it should count."""

import asyncio
import random
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

from demo.publish import envelope
from loaders.view import ViewLoader
from projectors.apply import RedisStore
from projectors.generations import Generations, RedisBuild
from projectors.log import Batch, Fetched, Record
from projectors.projector import Projector
from schema import layout
from schema.definition import Definition, read_definition
from schema.fields import Count, Row
from schema.generation import Generation
from schema.loader import Read
from schema.positions import Partition
from schema.user import Follows, Likes, Tweets, Users, UserView

DEFINITION = read_definition(UserView)
NAMES = tuple(f.name for f in DEFINITION.fields)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CHECKPOINT_SECONDS = 5.0
Fields = dict[str, bytes]


def user(user_id: int, username: str, name: str | None = None) -> Users:
    return Users(user_id, username, name, None, None, None, NOW, None, None)


def tweet(tweet_id: int, user_id: int) -> Tweets:
    return Tweets(tweet_id, user_id, "", NOW)


def follow(follow_id: int, follower: int, followee: int) -> Follows:
    return Follows(follow_id, follower, followee, NOW)


def like(like_id: int, user_id: int) -> Likes:
    return Likes(like_id, user_id, 1, NOW)


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
        self.ends = dict.fromkeys(self.partitions, 0)
        self.ids = dict.fromkeys(definition.topics, "first")
        self._count = partitions

    def append(self, topic: str, key: bytes, value: bytes | None, gap: int = 0) -> Partition:
        """One record, and after it as many offsets without one, as transaction markers leave."""
        partition = Partition(topic, zlib.crc32(key) % self._count)
        offset = self.ends[partition]
        self.records[partition].append(Stored(offset, 0, key, value))
        self.ends[partition] = offset + 1 + gap
        return partition


@dataclass(slots=True)
class MemoryLog:
    """The log of one projector. limit: the most offsets in one batch. stale: how many batches it still hands out from where it was
    after a `seek`; none, by the contract of projectors/log.py, unless a test wants to see them thrown away."""

    topics: Topics
    limit: int = 7
    stale: int = 0
    assigned: list[Partition] = field(default_factory=list)
    revoked: list[Partition] = field(default_factory=list)
    at: dict[Partition, int] = field(default_factory=dict)
    sought: dict[Partition, int] = field(default_factory=dict)
    committed: dict[Partition, int] = field(default_factory=dict)
    quiet: int = 0
    _late: list[Batch] = field(default_factory=list)

    async def fetch(self) -> Fetched:
        if self.assigned or self.revoked:
            fetched = Fetched(assigned=self.assigned, revoked=self.revoked)
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
        if self.at.get(partition, offset) != offset:
            self._late += [batch for _ in range(self.stale) if (batch := self._next(partition)) and batch.start != offset]
        self.at[partition] = offset
        self.sought[partition] = offset
        self.quiet = 0

    async def bounds(self, partitions: Iterable[Partition]) -> Mapping[Partition, tuple[int, int]]:
        return {partition: (0, self.topics.ends[partition]) for partition in partitions}

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

    def lag(self, partition: Partition, records: int) -> None: ...


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


class Rounds(asyncio.Event):
    """Tells a projector's loop to stop after so many rounds."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self._left = rounds

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


@dataclass(slots=True)
class Owner:
    """A projector with what it was given."""

    projector: Projector
    log: MemoryLog
    store: RedisStore
    clock: HandClock
    tally: Tally
    buried: Buried

    async def step(self, times: int = 1) -> None:
        for _ in range(times):
            await self.projector.step()

    async def level(self) -> None:
        """Step until two rounds bring nothing, a checkpoint due in each."""
        for _ in range(2000):
            self.clock.seconds += CHECKPOINT_SECONDS
            await self.projector.step()
            if self.log.quiet >= 2:
                return
        raise AssertionError(f"not level after 2000 steps: {self.log.at} of {self.log.topics.ends}")


@dataclass(slots=True)
class World:
    """The rows of all tables, the topics that tell of them, and the view in Redis."""

    redis: Redis
    shards: int = 4
    partitions: int = 2
    definition: Definition = DEFINITION
    rows: dict[type[Row], dict[int, Row]] = field(default_factory=dict)
    topics: Topics = field(init=False)
    users: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.topics = Topics(self.definition, self.partitions)
        self.rows = {row: {} for row in self.definition.rows}

    @property
    def keys(self) -> layout.Layout:
        return layout.Layout(self.definition.name, "g1", self.shards)

    def put(self, row: Row, gap: int = 0) -> Partition:
        """Create or update a row, and publish the change."""
        key = getattr(row, type(row).source.key)
        before = self.rows[type(row)].get(key)
        self.rows[type(row)][key] = row
        self._touch(before, row)
        return self._publish("u" if before else "c", key, before, row, gap)

    def delete(self, row: type[Row], key: int) -> Partition:
        before = self.rows[row].pop(key)
        return self._publish("d", key, before, None, 0)

    def _publish(self, op: str, key: int, before: Row | None, after: Row | None, gap: int) -> Partition:
        row = type(after if after is not None else before)
        # the source's times run neither evenly nor always forward
        ts_ms = 1_000_000 + 10 * self.topics.ends[Partition(row.source.topic, 0)] + key % 7  # type: ignore[union-attr]  # one of both is there
        return self.topics.append(row.source.topic, str(key).encode(), envelope(op, before, after, ts_ms), gap)  # type: ignore[union-attr]

    def _touch(self, *rows: Row | None) -> None:
        columns = {"user_id", "follower_id", "followee_id"}
        self.users |= {getattr(row, name) for row in rows if row is not None for name in columns & set(row.__struct_fields__)}

    def counted(self) -> dict[str, Fields | None]:
        """What every user must read as: counted row by row, the slow way."""
        return {str(key): self._counted(key) for key in sorted(self.users)}

    def _counted(self, key: int) -> Fields | None:
        profile = self.rows[self.definition.base].get(key)
        if profile is None:
            return None
        fields = {f.name: layout.encode(getattr(profile, f.name)) for f in self.definition.columns}
        for aggregate in self.definition.aggregates:
            kind = aggregate.kind
            assert isinstance(kind, Count)
            fields[aggregate.name] = b"%d" % sum(getattr(row, kind.by) == key for row in self.rows[kind.row].values())
        return fields

    async def shown(self) -> dict[str, Fields | None]:
        """What every user does read as. Raises ViewNotReady, FieldMissing."""
        ids = [str(key) for key in sorted(self.users)]
        rows = (await ViewLoader(self.redis, self.definition).load([Read("id", key, NAMES) for key in ids])).rows
        return {key: None if row is None else dict(zip(NAMES, row, strict=True)) for key, row in zip(ids, rows, strict=True)}

    async def found(self, username: str) -> bytes | None:
        """The id under which a username is found."""
        (row,) = (await ViewLoader(self.redis, self.definition).load([Read("username", username, ("id",))])).rows
        return None if row is None else row[0]

    async def open(self) -> None:
        """Begin generation g1 with few shards; its first checkpoint makes it live, for there is nothing to reach."""
        record = Generation(
            "g1",
            self.definition.fingerprint,
            self.shards,
            layout.codes(self.definition),
            layout.prefixes(self.definition),
            start={str(partition): 0 for partition in self.topics.partitions},
            level={str(partition): 0 for partition in self.topics.partitions},
            topic_ids=self.topics.ids,
        )
        await self.redis.set(layout.generation_key(self.definition.name, "g1"), record.encode())
        await (await self.owner()).level()

    async def owner(self, store: RedisStore | None = None, redis: Redis | None = None, **log: Any) -> Owner:
        """A projector that was just started, all partitions assigned to it."""
        redis = redis or self.redis
        # read past the client of a test that counts or breaks its calls
        record = await Generations(self.redis, self.definition).current()
        assert record is not None
        store = store or RedisStore(redis, self.keys, record.codes[self.definition.columns[0].name])
        log_ = MemoryLog(self.topics, assigned=list(self.topics.partitions), **log)
        tally, buried, clock = Tally(), Buried(), HandClock()
        build = RedisBuild(Generations(redis, self.definition), store, record)
        projector = Projector(self.definition, build, log_, store, buried, tally, clock, CHECKPOINT_SECONDS)
        return Owner(projector, log_, store, clock, tally, buried)

    async def exact(self) -> None:
        """The view equals the count."""
        assert await self.shown() == self.counted()

    def shard_of(self, key: int) -> int:
        return self.keys.shard(str(key))


class Tables:
    """Random changes to a few rows of a world: creates, updates that move rows, deletes, re-creates."""

    def __init__(self, world: World, rng: random.Random, users: int = 8, rows: int = 12) -> None:
        self._world, self._rng, self._users, self._rows = world, rng, users, rows

    def change(self) -> None:
        row = self._row()
        key = getattr(row, type(row).source.key)
        if key in self._world.rows[type(row)] and self._rng.random() < 0.4:
            self._world.delete(type(row), key)
        else:
            self._world.put(row, gap=self._rng.choice((0, 0, 0, 1)))

    def _row(self) -> Row:
        rng = self._rng
        key, someone, other = rng.randrange(self._rows), rng.randrange(self._users), rng.randrange(self._users)
        return rng.choice((user(someone, f"name{rng.randrange(20)}"), tweet(key, someone), follow(key, someone, other), like(key, someone)))
