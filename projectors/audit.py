"""The view held against SQL: every field of every row, every lookup, and no row too many. Reads only."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from redis.asyncio import Redis

from projectors.clock import Clock
from schema.definition import Definition
from schema.generation import Generation
from schema.layout import Layout
from schema.loader import Loader, Read, Row

ROUNDS = 20
WAIT_SECONDS = 0.1
STUCK_SECONDS = 30.0


class AuditStuck(Exception):
    """What differs cannot be judged, since the projector does not get past the moment it was seen."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One field of one row; None where the side has no such row. field: "id" for a row too many or too few, "by …" for a lookup."""

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
        """A difference counts only if it is still there after the projector has passed the moment it was seen."""
        if count:
            report.fields += sum(len(read.fields) for read in reads)
        found: list[Mismatch] = []
        for _ in range(ROUNDS):
            in_sql = await self._sql.load(reads)
            seen_at_ms = self._clock.now_ms()
            in_view = await self._view.load(reads)
            pairs = [
                (read, mine, theirs) for read, mine, theirs in zip(reads, in_view.rows, in_sql.rows, strict=True) if not _same(mine, theirs)
            ]
            if not pairs:
                return
            found = [mismatch for read, mine, theirs in pairs for mismatch in _mismatches(read, mine, theirs)]
            reads = [read for read, _, _ in pairs]
            await self._passed(reads[0], seen_at_ms)
        report.mismatches += found

    async def _passed(self, read: Read, moment_ms: int) -> None:
        """Return when the view has everything that happened until then."""
        since = self._clock.monotonic()
        while (as_of_ms := (await self._view.load([read])).as_of_ms) < moment_ms:
            if self._clock.monotonic() - since > STUCK_SECONDS:
                raise AuditStuck(
                    f"view and SQL differ, but the projector stands still at {as_of_ms} (Unix ms), so it may only be late: "
                    "see that `viewgate project` runs, and audit again."
                )
            await self._clock.sleep(WAIT_SECONDS)


def _same(mine: Row | None, theirs: Row | None) -> bool:
    return (None if mine is None else list(mine)) == (None if theirs is None else list(theirs))


def _mismatches(read: Read, in_view: Row | None, in_sql: Row | None) -> list[Mismatch]:
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
