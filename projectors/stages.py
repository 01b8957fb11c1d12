"""The stages of all partitions that a process has: takes them, feeds them, begins them anew. Opens nothing itself."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka.errors import KafkaError, ProducerFenced

from projectors.clock import Clock
from projectors.log import Batch, Log
from projectors.observing import Observer
from projectors.stage import Stage
from schema.positions import Partition

# how often a stage asks where its partition ends, and tells lag tools how far it is
LOOK_SECONDS = 1.0
# one that was shut out by another: longer than Kafka takes to tell who has the partition now
FENCED_SECONDS = 15.0
RETRY_SECONDS = 1.0
log = structlog.stdlib.get_logger()


@dataclass(slots=True)
class _Open:
    """A stage with what has to be closed after it."""

    stage: Stage
    closing: AsyncExitStack


class Stages:
    """The stages of the partitions that a log assigns to it. open_stage: one that has begun. mark_ms: see Stage.mark.

    Raises what a restart does not heal (SourceChanged, RetentionPassed), and KafkaError.
    """

    def __init__(
        self,
        log_: Log,
        open_stage: Callable[[Partition, AsyncExitStack], Awaitable[Stage]],
        observer: Observer,
        clock: Clock,
        mark_ms: int,
    ) -> None:
        self._log, self._open_stage, self._observer, self._clock, self._mark_ms = log_, open_stage, observer, clock, mark_ms
        self._open: dict[Partition, _Open] = {}
        # by partition that is assigned and has no stage, when it is to be taken
        self._waiting: dict[Partition, float] = {}
        self._look_at = clock.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop; then how far was read is written down."""
        try:
            while not stop.is_set():
                await self.step()
            for partition in list(self._open):
                await self._let_go(partition)
        finally:
            for opened in self._open.values():
                await opened.closing.aclose()

    async def step(self) -> None:
        """One round: take what was assigned, fetch, write, and what is due."""
        due = [partition for partition, at in self._waiting.items() if at <= self._clock.monotonic()]
        await asyncio.gather(*(self._try(partition, self._take(partition)) for partition in due))
        fetched = await self._log.fetch()
        for partition in fetched.revoked:
            self._waiting.pop(partition, None)
            await self._let_go(partition)
        self._waiting |= dict.fromkeys(fetched.assigned, self._clock.monotonic())
        for partition in [p for p, opened in self._open.items() if opened.stage.may_have_missed]:
            await self._try(partition, self._reconcile(partition))
        feeding = [self._try(batch.partition, self._feed(batch)) for batch in fetched.batches]
        if self._clock.monotonic() < self._look_at:
            await asyncio.gather(*feeding)
        else:
            asked_ms, self._look_at = self._clock.now_ms(), self._clock.monotonic() + LOOK_SECONDS
            # asked while others write: no change has to wait for the answer
            ends, _ = await asyncio.gather(self._ends(), asyncio.gather(*feeding))
            await self._look(ends, asked_ms)

    async def _try(self, partition: Partition, doing: Coroutine[Any, Any, None]) -> None:
        """A stage that Kafka has refused is begun anew, from what was written."""
        try:
            await doing
        except KafkaError as error:
            seconds = FENCED_SECONDS if isinstance(error, ProducerFenced) else RETRY_SECONDS
            log.warning("rows_not_written", partition=str(partition), error=repr(error), again_in_seconds=seconds)
            self._waiting[partition] = self._clock.monotonic() + seconds
            await self._close(partition)

    async def _take(self, partition: Partition) -> None:
        closing = AsyncExitStack()
        try:
            stage = await self._open_stage(partition, closing)
        except BaseException:
            await closing.aclose()
            raise
        self._open[partition] = _Open(stage, closing)
        self._log.seek(partition, stage.reached.offset)
        del self._waiting[partition]

    async def _reconcile(self, partition: Partition) -> None:
        stage = self._open[partition].stage
        await stage.reconcile()
        self._log.seek(partition, stage.reached.offset)

    async def _feed(self, batch: Batch) -> None:
        if opened := self._open.get(batch.partition):
            await opened.stage.take(batch)

    async def _let_go(self, partition: Partition) -> None:
        if opened := self._open.get(partition):
            try:
                await opened.stage.mark()
            except KafkaError as error:
                # whoever is next reads a little more again
                log.warning("rows_not_marked", partition=str(partition), error=repr(error))
            await self._close(partition)

    async def _close(self, partition: Partition) -> None:
        if opened := self._open.pop(partition, None):
            await opened.closing.aclose()

    async def _ends(self) -> Mapping[Partition, int]:
        """Of the partitions that are open, asked of Kafka; lag tools are told how far they are read."""
        if not self._open:
            return {}
        _, bounds = await asyncio.gather(
            self._log.commit({partition: opened.stage.reached.offset for partition, opened in self._open.items()}),
            self._log.bounds(list(self._open)),
        )
        return {partition: end for partition, (_, end) in bounds.items()}

    async def _look(self, ends: Mapping[Partition, int], asked_ms: int) -> None:
        """Where the partitions ended at asked_ms, or later: it tells when all was read."""
        for partition, end in ends.items():
            if opened := self._open.get(partition):
                stage = opened.stage
                stage.aim(end, asked_ms)
                await self._try(partition, stage.mark(self._mark_ms))
                behind_ms = 0 if stage.reached.offset >= end else asked_ms - stage.reached.level_ms
                self._observer.lag(partition, max(0, end - stage.reached.offset), behind_ms / 1000)
