"""One thread for what takes milliseconds of Python, and a share of the time for it: all threads share Python's lock."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# of the time; and what is saved up of it, in seconds: enough for the new documents of a client that was just deployed
SHARE, BURST_SECONDS = 0.015, 0.2
_T = TypeVar("_T")


class PacedThread:
    """Work waits for the work before it, and for its share to grow again where that has taken more than there was."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self._thread = ThreadPoolExecutor(1, "paced")
        self._clock, self._sleep = clock, sleep
        self._credit, self._ended = BURST_SECONDS, clock()

    async def run(self, work: Callable[[], _T]) -> _T:
        """What it returns or raises. Who is cancelled before it began has it left out."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._paced, work)

    def _paced(self, work: Callable[[], _T]) -> _T:
        self._credit = min(BURST_SECONDS, self._credit + SHARE * (self._clock() - self._ended))
        if self._credit < 0:
            self._sleep(-self._credit / SHARE)
            self._credit = 0.0
        began = self._clock()
        try:
            return work()
        finally:
            self._ended = self._clock()
            self._credit -= self._ended - began
