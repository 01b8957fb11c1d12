"""The write side of cdc.py: changes at a steady rate, each a transaction of its own in PostgreSQL. Knows of no Kafka."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import httpx

from bench.probes import LATE_SECONDS, START, Probe, Traffic
from demo.writing import written
from schema.fields import Row
from schema.user import Tweets

WRITERS = 8


@dataclass(slots=True)
class Services:
    """WRITERS of them, each with a connection of its own; whoever is free takes the next change."""

    pool: asyncpg.Pool
    _waiting: "asyncio.Queue[tuple[Row, asyncio.Future[float] | None]]" = field(default_factory=asyncio.Queue)

    def publish(self, op: str, before: Row | None, after: Row | None, ts_ms: int) -> None:
        """Have one row inserted; nobody waits for it."""
        if after is not None:
            self._waiting.put_nowait((after, None))

    async def committed(self, row: Row) -> float:
        """Have one row inserted; when its commit had returned (`time.monotonic`)."""
        done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((row, done))
        return await done

    async def run(self) -> None:
        """One of them, until cancelled. Raises asyncpg's errors."""
        async with self.pool.acquire() as connection:
            while True:
                row, done = await self._waiting.get()
                statement, values = written(None, row)
                await connection.execute(statement, *values)
                if done is not None:
                    done.set_result(time.monotonic())


@asynccontextmanager
async def services(address: str) -> AsyncIterator[Services]:
    """Running until the end; one that fails is seen then."""
    async with asyncpg.create_pool(address, min_size=WRITERS, max_size=WRITERS) as pool:
        writing = Services(pool)
        tasks = [asyncio.create_task(writing.run()) for _ in range(WRITERS)]
        try:
            yield writing
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended


@dataclass(slots=True)
class Commits(Traffic):
    """The traffic of probes.py, written by these services. `acked` of a probe: when its commit had returned."""

    writing: Services = field(kw_only=True)

    async def _follow(self, probe: Probe, client: httpx.AsyncClient) -> None:
        probe.sent = time.monotonic()
        async with asyncio.timeout(LATE_SECONDS):
            probe.acked = await self.writing.committed(Tweets(probe.user, probe.user, "x", START))
