"""An act as SQL, within a transaction that is given, and as what it has changed. Publishes nothing and commits nothing."""

import time
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import asyncpg
import msgspec

from demo.drift.plan import Act, Delete, Edit, Insert
from schema.fields import Row
from schema.user import Users

# a string: the class is generic in the stubs only
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class Changed(NamedTuple):
    """A row before and after, with its op as in the envelope. ts_ms: Unix ms."""

    op: str
    before: Row | None
    after: Row | None
    ts_ms: int

    @property
    def row(self) -> Row:
        """Whichever there is."""
        row = self.after if self.after is not None else self.before
        if row is None:
            raise ValueError("a change has a before or an after")
        return row


async def write(connection: Connection, act: Act) -> Changed | None:
    """Carry out the act; None where the row is not there. Rows that are changed stay locked until the transaction ends."""
    changed = await described(connection, act, lock=True)
    if changed is not None:
        await _written(connection, changed)
    return changed


async def described(connection: Connection, act: Act, *, lock: bool = False) -> Changed | None:
    """What the act would change, by the rows as they are; None where the row is not there."""
    if isinstance(act, Insert):
        return Changed("c", None, act.row, now_ms())
    table, key = (Users, act.user_id) if isinstance(act, Edit) else (act.table, act.key)
    found = await connection.fetchrow(_select(table) + (" FOR UPDATE" if lock else ""), key)
    if found is None:
        return None
    before = table(**found)
    if isinstance(act, Delete):
        return Changed("d", before, None, now_ms())
    return Changed("u", before, msgspec.structs.replace(before, **act.columns), now_ms())


async def insert_all(connection: Connection, rows: Sequence[Row]) -> None:
    """Rows of one table, by COPY."""
    table = type(rows[0])
    await connection.copy_records_to_table(table.source.table, records=map(msgspec.structs.astuple, rows), columns=table.__struct_fields__)


async def _written(connection: Connection, changed: Changed) -> None:
    source, names = changed.row.source, changed.row.__struct_fields__
    if changed.after is None:
        await connection.execute(f'DELETE FROM "{source.table}" WHERE "{source.key}" = $1', getattr(changed.row, source.key))  # noqa: S608  # our own names
        return
    values = msgspec.structs.astuple(changed.after)
    places = ", ".join(f"${place}" for place in range(1, len(names) + 1))
    if changed.before is None:
        await connection.execute(f'INSERT INTO "{source.table}" ({_columns(names)}) VALUES ({places})', *values)  # noqa: S608  # our own names
        return
    # the key is the first column of every table
    await connection.execute(f'UPDATE "{source.table}" SET ({_columns(names)}) = ROW({places}) WHERE "{source.key}" = $1', *values)  # noqa: S608  # our own names


def _select(table: type[Row]) -> str:
    return f'SELECT {_columns(table.__struct_fields__)} FROM "{table.source.table}" WHERE "{table.source.key}" = $1'  # noqa: S608  # our own names


def _columns(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
