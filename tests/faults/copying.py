"""A view that is published and copied: a first and a second Redis, both real, and the topic between them in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import KafkaTimeoutError, ProducerFenced
from redis.asyncio import Redis

from loaders.view import ViewLoader
from projectors.apply import StoreUnavailable
from projectors.generations import Generations
from projectors.owed import Owed
from projectors.populate import Populate
from projectors.publisher import Publisher
from projectors.view_topic import HEADER, Sent, Stamp, Versions, read
from schema import layout
from schema.generation import Generation
from schema.positions import Partition
from tests.faults.arranged import DEFINITION, World
from tests.faults.memory import HandClock, MemoryLog, Stored, Topics
from tests.faults.stores import Crashed, Pause, go_on

TOPIC = "user.view"
WINDOW_MS = 1_000_000
# what differs between the two by intent: names of builds, and what each side keeps for itself
OWN = {layout.BUILD, *layout.NO_WATERMARKS} - {layout.STATE}
Shown = dict[str, dict[bytes, bytes]]


class ViewLog(Topics):
    """The view topic as its broker has it. owner: who opened it last."""

    def __init__(self, partitions: int) -> None:
        self.partitions = [Partition(TOPIC, number) for number in range(partitions)]
        self.delete()
        self.ids, self.owner = {TOPIC: "first"}, 0

    def delete(self) -> None:
        self.records = {partition: [] for partition in self.partitions}
        self.begins, self.ends = dict.fromkeys(self.partitions, 0), dict.fromkeys(self.partitions, 0)

    def open(self, pause: Pause = go_on) -> "MemoryViewTopic":
        self.owner += 1
        return MemoryViewTopic(self, self.owner, pause)

    def write(self, records: Sequence[Sent]) -> None:
        """A transaction, with the offset that its end takes in each partition."""
        for record in records:
            partition = self.partitions[record.partition]
            self.records[partition].append(Stored(self.ends[partition], 0, record.key, record.value, record.headers))
            self.ends[partition] += 1
        for number in {record.partition for record in records}:
            self.ends[self.partitions[number]] += 1

    def compact(self, *, tombstones: bool = False) -> None:
        """Keep the newest of each key. tombstones: these go too."""
        for partition, records in self.records.items():
            newest = {record.key: record.offset for record in records}
            kept = [record for record in records if newest[record.key] == record.offset]
            self.records[partition] = [record for record in kept if record.value is not None or not tombstones]

    def versions(self) -> dict[tuple[str, int], list[int]]:
        """Of each generation and shard, in the order in which they lie there."""
        found: dict[tuple[str, int], list[int]] = {}
        for records in self.records.values():
            for record in records:
                stamp = read(record).stamp
                if stamp.shard >= 0:
                    found.setdefault((stamp.generation, stamp.shard), []).append(stamp.version)
        return found


@dataclass(slots=True)
class MemoryViewTopic:
    """A ViewTopic of one publisher. pause is awaited at "send" and "sent"."""

    log: ViewLog
    epoch: int
    pause: Pause

    @property
    def name(self) -> str:
        return TOPIC

    @property
    def topic_id(self) -> str:
        return self.log.ids[TOPIC]

    @property
    def partitions(self) -> int:
        return len(self.log.partitions)

    async def versions(self, generation: str) -> Mapping[int, int]:
        found = Versions()
        for records in self.log.records.values():
            for record in records:
                found.add(record)
        return found.found.get(generation, {})

    async def write(self, records: Sequence[Sent]) -> None:
        await self.pause("send")
        if self.epoch != self.log.owner:
            raise ProducerFenced
        self.log.write(records)
        await self.pause("sent")


class Half(Crashed):
    """Raised by a pause: of a pipeline only the first half is carried out, and nobody hears of it."""


class Paused:
    """A client of Redis. pause is awaited at "call" and "answer" of each command and each pipeline."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.pause: Pause = go_on

    def __getattr__(self, name: str) -> Any:
        made = getattr(self._redis, name)
        if name == "pipeline":
            return self._pipeline
        if name in {"register_script", "connection_pool"}:
            return made

        async def command(*arguments: Any, **named: Any) -> Any:
            await self.pause("call")
            reply = await made(*arguments, **named)
            await self.pause("answer")
            return reply

        return command

    def _pipeline(self, **how: Any) -> Any:
        pipeline: Any = self._redis.pipeline(**how)
        execute = pipeline.execute

        async def paused() -> Any:
            try:
                await self.pause("call")
            except Half:
                pipeline.command_stack = pipeline.command_stack[: len(pipeline.command_stack) // 2]
                await execute()
                raise Crashed from None
            replies = await execute()
            await self.pause("answer")
            return replies

        pipeline.execute = paused
        return pipeline


@dataclass(slots=True)
class Publishing:
    """A process that publishes, from when it opened the topic."""

    redis: Paused
    publisher: Publisher
    topic: MemoryViewTopic
    clock: HandClock

    async def rounds(self, times: int) -> None:
        for _ in range(times):
            self.clock.seconds += 1
            await self.publisher.round()


@dataclass(slots=True)
class Copying:
    """A world that is live in the first Redis, and what follows from it. second: another database of the same server, or another server."""

    world: World
    second: Redis
    partitions: int = 3
    log: ViewLog = field(init=False)

    def __post_init__(self) -> None:
        self.log = ViewLog(self.partitions)

    async def publishing(self) -> Publishing:
        record = await self.live()
        redis, topic, clock = Paused(self.world.redis), self.log.open(), HandClock(1000.0)
        owed = Owed(redis, self.world.definition, record)  # type: ignore[arg-type]  # it is as good as one
        return Publishing(redis, Publisher(record, owed, topic, clock), topic, clock)

    def populating(self, second: Redis | None = None, limit: int = 1000) -> "Populating":
        redis, log_ = Paused(second or self.second), MemoryLog(self.log, limit, assigned=list(self.log.partitions))
        clock = HandClock()
        populate = Populate(redis, self.world.definition, log_, self.log.partitions, clock, WINDOW_MS)  # type: ignore[arg-type]  # as above
        return Populating(redis, populate, log_, clock)

    async def live(self, redis: Redis | None = None) -> Generation:
        generations = Generations(redis or self.world.redis, self.world.definition)
        record = await generations.read(await generations.live() or "")
        assert record is not None, "nothing is live"
        return record

    async def publish(self) -> None:
        """All that is owed, by a publisher that knows nothing."""
        publishing = await self.publishing()
        await publishing.rounds(6)

    async def equal(self, second: Redis | None = None) -> None:
        """The second is live, as readers see it what is counted, and hash by hash and header by header as the first."""
        redis = second or self.second
        read_, counted = await self.world.shown(ViewLoader(redis, self.world.definition)), self.world.counted()
        wrong = {key: (row, counted[key]) for key, row in read_.items() if row != counted[key]}
        assert not wrong, wrong
        first, copied = await self.live(), await self.live(redis)
        assert (copied.name, copied.start, copied.topic_ids, copied.state) == (first.name, first.start, first.topic_ids, "live")
        mine, theirs = await shown(redis, copied), await shown(self.world.redis, first)
        differing = {name: (mine.get(name), theirs.get(name)) for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)}
        assert not differing, differing
        names = {record.name for record in await Generations(redis, self.world.definition).all()}
        assert names == {first.name}, names

    async def swept(self, second: Redis | None = None) -> set[str]:
        """Builds of which the second has keys."""
        keys: list[bytes] = await (second or self.second).keys("user:g*.*")  # type: ignore[assignment]  # this client answers bytes
        return {key.decode().split(":")[1] for key in keys}


