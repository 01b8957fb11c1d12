"""Batches that are folded and applied while the next ones are fetched. Keeps the order of each partition; knows no position."""

import asyncio
from collections.abc import Awaitable, Callable

from projectors.log import Batch
from schema.positions import Partition

# batches in the air at a time: one is folded, one is with Redis, and two wait there, so that it never does; more would only take memory
AT_ONCE = 4


class Flights:
    """project: does all that there is to do with a batch. What it raises is raised by `room` or `land`, once the others have ended."""

    def __init__(self, project: Callable[[Batch], Awaitable[None]]) -> None:
        self._project = project
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks: list[asyncio.Task[None]] = []
        self._last: dict[Partition, asyncio.Task[None]] = {}

    def begin(self, batch: Batch) -> None:
        """After whatever is in the air of its partition."""
        task = asyncio.create_task(self._fly(batch, self._last.get(batch.partition)))
        self._tasks.append(task)
        self._last[batch.partition] = task

    async def _fly(self, batch: Batch, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait({before})
        async with self._turns:
            projecting = self._project(batch)
            # its records go when they are folded: those that wait for Redis need no more than what came of them
            del batch
            await projecting

    async def room(self) -> None:
        """Return when no more than AT_ONCE are in the air."""
        while True:
            done = [task for task in self._tasks if task.done()]
            if any(task.cancelled() or task.exception() for task in done):
                await self.land()
            self._tasks = [task for task in self._tasks if task not in done]
            if len(self._tasks) <= AT_ONCE:
                return
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def land(self) -> None:
        """Return when none is in the air."""
        for error in await self._ended():
            if isinstance(error, BaseException):
                raise error

    async def end(self) -> None:
        """As `land`, but what they raise is forgotten: all of it is read again."""
        await self._ended()

    async def abandon(self) -> None:
        """Of those in the air nothing is known any more."""
        for task in self._tasks:
            task.cancel()
        await self._ended()

    async def _ended(self) -> list[BaseException | None]:
        tasks, self._tasks, self._last = self._tasks, [], {}
        return await asyncio.gather(*tasks, return_exceptions=True)
