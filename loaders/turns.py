"""A bound on what runs at once: so many turns, and who waits too long for one is told so. Knows nothing of what is done in a turn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schema.loader import Overloaded


class Turns:
    """limit: how many at once. wait_seconds: for a turn. sentence: of Overloaded."""

    def __init__(self, limit: int, wait_seconds: float, sentence: str) -> None:
        self._free, self._limit, self._wait_seconds, self._sentence = asyncio.Semaphore(limit), limit, wait_seconds, sentence

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Raises Overloaded."""
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._free.acquire()
        except TimeoutError as late:
            raise Overloaded(self._sentence) from late
        try:
            yield
        finally:
            self._free.release()
