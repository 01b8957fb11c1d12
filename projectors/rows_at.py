"""The rows of the source database and what they count to, all of one moment, and Kafka's offsets at that moment. Reads only.

Here the offsets are those that a sink keeps in the transactions in which it writes the rows: what the tables hold is the log below them.
Of a database whose changes are captured they come from captured.py.
"""

from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

import asyncpg

from projectors.fold import Key
from schema import sql
from schema.definition import Definition
from schema.fields import Row
from schema.positions import Partition
from schema.seen import Seen

# one page of a cursor; the first waits until a table is sorted or aggregated, however large it is
PAGE_SECONDS = 3600.0

# a string: the class is generic in the stubs only
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Cursor: TypeAlias = "asyncpg.cursor.Cursor[asyncpg.Record]"


class NoOffsets(Exception):
    """The database does not say which of Kafka's records its rows hold; the message says what to do without."""


class Counted(NamedTuple):
    """One key: its row, None where the base table has none, and by aggregate's name what it counts to, 0 included."""

    key: Key
    row: Row | None
    amounts: Mapping[str, int]


class RowsAt:
    """offsets: where the log goes on, in each partition of which the rows have anything. seen: what they have of it all the same.

    Made by a RowsSource.
    """

    def __init__(self, connection: Connection, definition: Definition, offsets: Mapping[Partition, int], seen: Seen | None = None) -> None:
        self._connection, self._definition, self.offsets, self.seen = connection, definition, offsets, seen
        self._aggregates = definition.aggregates
        self._nothing = dict.fromkeys((f.name for f in definition.aggregates), 0)

    async def pages(self, size: int = 1000) -> AsyncIterator[Sequence[Counted]]:
        """Every key that has a row or is counted for, in the order of keys: some thousands at once, however many there are.

        A cursor over the base table and one over each aggregate's GROUP BY, all in the order of keys, are merged: so each table is
        read once, where a query for each page would look up every key in every index. Raises asyncpg's errors.
        """
        queries: dict[str | None, str] = {None: sql.every_row(self._definition)} | {
            f.name: sql.every_amount(self._definition, f) for f in self._aggregates
        }
        streams = [_Stream(name, await self._cursor(query)) for name, query in queries.items()]
        while True:
            for stream in streams:
                await stream.fill(size)
            # a cursor that has more may have more of what follows its last key only
            limits = [stream.keys[-1] for stream in streams if not stream.ended]
            taken = [(stream.name, stream.take(min(limits) if limits else None)) for stream in streams]
            if not any(records for _, records in taken):
                return
            yield self._merged(taken)

    async def of(self, keys: Iterable[Key]) -> Sequence[Counted]:
        """These keys, in the order of keys; one that nothing is known of has no row and counts to 0. Raises asyncpg's errors."""
        # PostgreSQL has no text with a NUL in it, and calls the question an error
        asked = [key for key in keys if not (isinstance(key, str) and "\0" in key)]
        queries: dict[str | None, str] = {None: sql.rows_of(self._definition)} | {
            f.name: sql.amounts_of(self._definition, f) for f in self._aggregates
        }
        merged = self._merged([(name, await self._fetch(query, asked)) for name, query in queries.items()])
        found = {counted.key: counted for counted in merged}
        return [found.get(key) or Counted(key, None, dict(self._nothing)) for key in sorted(set(keys))]

    async def _cursor(self, query: str) -> Cursor:
        return await self._connection.cursor(query, timeout=PAGE_SECONDS)

    async def _fetch(self, query: str, keys: Sequence[Key]) -> Sequence[asyncpg.Record]:
        return await self._connection.fetch(query, keys, timeout=PAGE_SECONDS)

    def _merged(self, found: Iterable[tuple[str | None, Sequence[asyncpg.Record]]]) -> Sequence[Counted]:
        rows: dict[Key, Row] = {}
        amounts: dict[Key, dict[str, int]] = {}
        for name, records in found:
            for record in records:
                mine = amounts.setdefault(record[0], dict(self._nothing))
                if name is None:
                    rows[record[0]] = self._definition.base(**dict(record.items()))
                else:
                    mine[name] = record[1]
        return [Counted(key, rows.get(key), amounts[key]) for key in sorted(amounts)]


