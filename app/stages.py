"""Keeps the rows topics of a definition's changelogs beside the projector: opens what stages need. projectors/stage.py is one of them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from app.feeds import REPLICAS, RETRY_SECONDS, TopicsMissing, is_away, open_consumer, open_dead_letters, open_log
from app.settings import Settings
from app.stopping import pause
from app.topics import make_topics, tombstones_kept_ms
from projectors.clock import SystemClock
from projectors.connections import steadied
from projectors.dead_letters import DeadLetters
from projectors.log import KafkaLog, Record, end
from projectors.observing import Observer
from projectors.reading import SourceChanged
from projectors.rows import Rows, reached_of
from projectors.stage import KafkaJournal, Stage
from projectors.stages import Stages
from projectors.topic_reader import Bounds, KafkaReader
from schema.definition import Definition
from schema.positions import Partition

# so often it is written down, where no change tells it, how far was read; or eight times while Kafka keeps a tombstone
MARK_MS = 3_600_000
TRANSACTION_MS = 30_000
BATCH_BYTES = 1 << 18
KEPT_FOR_EVER = MappingProxyType({"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"})
# so many offsets hold a record, most likely: ends of transactions take one too
TAIL = 50
log = structlog.stdlib.get_logger()


@dataclass(slots=True)
class RowTopics:
    """The rows topics of a definition, kept by this process together with all others that run with the same settings."""

    settings: Settings
    definition: Definition
    observer: Observer
    _ends: dict[Partition, int] | None = field(default=None, init=False)
    _is_level: bool = field(default=False, init=False)

    @property
    def group(self) -> str:
        """Of everybody who keeps these topics, whatever their projectors' group: two groups would shut each other out again and again."""
        return f"{self.settings.topic_prefix}{self.definition.name.lower()}.rows"

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop. Raises what only a person can mend; Kafka being away is waited for."""
        while not stop.is_set():
            try:
                windows = await self._prepare()
                async with (
                    open_log(self.settings, self.group) as log_,
                    open_dead_letters(self.settings, self.definition) as letters,
                ):
                    await log_.start(self.definition.changelogs)
                    await self._keep(log_, letters, windows, stop)
            except KafkaError as away:
                if not is_away(away):
                    raise
                log.warning("kafka_away", at=self.settings.kafka_bootstrap, error=repr(away))
            else:
                return
            await pause(stop, RETRY_SECONDS)

    async def _keep(self, log_: KafkaLog, letters: DeadLetters, windows: Mapping[str, int], stop: asyncio.Event) -> None:
        ids = await log_.ids(self.definition.changelogs)

        async def open_stage(partition: Partition, closing: AsyncExitStack) -> Stage:
            window_ms = windows[partition.topic]
            stage = await self._open_stage(partition, closing, letters, window_ms)
            await stage.begin(ids.get(partition.topic, ""))
            return stage

        mark_ms = min(MARK_MS, *(window_ms // 4 for window_ms in windows.values()))
        await Stages(log_, open_stage, self.observer, SystemClock(), mark_ms).run(stop)

    async def _open_stage(self, partition: Partition, closing: AsyncExitStack, letters: DeadLetters, window_ms: int) -> Stage:
        journal, source = await self.open_journal(partition, closing), FreshReader(self.settings, partition.topic)
        rows = Rows(self.definition.changelogs[partition.topic])
        return Stage(partition, rows, journal, source, letters, self.observer, SystemClock(), window_ms)

    async def open_journal(self, partition: Partition, closing: AsyncExitStack) -> KafkaJournal:
        """Of a changelog's partition. Whoever had it open can write no more."""
        to = self._rows_of(partition)
        producer = AIOKafkaProducer(
            bootstrap_servers=self.settings.kafka_bootstrap,
            # of what it writes, not of who writes it: whoever comes later shuts out all who were there before
            transactional_id=str(to),
            transaction_timeout_ms=TRANSACTION_MS,
            compression_type="lz4",
            max_batch_size=BATCH_BYTES,
        )
        steadied(producer.client)
        closing.push_async_callback(lambda: end(producer.stop()))
        await producer.start()
        return KafkaJournal(producer, FreshReader(self.settings, to.topic), to)

    def _rows_of(self, partition: Partition) -> Partition:
        return Partition(self.definition.topic(self.definition.changelogs[partition.topic]), partition.number)

    async def level(self) -> bool:
        """Whether the rows topics have all that the changelogs had when this was first asked: a first view is not built on less."""
        if self._is_level:
            return True
        if self._ends is None:
            bounds = {p: b for topic in self.definition.changelogs for p, b in (await FreshReader(self.settings, topic).bounds()).items()}
            if self.definition.changelogs.keys() - {partition.topic for partition in bounds}:
                # `run` says so
                return False
            self._ends = {partition: end_offset for partition, (first, end_offset) in bounds.items() if end_offset > first}
        self._is_level = all([await self._reached(partition) >= end_offset for partition, end_offset in self._ends.items()])
        return self._is_level

    async def _reached(self, partition: Partition) -> int:
        """How far the changelog was read when its rows were last written, by whichever process; -1 if none has."""
        at, tail = self._rows_of(partition), TAIL
        reader = FreshReader(self.settings, at.topic)
        first, end_offset = (await reader.bounds()).get(at, (0, 0))
        start, reached = end_offset, -1
        while start > first and reached < 0:
            start, tail = max(first, end_offset - tail), tail * 10
            async for record in reader.records(at, start, end_offset):
                told = reached_of(record)
                reached = reached if told is None else told.offset
        return reached

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka_bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def _prepare(self) -> Mapping[str, int]:
        """Make the rows topics that are missing. By changelog, half as long as Kafka keeps a tombstone, ms: clocks differ."""
        async with self._admin() as admin:
            counts = await self._partitions(admin)
            for topic, row in self.definition.changelogs.items():
                rows_topic = self.definition.topic(row)
                if rows_topic not in counts:
                    for refused in await make_topics(admin, {rows_topic: counts[topic]}, REPLICAS, KEPT_FOR_EVER):
                        raise TopicsMissing(refused)
                elif counts[rows_topic] != counts[topic]:
                    raise SourceChanged(
                        f"topic {topic} has {counts[topic]} partitions, {rows_topic} has {counts[rows_topic]}: keys have moved between "
                        f"them. Delete {rows_topic} and run `viewgate rebuild`."
                    )
            return {topic: await tombstones_kept_ms(admin, topic) // 2 for topic in self.definition.changelogs}

    async def _partitions(self, admin: AIOKafkaAdminClient) -> Mapping[str, int]:
        counts = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
        missing = self.definition.changelogs.keys() - counts.keys()
        if missing:
            raise TopicsMissing(f"Kafka has no topic {', '.join(sorted(missing))}: create it, or set VIEWGATE_TOPIC_PREFIX.")
        return counts


@dataclass(frozen=True, slots=True)
class FreshReader:
    """A Reader of one topic that has a consumer only while it reads: stages read seldom, and a consumer fetches always."""

    settings: Settings
    topic: str

    async def bounds(self) -> Bounds:
        """First offset and end offset of each partition."""
        consumer = open_consumer(self.settings, None)
        await consumer.start()
        try:
            return await KafkaReader(consumer, [self.topic]).bounds()
        finally:
            await end(consumer.stop())

    async def records(self, partition: Partition, start: int, end_offset: int) -> AsyncIterator[Record]:
        """Those from offset `start` up to, not including, `end_offset`."""
        consumer = open_consumer(self.settings, None)
        await consumer.start()
        try:
            async for record in KafkaReader(consumer, [self.topic]).records(partition, start, end_offset):
                yield record
        finally:
            await end(consumer.stop())
