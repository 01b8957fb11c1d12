"""A projector on a real Redis, with everything else in memory, and the rows that it should count."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime

from redis.asyncio import Redis

from demo.publish import envelope
from loaders.view import ViewLoader
from projectors.apply import RedisStore
from projectors.building import Build, LostShards, WholeBuild
from projectors.generations import Generations
from projectors.projector import Projector
from schema import layout
from schema.definition import Definition, read_definition
from schema.fields import Count, Row
from schema.generation import Generation
from schema.loader import Read
from schema.positions import Partition
from schema.user import Follows, Likes, Tweets, Users, UserView
from tests.faults.memory import Buried, HandClock, MemoryLog, Tally, Topics

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

    async def shown(self, reader: ViewLoader | None = None) -> dict[str, Fields | None]:
        """What every user does read as, by a reader that knows nothing yet or by this one. Raises ViewNotReady, FieldMissing."""
        ids = [str(key) for key in sorted(self.users)]
        rows = (await (reader or ViewLoader(self.redis, self.definition)).load([Read("id", key, NAMES) for key in ids])).rows
        return {key: None if row is None else dict(zip(NAMES, row, strict=True)) for key, row in zip(ids, rows, strict=True)}

    async def found(self, username: str) -> bytes | None:
        """The id under which a username is found."""
        (row,) = (await ViewLoader(self.redis, self.definition).load([Read("username", username, ("id",))])).rows
        return None if row is None else row[0]

    async def open(self) -> None:
        """Generation g1, live: its first checkpoint makes it so, for there is nothing to reach."""
        await self.begin()
        await (await self.owner()).level()

    async def begin(self, build: str = "0") -> Generation:
        """The record of generation g1, with few shards, as it is before the headers are written."""
        record = Generation(
            "g1",
            build,
            self.definition.fingerprint,
            self.shards,
            layout.codes(self.definition),
            layout.prefixes(self.definition),
            start={str(partition): 0 for partition in self.topics.partitions},
            level={str(partition): end for partition, end in self.topics.ends.items()},
            topic_ids=self.topics.ids,
        )
        await self.redis.set(layout.generation_key(self.definition.name, "g1"), record.encode())
        return record

    async def owner(self, store: RedisStore | None = None, redis: Redis | None = None, limit: int = 7, stale: int = 0) -> Owner:
        """A projector that was just started, all partitions assigned to it."""
        redis = redis or self.redis
        # read past the client of a test that counts or breaks its calls
        generations = Generations(self.redis, self.definition)
        record = await generations.current()
        assert record is not None
        store = store or RedisStore.of(redis, self.definition, record)
        record = await generations.opened(record, RedisStore.of(self.redis, self.definition, record))
        return self._owner(WholeBuild(Generations(redis, self.definition), store, record), store, limit, stale)

    async def owner_of_the_lost(self, store: RedisStore | None = None, limit: int = 7) -> Owner:
        """A projector that builds again the shards that were lost, as the topics are now."""
        generations = Generations(self.redis, self.definition)
        record = await generations.current()
        assert record is not None
        store = store or RedisStore.of(self.redis, self.definition, record)
        ends = {str(partition): end for partition, end in self.topics.ends.items()}
        return self._owner(LostShards(generations, store, record, ends, None), store, limit, 0)

    def _owner(self, build: Build, store: RedisStore, limit: int, stale: int) -> Owner:
        log_ = MemoryLog(self.topics, limit, stale, assigned=list(self.topics.partitions))
        tally, buried, clock = Tally(), Buried(), HandClock()
        projector = Projector(self.definition, build, log_, store, buried, tally, clock, CHECKPOINT_SECONDS)
        return Owner(projector, log_, store, clock, tally, buried)

    async def exact(self) -> None:
        """The view equals the count, and every username is claimed by those who bear it."""
        assert await self.shown() == self.counted()
        keys: list[bytes] = await self.redis.keys("*@username:*")  # type: ignore[assignment]  # this client answers bytes
        claimed = {name: await self.redis.hkeys(name.decode()) for name in keys}
        claims = {(name.rpartition(b":")[2].decode(), int(key)) for name, ids in claimed.items() for key in ids}
        users = self.rows[Users]
        assert claims == {(row.username, key) for key, row in users.items() if isinstance(row, Users)}

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
