"""The road of a message: which generations this process keeps, each by a feed of its own (app/feeds.py), live and building ones abreast."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from aiokafka.errors import KafkaError
from redis.asyncio import Redis

from app.clients import open_redis
from app.feeds import Feed, Part, is_away, open_log, sources
from app.publishing import Publishing
from app.settings import Settings
from app.stages import RowTopics
from app.stopping import abreast, within
from app.telemetry import ProjectorMetrics
from projectors.apply import RedisStore, StoreUnavailable, check_eviction
from projectors.generations import FED, Generations, ShardLost
from projectors.observing import Observer
from schema.definition import Definition
from schema.generation import Generation
from schema.positions import Partition

LOOK_SECONDS = 1.0
log = structlog.stdlib.get_logger()


async def work(settings: Settings, definition: Definition, metrics: ProjectorMetrics, stop: asyncio.Event) -> None:
    """Keep every generation of this definition until `stop` is set. Raises what only a person can mend, with its sentence."""
    redis = open_redis(settings, settings.redis_url)
    try:
        rows = RowTopics(settings, definition, metrics)
        running = [Worker(settings, definition, metrics, redis, rows.level).run(stop)]
        if definition.changelogs:
            running.append(rows.run(stop))
        if settings.view_topic:
            running.append(Publishing(settings, definition, redis).run(stop))
        await within(stop, abreast(running))
    finally:
        await redis.aclose()


class Beside:
    """Tells metrics of a feed, but for the lag: that of the live generation is told."""

    def __init__(self, metrics: ProjectorMetrics) -> None:
        self.applied, self.duplicates = metrics.applied, metrics.duplicates
        self.dead_letter, self.rewound = metrics.dead_letter, metrics.rewound

    def lag(self, partition: Partition, records: int, seconds: float) -> None: ...


class Worker:
    """Starts and ends feeds as generations come and go.

    One whose trouble only a person can mend is left; the process ends with its sentence when nothing is left to keep.
    """

    def __init__(
        self,
        settings: Settings,
        definition: Definition,
        metrics: ProjectorMetrics,
        redis: Redis,
        rows_are_level: Callable[[], Awaitable[bool]],
    ) -> None:
        self._settings, self._definition, self._metrics, self._redis = settings, definition, metrics, redis
        self._rows_are_level = rows_are_level
        self._generations = Generations(redis, definition)
        self._running: dict[Part, tuple[Feed, asyncio.Task[None]]] = {}
        self._failed: dict[Part, BaseException] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop; then every feed finishes its batch."""
        try:
            await self._look(stop)
            while not stop.is_set():
                await self._wait(stop)
                await self._look(stop)
        finally:
            tasks = [task for _, task in self._running.values()]
            if not stop.is_set():
                for task in tasks:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, stop: asyncio.Event) -> None:
        told = asyncio.ensure_future(stop.wait())
        await asyncio.wait({told, *(task for _, task in self._running.values())}, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()

    async def _look(self, stop: asyncio.Event) -> None:
        """Take in what has ended, and what there is to be kept."""
        try:
            for part in [part for part, (_, task) in self._running.items() if task.done()]:
                await self._take_in(part)
            for part, observer in (await self._wanted()).items():
                if part not in self._running and part not in self._failed:
                    feed = Feed(self._settings, self._definition, self._redis, observer, part)
                    self._running[part] = feed, asyncio.create_task(feed.run(stop))
        except StoreUnavailable as away:
            log.warning("redis_away", error=str(away))
        except KafkaError as away:
            if not is_away(away):
                raise
            log.warning("kafka_away", at=self._settings.kafka_bootstrap, error=repr(away))

    async def _take_in(self, part: Part) -> None:
        _, task = self._running.pop(part)
        error = task.exception() if not task.cancelled() else None
        if isinstance(error, ShardLost) and await self._is_empty_or_begun_anew(part):
            # nothing is left that could be wrong: all of it is built again
            log.warning("redis_empty", error=str(error))
            self._failed.clear()
        elif error is not None:
            log.error("generation_not_kept", generation=part.generation, part=part.of, error=str(error))
            self._failed[part] = error
        if self._failed and not self._running:
            raise next(iter(self._failed.values()))

    async def _is_empty_or_begun_anew(self, part: Part) -> bool:
        """Whether Redis came back empty; another projector may have heard of it first, and opened the generation again."""
        record = await self._generations.read(part.generation)
        return record.build != part.build if record else not await self._generations.all()

    async def _wanted(self) -> dict[Part, Observer]:
        """What is to be kept, and who is told of it. Raises GenerationRefused where nothing is of this definition."""
        records = await self._generations.all()
        if not records and not self._running:
            if not await self._rows_are_level():
                return {}
            records = [await self._open_first()]
        ours = [record for record in records if record.definition == self._definition.fingerprint and record.state in {*FED, "opening"}]
        others = [record for record in records if record.definition != self._definition.fingerprint]
        if others and not ours and not self._running:
            self._generations.check(others[-1])
        live = await self._generations.live()
        wanted: dict[Part, Observer] = {}
        for record in ours:
            whole = Part(record.name, record.build)
            wanted[whole] = self._metrics if record.name == live or live is None else Beside(self._metrics)
            feed = self._running.get(whole)
            if feed and feed[0].projector and feed[0].projector.lost and record.state in {"live", "retired"}:
                wanted[Part(record.name, record.build, "lost")] = Beside(self._metrics)
        return wanted

    async def _open_first(self) -> Generation:
        await check_eviction(self._redis)
        async with open_log(self._settings, None) as log_:
            await log_.start(self._definition.topics)
            bounds, ids = await sources(log_, self._definition)
        return await self._generations.open_first(partial(RedisStore.of, self._redis, self._definition), bounds, ids)
