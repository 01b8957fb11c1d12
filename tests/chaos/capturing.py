"""A scene whose changes are written to PostgreSQL, by SQL, and come to Kafka by Debezium: it has no sink."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from demo.servers.connect import Connect
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from demo.writing import AT_ONCE, IDLE_SECONDS, written
from schema.fields import Row
from schema.user import UserView
from tests.cdc.captured import Captured, open_captured
from tests.chaos.history import History
from tests.chaos.readers import Readers
from tests.chaos.records import Outcome
from tests.chaos.scene import HEAL_SECONDS, RATE, USERS, Scene, played
from tests.chaos.writer import Writer


class Tables:
    """Takes what a Publisher takes, and writes it by SQL. waiting: who is to hear of it once it is in Kafka."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.waiting: list[Callable[[], None]] = []
        self._connection, self._queue = connection, deque[tuple[Row | None, Row | None]]()
        self._loop, self._writing = asyncio.get_running_loop(), asyncio.create_task(self._run())

    def publish(self, op: str, before: Row | None, after: Row | None, ts_ms: int, arrived: Callable[[], None] | None = None) -> None:
        self._queue.append((before, after))
        if arrived is not None:
            self.waiting.append(arrived)

    def poll(self) -> None:
        """Raises what writing has ended by."""
        if self._writing.done():
            self._writing.result()

    def flush(self, seconds: float = 60) -> None:
        """Return when all is committed; called in a thread of its own."""
        asyncio.run_coroutine_threadsafe(until(self._written, seconds), self._loop).result()

    async def close(self) -> None:
        """Write no more."""
        self._writing.cancel()
        await asyncio.wait([self._writing])
        self._connection.terminate()

    async def _run(self) -> None:
        while True:
            if batch := self._batch():
                async with self._connection.transaction():
                    for statement, values in batch.items():
                        await self._connection.executemany(statement, values)
                for _ in range(sum(map(len, batch.values()))):
                    self._queue.popleft()
            else:
                await asyncio.sleep(IDLE_SECONDS)

    def _batch(self) -> dict[str, list[tuple[object, ...]]]:
        """Values by statement, which take a round trip each: of the next changes, as long as they are of different rows."""
        batch, rows = dict[str, list[tuple[object, ...]]](), set[tuple[object, object]]()
        for before, after in itertools.islice(self._queue, AT_ONCE):
            row = after if after is not None else before
            at = type(row), getattr(row, row.source.key) if row is not None else None
            if at in rows:
                break
            rows.add(at)
            statement, values = written(before, after)
            batch.setdefault(statement, []).append(values)
        return batch

    async def _written(self) -> None:
        self.poll()
        if self._queue:
            raise NotReadyError(f"{len(self._queue)} changes are not written yet")


@dataclass(slots=True, kw_only=True)
class CapturedScene(Scene):
    """captured: the road. connector: settings of it."""

    captured: Captured
    tables: Tables
    connector: dict[str, str] = field(default_factory=dict)

    async def begin(self) -> None:
        """Every user, and the connector: its snapshot builds the view."""
        self.writer.begin()
        await self.writer.flush()
        await self.captured.capture(**self.connector)

    async def arrived(self, seconds: float = 120) -> None:
        """Return when all that was changed by now is in Kafka."""
        heard, self.tables.waiting = self.tables.waiting, []
        await self.writer.flush()
        await self.captured.captured(seconds)
        for arrived in heard:
            arrived()

    async def healed(self, seconds: float = HEAL_SECONDS) -> None:
        """Answers are as of a moment of Kafka's: so all must be there first."""
        await self.arrived()
        await Scene.healed(self, seconds)


@asynccontextmanager
async def open_captured_scene(
    outcome: Outcome,
    connect: Connect,
    kafka: Server,
    redis: Server,
    postgres: Server,
    folder: Path,
    *,
    rate: float = RATE,
    view: type = UserView,
) -> AsyncIterator[CapturedScene]:
    """One connector, projector and gateway; changes and readers begin at once, the audit comes at the end. Then the outcome is kept."""
    async with open_captured(connect, kafka, redis, postgres, folder, view) as road:
        history, tables = History(road.definition), Tables(await asyncpg.connect(road.settings.postgres_url))
        writer = Writer(tables, history, USERS, rate, seed=sum(outcome.name.encode()))
        readers = Readers([], history, USERS)
        scene = CapturedScene(road, outcome, kafka, redis, postgres, folder, history, writer, readers, captured=road, tables=tables)
        try:
            async with played(scene):
                yield scene
        finally:
            await tables.close()
