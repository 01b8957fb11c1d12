"""This house's contender: the production loop with the real view definition, opened as app/worker.py opens it, checkpoints on."""

import asyncio
from functools import partial

import uvloop
from redis.asyncio import Redis

from app.clients import open_redis
from app.settings import Settings
from bench.contender import Run, Stopwatch, Task, open_consumer
from bench.events import Counts
from bench.stored import stored_counts
from projectors.apply import RedisStore
from projectors.building import WholeBuild
from projectors.clock import SystemClock
from projectors.generations import FIRST, Generations
from projectors.log import Fetched, KafkaLog, Record
from projectors.projector import Projector
from schema import layout
from schema.definition import Definition, read_definition
from schema.positions import Partition
from schema.user import UserView


class Ours:
    """Exactly once into the view."""

    def measure(self, task: Task) -> Run:
        return uvloop.run(_project(task))

    async def stored(self, redis_url: str) -> Counts:
        definition = read_definition(UserView)
        async with Redis.from_url(redis_url) as redis:
            record = await Generations(redis, definition).read(FIRST)
        if record is None:
            raise RuntimeError("there is no generation in Redis")
        keys = layout.Layout(definition.name, record.name, record.shards)
        fields = record.codes["following_count"], record.codes["follower_count"]
        return await stored_counts(redis_url, keys.rows_pattern(), fields, lambda key: str(keys.row_id(key)))


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


class _Finish:
    """An Observer that stops the stopwatch and the projector when all is applied."""

    def __init__(self, stopwatch: Stopwatch, stop: asyncio.Event) -> None:
        self._stopwatch, self._stop = stopwatch, stop

    def applied(self, changes: int) -> None:
        if self._stopwatch.acknowledged(changes):
            self._stop.set()

    def duplicates(self, changes: int) -> None:
        if changes:
            raise AssertionError(f"{changes} duplicates in a topic that has none")

    def dead_letter(self, partition: Partition) -> None:
        raise AssertionError(f"an undecodable record in {partition}")

    def rewound(self, partition: Partition) -> None:
        raise AssertionError(f"{partition} was rewound: Redis lost writes")

    def lag(self, partition: Partition, records: int, seconds: float) -> None: ...


class _NoDeadLetters:
    async def bury(self, partition: Partition, record: Record, reason: str) -> None:
        raise AssertionError(f"{partition}:{record.offset} cannot be decoded: {reason}")


async def _project(task: Task) -> Run:
    definition = read_definition(UserView, task.topic_prefix)
    settings = Settings(kafka_bootstrap=task.kafka, redis_url=task.redis)
    redis = open_redis(settings, settings.redis_url)
    stopwatch, stop = Stopwatch(task.events), asyncio.Event()
    log = _TimedLog(task, stopwatch)
    try:
        await log.start(definition.topics)
        store, build = await _open_build(redis, definition, log)
        observer = _Finish(stopwatch, stop)
        seconds = settings.checkpoint_seconds
        await Projector(definition, build, log, store, _NoDeadLetters(), observer, SystemClock(), seconds).run(stop)
    finally:
        await log.stop()
        await redis.aclose()
    return stopwatch.run()


async def _open_build(redis: Redis, definition: Definition, log: KafkaLog) -> tuple[RedisStore, WholeBuild]:
    generations = Generations(redis, definition)
    bounds = await log.bounds(await log.partitions(definition.topics))
    record = await generations.open_first(partial(RedisStore.of, redis, definition), bounds, await log.ids(definition.topics))
    store = RedisStore.of(redis, definition, record)
    return store, WholeBuild(generations, store, record)