@dataclass(slots=True)
class Populating:
    """A process that populates."""

    redis: Paused
    populate: Populate
    log: MemoryLog
    clock: HandClock

    async def level(self) -> None:
        """Step until two rounds bring nothing."""
        for _ in range(2000):
            await self.populate.step()
            if self.log.quiet >= 3 and not self.log.assigned:
                return
        raise AssertionError("not level after 2000 steps")


async def shown(redis: Redis, record: Generation) -> Shown:
    """Every header, row and claimants of a generation, under names without their builds."""
    keys = layout.Layout(DEFINITION.name, record.name, record.shards)
    found: Shown = {}
    for shard, header in enumerate(keys.headers):
        stored: dict[bytes, bytes] = await redis.hgetall(header)  # type: ignore[assignment]  # this client answers bytes
        found[f"header {shard}"] = {name: value for name, value in stored.items() if name not in OWN}
        prefix = keys.rows_prefix(shard, stored.get(layout.BUILD, b"").decode()).removesuffix(":")
        names: list[bytes] = await redis.keys(prefix.replace("*", "\\*") + "*")  # type: ignore[assignment]  # as above
        for name in names:
            found[f"{shard}{name.decode().removeprefix(prefix)}"] = await redis.hgetall(name.decode())  # type: ignore[assignment]  # as above
    return found


def stamp_of(record: Stored) -> Stamp:
    assert [name for name, _ in record.headers] == [HEADER]
    return read(record).stamp


def failing(error: type[Exception], at: int) -> Pause:
    """A pause that raises once, the at-th time."""
    left = at

    async def pause(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise error("on purpose")

    return pause


FAULTS = (Crashed, Half, StoreUnavailable, KafkaTimeoutError)
