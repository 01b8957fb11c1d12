"""This house's contender: the production loop with the real view definition, opened as `viewgate project` opens it, checkpoints on."""

import asyncio
import cProfile
from functools import partial
from pathlib import Path

import uvloop
from redis.asyncio import Redis

from app.clients import open_redis
from app.feeds import collect_less
from app.settings import Settings
from bench.contender import Task, open_consumer
from bench.events import Counts
from bench.stopwatch import Run, Stopwatch
from bench.stored import stored_counts
from demo.servers.server import Say
from projectors.apply import RedisStore
from projectors.building import WholeBuild
from projectors.clock import SystemClock
from projectors.generations import FIRST, Generations
from projectors.log import Fetched, KafkaLog, Record
from projectors.observing import Observer
from projectors.projector import Projector
from schema import layout
from schema.definition import Definition, read_definition
from schema.positions import Partition
from schema.user import UserView


class Ours:
    """Exactly once into the view."""

    promise = "exactly once; in Redis, one hash per user"

    async def prepare(self, say: Say) -> None:
        """It is here."""

    def measure(self, task: Task) -> Run:
        return uvloop.run(_project(task))

    async def stored(self, task: Task) -> Counts:
        definition = read_definition(UserView)
        async with Redis.from_url(task.redis) as redis:
            record = await Generations(redis, definition).read(FIRST)
        if record is None:
            raise RuntimeError("there is no generation in Redis")
        keys = layout.Layout(definition.name, record.name, record.shards)
        fields = record.codes["following_count"], record.codes["follower_count"]
        return await stored_counts(task.redis, keys.rows_pattern(), fields, lambda key: str(keys.row_id(key)))


class Profiled(Ours):
    """The same under cProfile, which tells where Python's time goes."""

    def __init__(self, told: Path) -> None:
        self._told = told

    def measure(self, task: Task) -> Run:
        with cProfile.Profile() as profile:
            run = super().measure(task)
        profile.dump_stats(self._told)
        return run


class _TimedLog(KafkaLog):
    """Tells the stopwatch of the records that came."""

    def __init__(self, task: Task, stopwatch: Stopwatch) -> None:
        super().__init__(open_consumer(task, "none"))
        self._stopwatch = stopwatch

    async def fetch(self) -> Fetched:
        fetched = await super().fetch()
        if fetched.batches:
            self._stopwatch.in_hand()
        return fetched


class Unfailing:
    """An Observer of what must not happen here."""

    def duplicates(self, changes: int) -> None:
        if changes:
            raise AssertionError(f"{changes} duplicates in a topic that has none")

    def dead_letter(self, partition: Partition) -> None:
        raise AssertionError(f"an undecodable record in {partition}")

    def rewound(self, partition: Partition) -> None:
        raise AssertionError(f"{partition} was rewound: Redis lost writes")

    def lag(self, partition: Partition, records: int, seconds: float) -> None: ...


class _Finish(Unfailing):
    """Stops the stopwatch and the projector when all is applied."""

    def __init__(self, stopwatch: Stopwatch, stop: asyncio.Event) -> None:
        self._stopwatch, self._stop = stopwatch, stop

    def applied(self, changes: int) -> None:
        if self._stopwatch.acknowledged(changes):
            self._stop.set()


class _NoDeadLetters:
    async def bury(self, partition: Partition, record: Record, reason: str) -> None:
        raise AssertionError(f"{partition}:{record.offset} cannot be decoded: {reason}")


async def _project(task: Task) -> Run:
    stopwatch, stop = Stopwatch(task.events), asyncio.Event()
    await keep(task, _TimedLog(task, stopwatch), _Finish(stopwatch, stop), stop)
    return stopwatch.run()


async def keep(task: Task, log: KafkaLog, observer: Observer, stop: asyncio.Event) -> None:
    """Open a generation, or the one that another process has opened, and keep it until told to stop."""
    collect_less()
    definition = read_definition(UserView, task.topic_prefix)
    settings = Settings(kafka_bootstrap=task.kafka, redis_url=task.redis)
    redis = open_redis(settings, settings.redis_url)
    try:
        await log.start(definition.topics)
        store, build = await _open_build(redis, definition, log)
        seconds = settings.checkpoint_seconds
        await Projector(definition, build, log, store, _NoDeadLetters(), observer, SystemClock(), seconds).run(stop)
    finally:
        await log.stop()
        await redis.aclose()


async def _open_build(redis: Redis, definition: Definition, log: KafkaLog) -> tuple[RedisStore, WholeBuild]:
    generations = Generations(redis, definition)
    bounds = await log.bounds(await log.partitions(definition.topics))
    record = await generations.open_first(partial(RedisStore.of, redis, definition), bounds, await log.ids(definition.topics))
    store = RedisStore.of(redis, definition, record)
    return store, WholeBuild(generations, store, record)
