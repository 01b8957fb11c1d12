"""Reads the source tables with SQL, counting at each request: mode sql, and what cache-aside and the fallback ask."""

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import TypeAlias

import asyncpg

from loaders.turns import Turns
from schema import layout, notes, sql
from schema.definition import Definition
from schema.loader import Read, Row, Rows, SourceUnavailable

# PostgreSQL is away, going down, coming up, full, does not let us in, or has an address that no client can use. Not PostgresError:
# a missing table is a mistake of ours.
AWAY = (
    asyncpg.ClientConfigurationError,
    # what it says of a connection that a server ended in the middle of an answer
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)

# for a connection of the pool
CONNECT_SECONDS = 5.0
SENTENCE = "PostgreSQL answers as many requests as are allowed at once; try again."

# a string: the class is generic in the stubs only
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
_Group = tuple[str, tuple[str, ...]]


class SqlLoader:
    """Mode sql.

    One query for all reads of the same `by` and fields; several queries of a request see one snapshot. Fragments are made by
    layout.encode, as the view's were. as_of_ms is when the request was read. As many loads run at once as the pool has connections;
    wait_seconds: how long one waits for its turn. running: how many are under way.
    """

    def __init__(self, pool: asyncpg.Pool, definition: Definition, wait_seconds: float = 1.0) -> None:
        self._pool = pool
        self._definition = definition
        self._turns = Turns(pool.get_max_size(), wait_seconds, SENTENCE)
        self.running = 0

    def beside(self) -> "SqlLoader":
        """Another one, whose loads take their turns among these and are counted apart."""
        other = SqlLoader(self._pool, self._definition)
        other._turns = self._turns
        return other

    async def load(self, reads: Sequence[Read]) -> Rows:
        """A row per read in at least one query. Raises SourceUnavailable, Overloaded."""
        groups: dict[_Group, list[str]] = {}
        for read in reads:
            groups.setdefault((read.by, read.fields), []).append(read.value)
        async with self._turns.turn(), self._counted(), _connection(self._pool) as connection:
            as_of_ms = time.time_ns() // 1_000_000
            # one query sees one snapshot without being told to
            one_snapshot = connection.transaction(isolation="repeatable_read", readonly=True) if len(groups) > 1 else nullcontext()
            async with one_snapshot:
                found = {group: await self._select(connection, group, values) for group, values in groups.items()}
        return Rows([found[read.by, read.fields].get(read.value) for read in reads], "sql", None, as_of_ms)

    async def ready(self) -> None:
        """Raises SourceUnavailable."""
        async with _connection(self._pool) as connection:
            await connection.execute("SELECT 1")

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    async def _select(self, connection: Connection, group: _Group, values: Iterable[str]) -> dict[str, Row]:
        by, fields = group
        names = [name for name in fields if name != "id"]
        # a lookup's rows are told apart by the column looked up, so it is read too
        key = [] if by == "id" else [by]
        # PostgreSQL has no text with a NUL in it, and calls the question an error
        wanted = [value for value in dict.fromkeys(values) if "\0" not in value]
        keys = [int(value) for value in wanted] if by == "id" and self._definition.key_type is int else wanted
        statement = sql.select(self._definition, [*dict.fromkeys(key + names)], by)
        notes.sql(statement)
        records = await connection.fetch(statement, keys)
        return {str(record[by]): _fragments(record, fields) for record in records}


def _fragments(record: asyncpg.Record, fields: tuple[str, ...]) -> Row:
    return [layout.encode(str(record["id"]) if name == "id" else record[name]) for name in fields]


async def keys(pool: asyncpg.Pool, definition: Definition, size: int = 1000) -> AsyncIterator[Sequence[str]]:
    """Pages of the ids of all rows, in the key's order. Raises SourceUnavailable."""
    after: int | str | None = None
    while True:
        async with _connection(pool) as connection:
            page = [record["id"] for record in await connection.fetch(sql.keys(definition), after, size)]
        if not page:
            return
        yield [str(key) for key in page]
        after = page[-1]


async def count(pool: asyncpg.Pool, definition: Definition) -> int:
    """How many rows there are. Raises SourceUnavailable."""
    async with _connection(pool) as connection:
        return int(await connection.fetchval(sql.count(definition)))


@asynccontextmanager
async def _connection(pool: asyncpg.Pool) -> AsyncIterator[Connection]:
    try:
        async with pool.acquire(timeout=CONNECT_SECONDS) as connection:
            yield connection
    except AWAY as error:
        raise SourceUnavailable("PostgreSQL cannot be reached.") from error
