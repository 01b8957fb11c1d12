"""Readers of the view who know every answer: how many reads were wrong, failed or late. Open loop; writes nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from redis.asyncio import Redis

from loaders.view import ViewLoader
from schema.definition import Definition
from schema.loader import LoadError, Read, Row


@dataclass(slots=True)
class Reads:
    """What came of them. seconds: of each, from the moment it was due. generations: which answered, as each was first seen."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    generations: list[str] = field(default_factory=list)

    def percentile_ms(self, share: float) -> float:
        """0.95: 95 % were as fast or faster."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(len(self.seconds) * share))] * 1000 if self.seconds else 0.0


class Readers:
    """`rate` reads a second, of whom `draw` names; `expected` tells the row of an id."""

    def __init__(self, redis: Redis, definition: Definition, rate: float, draw: Callable[[], str], expected: Callable[[str], Row]) -> None:
        self._loader = ViewLoader(redis, definition)
        self._fields = tuple(f.name for f in definition.fields)
        self._rate, self._draw, self._expected = rate, draw, expected
        self.reads = Reads()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reads]:
        """They read until the block ends; reads under way are dropped."""
        running = asyncio.create_task(self._run())
        try:
            yield self.reads
        finally:
            running.cancel()
            await asyncio.wait([running])
        if not running.cancelled():
            running.result()

    async def _run(self) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as under_way:
            for number in count():
                due = began + number / self._rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                under_way.create_task(self._read(due))

    async def _read(self, due: float) -> None:
        user, seen = self._draw(), list(self.reads.generations)
        try:
            rows = await self._loader.load([Read("id", user, self._fields)])
        except LoadError as error:
            self.reads.failed.append(f"{user}: {error}")
            return
        self.reads.seconds.append(time.monotonic() - due)
        generation = str(rows.generation)
        if generation not in self.reads.generations:
            self.reads.generations.append(generation)
        elif generation in seen[:-1]:
            # reads that began before the change may still end with it, but none that began after
            self.reads.wrong.append(f"{user}: answered by {generation} again, after {seen[-1]}")
        self._judge(user, rows.rows)

    def _judge(self, user: str, rows: Sequence[Row | None]) -> None:
        if list(rows) != [self._expected(user)]:
            self.reads.wrong.append(f"{user}: {rows[0]}")