class RowsSource(Protocol):
    """Where rows come from, as often as they are asked for. slot: of the connector that captures them, "" for none."""

    @property
    def slot(self) -> str: ...

    def open(self) -> AbstractAsyncContextManager[RowsAt]:
        """One snapshot of the database, as long as the context lasts. Raises NoOffsets, NotCaptured, asyncpg's errors."""
        ...

    async def level(self, rows: RowsAt) -> Mapping[Partition, int]:
        """Where the log has all that the rows have: who has read it as far has neither more nor less. May be awaited after `open`.

        Raises what `open` raises.
        """
        ...


@dataclass(frozen=True, slots=True)
class SinkRows:
    """A RowsSource: what a sink has written, with its offsets."""

    pool: asyncpg.Pool
    definition: Definition
    slot: str = field(default="", init=False)

    def open(self) -> AbstractAsyncContextManager[RowsAt]:
        return rows_at(self.pool, self.definition)

    async def level(self, rows: RowsAt) -> Mapping[Partition, int]:
        return rows.offsets


@asynccontextmanager
async def rows_at(pool: asyncpg.Pool, definition: Definition) -> AsyncIterator[RowsAt]:
    """One snapshot of the database, as long as the context lasts. Raises NoOffsets, asyncpg's errors."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        offsets = await _offsets(connection, definition)
        await _check_begun(connection, definition, offsets)
        yield RowsAt(connection, definition, offsets)


async def some_keys(pool: asyncpg.Pool, definition: Definition, count: int) -> Sequence[str]:
    """About so many keys of the base table, at random. Raises asyncpg's errors."""
    async with pool.acquire() as connection:
        rows = await connection.fetchval(sql.count(definition), timeout=PAGE_SECONDS)
        percent = min(100.0, 120.0 * (count + 10) / max(rows, 1))
        return [str(key) for (key,) in await connection.fetch(sql.some_keys(definition), percent, count, timeout=PAGE_SECONDS)]


async def _offsets(connection: Connection, definition: Definition) -> dict[Partition, int]:
    if await connection.fetchval("SELECT to_regclass($1)", sql.POSITIONS) is None:
        raise NoOffsets(
            f"this database keeps no offsets beside its rows (there is no table {sql.POSITIONS}), as a sink does that writes both in one "
            "transaction, and the topics' records do not tell which transaction wrote them (source.txId and source.sequence), as those of "
            "Debezium's connector for PostgreSQL do. Build the view from Kafka: `viewgate rebuild --from beginning`."
        )
    stored = await connection.fetch(sql.positions(), list(definition.topics))
    return {Partition(topic, number): offset for topic, number, offset in stored}


async def _check_begun(connection: Connection, definition: Definition, offsets: Mapping[Partition, int]) -> None:
    begun = {partition.topic for partition in offsets}
    for row in definition.rows:
        topic = definition.topic(row)
        if topic not in begun and await connection.fetchval(sql.any_row(row.source.table)):
            raise NoOffsets(
                f"table {row.source.table} has rows, but {sql.POSITIONS} has no offset of topic {topic}: is VIEWGATE_TOPIC_PREFIX the one "
                "that the sink was told? Else build the view from Kafka: `viewgate rebuild --from beginning`."
            )


@dataclass(slots=True)
class _Stream:
    """Records of one cursor that were fetched and not yet taken, by their keys. name: the aggregate's, None for the base table."""

    name: str | None
    cursor: Cursor
    keys: list[Any] = field(default_factory=list)
    records: list[asyncpg.Record] = field(default_factory=list)
    ended: bool = False

    async def fill(self, size: int) -> None:
        missing = size - len(self.records)
        if self.ended or missing <= 0:
            return
        page = await self.cursor.fetch(missing, timeout=PAGE_SECONDS)
        self.records += page
        self.keys += [record[0] for record in page]
        self.ended = len(page) < missing

    def take(self, limit: Key | None) -> Sequence[asyncpg.Record]:
        """Those up to this key; None: all."""
        place = len(self.keys) if limit is None else bisect_right(self.keys, limit)
        taken = self.records[:place]
        del self.records[:place], self.keys[:place]
        return taken
