"""The view held against SQL: every field of every row, every lookup, and no row too many. Reads only."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from projectors.clock import Clock
from schema.definition import Definition
from schema.generation import Generation
from schema.layout import Layout
from schema.loader import FieldMissing, Loader, Read

# a difference counts if it is the same at so many looks, or is still there, whatever it is, at so many
STEADY, ROUNDS = 3, 20
WAIT_SECONDS = 0.1
STUCK_SECONDS = 30.0
# a field is missing, or a key is of another type: no answer for a reader, but a finding
_UNREADABLE = (FieldMissing, ResponseError)
_Row = Sequence[bytes | None]
_Pair = tuple[_Row | None, _Row | None]
# a key that no row has: to be told of as-of alone
_NOBODY = Read("id", "", ("id",))


class AuditStuck(Exception):
    """What differs cannot be judged, since the projector does not get past the moment it was seen."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One field of one row; None where the side has no such row, or the row no such field.

    field: "id" for a row too many or too few, "by …" for a lookup, "key" for what is no hash. in_sql: what is right, from wherever.
    """

    id: str
    field: str
    in_view: bytes | None
    in_sql: bytes | None


@dataclass(slots=True)
class Report:
    rows: int = 0
    fields: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)


class Audit:
    """view, sql: loaders that answer in that one mode. advanced: told how many rows were just compared."""

    def __init__(self, definition: Definition, view: Loader, sql: Loader, clock: Clock, advanced: Callable[[int], None]) -> None:
        self._view, self._sql, self._clock, self._advanced = view, sql, clock, advanced
        self._fields = tuple(f.name for f in definition.fields)
        self._lookups = tuple(f.name for f in definition.lookups)

    async def run(self, in_sql: AsyncIterable[Sequence[str]], in_view: AsyncIterable[Sequence[str]]) -> Report:
        """Compare all rows. in_sql, in_view: pages of the ids on either side. Raises AuditStuck, LoadError."""
        report = Report()
        async for ids in in_sql:
            await self._compare(report, [Read("id", key, self._fields) for key in ids])
            if lookups := await self._lookup_reads(ids):
                await self._compare(report, lookups)
            report.rows += len(ids)
            self._advanced(len(ids))
        async for ids in in_view:
            # rows that SQL has were compared above: here the others show
            await self._compare(report, [Read("id", key, ("id",)) for key in ids], count=False)
        return report

    async def _lookup_reads(self, ids: Sequence[str]) -> list[Read]:
        rows = (await self._sql.load([Read("id", key, self._lookups) for key in ids])).rows
        found = [pair for row in rows if row is not None for pair in zip(self._lookups, row, strict=True)]
        return [Read(name, msgspec.json.decode(value, type=str), ("id",)) for name, value in found]

    async def _compare(self, report: Report, reads: Sequence[Read], *, count: bool = True) -> None:
        """A difference counts only if it is still there after the projector has passed the moment it was seen, more than once."""
        if count:
            report.fields += sum(len(read.fields) for read in reads)
        steady: dict[Read, tuple[_Pair, int]] = {}
        for _ in range(ROUNDS):
            in_sql = await self._sql.load(reads)
            seen_at_ms = self._clock.now_ms()
            in_view = await self._in_view(reads)
            pairs = {read: (_listed(mine), _listed(theirs)) for read, mine, theirs in zip(reads, in_view, in_sql.rows, strict=True)}
            steady = {
                read: (pair, steady[read][1] + 1 if read in steady and steady[read][0] == pair else 1)
                for read, pair in pairs.items()
                if pair[0] != pair[1]
            }
            # one that stands still is no race with changes: what others do next is not waited for
            for read in [read for read, (_, looks) in steady.items() if looks >= STEADY]:
                report.mismatches += _mismatches(read, *steady.pop(read)[0])
            reads = list(steady)
            if not reads:
                return
            await self._passed(seen_at_ms)
        report.mismatches += [mismatch for read, (pair, _) in steady.items() for mismatch in _mismatches(read, *pair)]

    async def _in_view(self, reads: Sequence[Read]) -> Sequence[_Row | None]:
        """What the view has, also of rows that no reader can be shown: then row by row, and field by field."""
        try:
            return (await self._view.load(reads)).rows
        except _UNREADABLE:
            return [await self._alone(read) for read in reads]

    async def _alone(self, read: Read) -> _Row | None:
        try:
            return (await self._view.load([read])).rows[0]
        except _UNREADABLE:
            return None if read.by != "id" else [await self._field(read, name) for name in read.fields]

    async def _field(self, read: Read, name: str) -> bytes | None:
        try:
            (row,) = (await self._view.load([Read(read.by, read.value, (name,))])).rows
        except _UNREADABLE:
            return None
        return None if row is None else row[0]

    async def _passed(self, moment_ms: int) -> None:
        """Return when the view has everything that happened until then."""
        since = self._clock.monotonic()
        while (as_of_ms := (await self._view.load([_NOBODY])).as_of_ms) < moment_ms:
            if self._clock.monotonic() - since > STUCK_SECONDS:
                raise AuditStuck(
                    f"view and SQL differ, but the projector stands still at {as_of_ms} (Unix ms), so it may only be late: "
                    "see that `viewgate project` runs, and audit again."
                )
            await self._clock.sleep(WAIT_SECONDS)


def _listed(row: _Row | None) -> _Row | None:
    """So that it can be compared."""
    return None if row is None else list(row)


def _mismatches(read: Read, in_view: _Row | None, in_sql: _Row | None) -> list[Mismatch]:
    if read.by != "id" or in_view is None or in_sql is None:
        name = "id" if read.by == "id" else f"by {read.by}"
        return [Mismatch(read.value, name, in_view[0] if in_view else None, in_sql[0] if in_sql else None)]
    pairs = zip(read.fields, in_view, in_sql, strict=True)
    return [Mismatch(read.value, name, mine, theirs) for name, mine, theirs in pairs if mine != theirs]


async def ids_in_view(redis: Redis, view: str, record: Generation, size: int = 1000) -> AsyncIterator[Sequence[str]]:
    """Pages of the ids that a generation has a hash for, with a profile or without."""
    page: list[str] = []
    async for key in redis.scan_iter(Layout(view, record.name, record.shards).rows_pattern(), count=size):
        row_id = Layout.row_id(key.decode())
        if row_id is not None:
            page.append(row_id)
        if len(page) >= size:
            yield page
            page = []
    if page:
        yield page
