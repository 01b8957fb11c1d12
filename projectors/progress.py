"""Up to when readers may be told that the view has each partition. Applies nothing."""

import asyncio
from collections.abc import Mapping

from projectors.apply import Store
from projectors.clock import Clock
from projectors.log import Log
from projectors.observing import Observer
from projectors.reading import Reading
from schema.positions import Partition

REPORT_SECONDS = 1.0


class Progress:
    """Asks the log once a second where it ends; what had an end then, and has been applied up to it by now, is as of then.

    What came with the records tells of an older moment: a partition may not have been asked for half a second.
    """

    def __init__(self, log_: Log, store: Store, observer: Observer, clock: Clock) -> None:
        self._log, self._store, self._observer, self._clock = log_, store, observer, clock
        self._at = clock.monotonic()
        self._asked_ms = 0
        self._asking: asyncio.Task[Mapping[Partition, int]] | None = None

    async def keep_up(self, readings: Mapping[Partition, Reading]) -> None:
        """What is due. Raises StoreUnavailable."""
        if self._asking is not None and self._asking.done():
            ends, self._asking = self._asking.result(), None
            await self._report(readings, ends)
        if self._asking is None and readings and self._clock.monotonic() >= self._at:
            self._at, self._asked_ms = self._clock.monotonic() + REPORT_SECONDS, self._clock.now_ms()
            self._asking = asyncio.create_task(self._log.ends(list(readings)))

    async def close(self) -> None:
        """Ask no more."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
            await asyncio.wait([asking])

    async def _report(self, readings: Mapping[Partition, Reading], ends: Mapping[Partition, int]) -> None:
        as_of_ms = {}
        for partition, end in ends.items():
            if reading := readings.get(partition):
                as_of_ms[partition] = self._asked_ms if reading.next >= end else reading.ts_ms
                self._observer.lag(partition, max(0, end - reading.next), max(0.0, (self._asked_ms - as_of_ms[partition]) / 1000))
        await self._store.report(as_of_ms)
