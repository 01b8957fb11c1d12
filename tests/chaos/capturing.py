"""A scene whose changes are written to PostgreSQL, by SQL, and come to Kafka by Debezium: it has no sink."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import msgspec

from demo.servers.connect import Connect
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from demo.writing import AT_ONCE, IDLE_SECONDS
from schema.definition import Definition
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

    def __init__(self, connection: asyncpg.Connection, definition: Definition) -> None:
        self.waiting: list[Callable[[], None]] = []
        self._definition, self._statement = definition, _statement(definition)
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
            if changes := self._batch():
                await self._connection.execute(self._statement, *_told(self._definition, changes))
                for _ in changes:
                    self._queue.popleft()
            else:
                await asyncio.sleep(IDLE_SECONDS)

    def _batch(self) -> list[tuple[Row | None, Row | None]]:
        """The next changes, as long as they are of different rows."""
        rows = set[tuple[str, object]]()
        for count, (before, after) in enumerate(itertools.islice(self._queue, AT_ONCE)):
            row = after if after is not None else before
            assert row is not None
            at = row.source.table, getattr(row, row.source.key)
            if at in rows:
                return list(itertools.islice(self._queue, count))
            rows.add(at)
        return list(itertools.islice(self._queue, AT_ONCE))

    async def _written(self) -> None:
        self.poll()
        if self._queue:
            raise NotReadyError(f"{len(self._queue)} changes are not written yet")


def _statement(definition: Definition) -> str:
    """All changes of a batch by one round trip, for each takes long on a busy machine. Parameters, by table: what comes, moves, goes."""
    parts = []
    for number, row in enumerate(definition.rows):
        columns = [f'"{column.name}"' for column in msgspec.structs.fields(row)]
        of = [f"FROM jsonb_populate_recordset(NULL::{row.source.table}, ${3 * number + place}) n" for place in (1, 2, 3)]
        key, names, news = f'o."{row.source.key}" = n."{row.source.key}"', ", ".join(columns), ", ".join(f"n.{one}" for one in columns)
        parts += [
            f"c{number} AS (INSERT INTO {row.source.table} ({names}) SELECT {news} {of[0]})",
            f"u{number} AS (UPDATE {row.source.table} o SET ({names}) = ROW({news}) {of[1]} WHERE {key})",
            f"d{number} AS (DELETE FROM {row.source.table} o USING{of[2].removeprefix('FROM')} WHERE {key})",
        ]
    return f"WITH {', '.join(parts)} SELECT 1"


def _told(definition: Definition, changes: Sequence[tuple[Row | None, Row | None]]) -> Iterator[str]:
    """The statement's parameters, as JSON."""
    for row in definition.rows:
        came, moved, went = list[Row](), list[Row](), list[Row]()
        for before, after in changes:
            if after is not None and after.source.table == row.source.table:
                (came if before is None else moved).append(after)
            elif after is None and before is not None and before.source.table == row.source.table:
                went.append(before)
        yield from (msgspec.json.encode(rows).decode() for rows in (came, moved, went))


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
        history, tables = History(road.definition), Tables(await asyncpg.connect(road.settings.postgres_url), road.definition)
        writer = Writer(tables, history, USERS, rate, seed=sum(outcome.name.encode()))
        readers = Readers([], history, USERS, outcome.seen)
        scene = CapturedScene(road, outcome, kafka, redis, postgres, folder, history, writer, readers, captured=road, tables=tables)
        try:
            async with played(scene):
                yield scene
        finally:
            await tables.close()
