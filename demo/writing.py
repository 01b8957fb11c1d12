"""A service behind change data capture: it writes each change to PostgreSQL, and knows of no Kafka."""

import asyncio
from collections import deque

import asyncpg
import msgspec

from demo.servers.process import NotReadyError, until
from schema.fields import Row

# so many changes at most are one transaction
AT_ONCE = 100
IDLE_SECONDS = 0.01


class TableWriter:
    """Takes what a Publisher takes. Changes are written in their order, those that wait for each other's end in one transaction."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._waiting: deque[tuple[Row | None, Row | None]] = deque()

    def publish(self, op: str, before: Row | None, after: Row | None, ts_ms: int) -> None:
        """Queue one change; `run` writes it. op and ts_ms are the database's own affair."""
        self._waiting.append((before, after))

    async def run(self) -> None:
        """Write what is queued, until cancelled. Raises asyncpg's errors."""
        while True:
            if self._waiting:
                await self._write(min(len(self._waiting), AT_ONCE))
            else:
                await asyncio.sleep(IDLE_SECONDS)

    async def flush(self, seconds: float) -> None:
        """Return when nothing waits any more. Raises TimeoutError."""
        await until(self._written, seconds)

    async def _write(self, count: int) -> None:
        async with self._connection.transaction():
            for before, after in list(self._waiting)[:count]:
                statement, values = written(before, after)
                await self._connection.execute(statement, *values)
        for _ in range(count):
            self._waiting.popleft()

    async def _written(self) -> None:
        if self._waiting:
            raise NotReadyError(f"{len(self._waiting)} changes are not written yet")


def written(before: Row | None, after: Row | None) -> tuple[str, tuple[object, ...]]:
    """The statement of a change, and its values. Raises ValueError for a change of nothing."""
    row = after if after is not None else before
    if row is None:
        raise ValueError("a change has a before or an after")
    table, key = f'"{row.source.table}"', f'"{row.source.key}"'
    columns = ", ".join(f'"{column.name}"' for column in msgspec.structs.fields(row))
    values = msgspec.structs.astuple(row)
    places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
    if after is None:
        return f"DELETE FROM {table} WHERE {key} = $1", (getattr(row, row.source.key),)  # noqa: S608  # our own names
    if before is None:
        return f"INSERT INTO {table} ({columns}) VALUES ({places})", values  # noqa: S608  # our own names
    where = f"{key} = ${len(values) + 1}"
    return f"UPDATE {table} SET ({columns}) = ROW({places}) WHERE {where}", (*values, getattr(before, row.source.key))  # noqa: S608  # our own names
