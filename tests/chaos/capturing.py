"""A scene whose changes are written to PostgreSQL, by SQL, and come to Kafka by Debezium: it has no sink."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from demo.servers.connect import Connect
from demo.servers.server import Server
from demo.writing import TableWriter
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

    def __init__(self, tables: TableWriter) -> None:
        self.waiting: list[Callable[[], None]] = []
        self._tables, self._loop = tables, asyncio.get_running_loop()

    def publish(self, op: str, before: Row | None, after: Row | None, ts_ms: int, arrived: Callable[[], None] | None = None) -> None:
        self._tables.publish(op, before, after, ts_ms)
        if arrived is not None:
            self.waiting.append(arrived)

    def poll(self) -> None:
        """Nothing is heard of it here."""

    def flush(self, seconds: float = 60) -> None:
        """Return when all is committed; called in a thread of its own."""
        asyncio.run_coroutine_threadsafe(self._tables.flush(seconds), self._loop).result()


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
        connection = await asyncpg.connect(road.settings.postgres_url)
        tables = TableWriter(connection)
        writing = asyncio.create_task(tables.run())
        history = History(road.definition)
        taken = Tables(tables)
        writer = Writer(taken, history, USERS, rate, seed=sum(outcome.name.encode()))
        readers = Readers([], history, USERS)
        scene = CapturedScene(road, outcome, kafka, redis, postgres, folder, history, writer, readers, captured=road, tables=taken)
        try:
            async with played(scene):
                yield scene
        finally:
            writing.cancel()
            await asyncio.wait([writing])
            with contextlib.suppress(asyncpg.PostgresError, OSError):
                await connection.close()
