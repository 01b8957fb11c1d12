"""Where the last snapshot of a connector begins in the topics, and whether a view may be built from there. Builds nothing itself."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import msgspec
from msgspec import Raw, Struct

from projectors.log import Record
from projectors.overlap import overlapping
from projectors.records.columns import UNREADABLE
from projectors.records.envelope import Op
from projectors.topic_reader import Bounds, Reader
from schema.positions import Partition


class SnapshotUnsound(Exception):
    """A view built from the last snapshot would, or might, count something twice or not at all; the message says what to use instead."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """lsn: where the database was when the snapshot was taken; a later change with a lower one is in both, so the view is wrong.
    start: by partition, the offset to read from."""

    lsn: int
    start: Mapping[Partition, int]


async def last_snapshot(reader: Reader) -> Snapshot:
    """Find the last snapshot of a Debezium connector. Raises SnapshotUnsound unless it is the initial one of a slot that was new.

    Reads every record of every topic once, and a second time those partitions that it has no row in: of these only the time tells
    where it begins. It decodes op and source alone. What it asks of the records: rows `r` of one LSN in every topic, each table once
    by the marks of its first and last row, in one stretch of each partition; by a connector that had streamed nothing (the first of
    `source.sequence` is null); after them changes, none of which lies below that LSN or is in the rows already, and no truncate. It
    trusts that changes arrive in the order of the connector: hold later ones against `Snapshot.lsn`.
    """
    bounds = await reader.bounds()
    scans = {partition: _Scan(partition, first) for partition, (first, _) in bounds.items()}
    await _scan(reader, scans, {partition: first for partition, (first, _) in bounds.items()}, bounds)
    # what became visible meanwhile: a change that proves something of one partition may have been seen before its elder in another
    later = await reader.bounds()
    await _scan(reader, scans, {partition: end for partition, (_, end) in bounds.items()}, later)
    lsn, began_ms = _common(scans.values())
    start, is_followed = {}, False
    for partition, scan in scans.items():
        if scan.lsn == lsn:
            start[partition], told = scan.check(lsn), scan.after.newest is not None
        else:
            start[partition], told = await _split(reader, partition, later[partition], lsn, began_ms)
        is_followed |= told
        if later[partition][0] > start[partition]:
            _refuse(f"{partition} now begins at offset {later[partition][0]}: rows of the snapshot are gone from it")
    _check_marks([scan for scan in scans.values() if scan.lsn == lsn])
    for partition, scan in scans.items():
        rows_end = scan.stretch.end if scan.stretch is not None and scan.lsn == lsn else start[partition]
        at = await overlapping(reader, partition, start[partition], rows_end, later[partition][1])
        if at is not None:
            _refuse(f"the change at {partition}:{at} is in the rows of the snapshot already, as where the slot was there before it")
    if not is_followed:
        _refuse(f"no change has come after the snapshot at LSN {lsn} yet, so it cannot be told whether it overlaps with what comes")
    return Snapshot(lsn, start)


class _Told(Struct):
    op: Op
    source: Raw = Raw(b"null")


class _Source(Struct):
    lsn: int | None = None
    sequence: str | None = None
    snapshot: Any = None


_TOLD = msgspec.json.Decoder(_Told)
_SOURCE = msgspec.json.Decoder(_Source | None)
_PAIR = msgspec.json.Decoder(tuple[str | None, str])


@dataclass(frozen=True, slots=True)
class _Change:
    """op, and the LSN, None where it is not told. is_first: no commit had been streamed before. mark: of a snapshot's row."""

    op: Op
    lsn: int | None
    is_first: bool = False
    mark: object = None


@dataclass(slots=True)
class _Stretch:
    """Rows `r` of one LSN with nothing between them. end: the offset after them. ms: the earliest of their times.
    marks: how many are a table's first, and last."""

    offset: int
    lsn: int | None
    ms: int
    is_cut: bool
    is_first: bool = True
    marks: Counter[str] = field(default_factory=Counter)
    end: int = 0

    def see(self, record: Record, change: _Change) -> None:
        self.end = record.offset + 1
        self.ms = min(self.ms, record.timestamp)
        self.is_first &= change.is_first and change.mark != "incremental"
        self.marks[str(change.mark).removesuffix("_in_data_collection")] += 1


@dataclass(slots=True)
class _Changes:
    """What lies between two stretches, by its LSNs. untold, truncated: the offset of the first change of that sort."""

    lowest: int | None = None
    newest: int | None = None
    untold: int | None = None
    truncated: int | None = None

    def see(self, offset: int, change: _Change) -> None:
        if change.lsn is None:
            self.untold = offset if self.untold is None else self.untold
        else:
            self.lowest = change.lsn if self.lowest is None else min(self.lowest, change.lsn)
            self.newest = change.lsn if self.newest is None else max(self.newest, change.lsn)
        if change.op == "t" and self.truncated is None:
            self.truncated = offset


@dataclass(slots=True)
class _Scan:
    """One partition: its last stretch, what came after, and the newest LSN before. is_whole: its beginning is there, or a record before."""

    partition: Partition
    first: int
    stretch: _Stretch | None = None
    after: _Changes = field(default_factory=_Changes)
    newest_before: int = 0
    earlier: set[int | None] = field(default_factory=set)
    is_whole: bool = False

    @property
    def lsn(self) -> int | None:
        """The last stretch's."""
        return self.stretch.lsn if self.stretch else None

    def see(self, record: Record) -> None:
        change = _decode(record.value)
        if change is not None and change.op == "r":
            self._see_row(record, change)
        elif change is not None:
            self.after.see(record.offset, change)
        self.is_whole = True

    def _see_row(self, record: Record, change: _Change) -> None:
        if self.stretch is None or self.lsn != change.lsn or self.after != _Changes():
            self.earlier.add(self.lsn)
            self.newest_before = max(self.newest_before, self.lsn or 0, self.after.newest or 0)
            self.stretch = _Stretch(record.offset, change.lsn, record.timestamp, is_cut=self.first > 0 and not self.is_whole)
            self.after = _Changes()
        self.stretch.see(record, change)

    def check(self, lsn: int) -> int:
        """The offset of the stretch, which is one of this LSN, if the view may begin there. Raises SnapshotUnsound."""
        stretch, after, at = self.stretch, self.after, self.partition
        if stretch is None or not stretch.is_first:
            _refuse(f"the snapshot in {at} was taken by a connector that had streamed before, or was an incremental one: it overlaps")
        if stretch.is_cut:
            _refuse(f"{at} now begins at offset {self.first}, within the snapshot: rows of it may be gone")
        if lsn in self.earlier:
            _refuse(f"the rows of the snapshot in {at} have changes between them")
        if self.newest_before >= lsn:
            _refuse(f"{at} has a change before the snapshot whose LSN, {self.newest_before}, is not below the snapshot's, {lsn}")
        if after.untold is not None:
            _refuse(f"the change at {at}:{after.untold} does not tell its LSN")
        if after.truncated is not None:
            _refuse(f"the table was truncated after the snapshot, at {at}:{after.truncated}")
        if after.lowest is not None and after.lowest < lsn:
            _refuse(f"{at} has a change after the snapshot whose LSN, {after.lowest}, is below the snapshot's, {lsn}: it is in both")
        return stretch.offset


async def _scan(reader: Reader, scans: Mapping[Partition, _Scan], start: Mapping[Partition, int], bounds: Bounds) -> None:
    for partition, scan in scans.items():
        async for record in reader.records(partition, start[partition], bounds[partition][1]):
            scan.see(record)


def _common(scans: Iterable[_Scan]) -> tuple[int, int]:
    """The LSN that the last snapshot has in every topic, and the time of its first row. Raises SnapshotUnsound."""
    newest: dict[str, int] = {}
    times: dict[int | None, int] = {}
    for scan in scans:
        newest.setdefault(scan.partition.topic, -1)
        if scan.stretch is not None:
            if scan.stretch.lsn is None:
                _refuse(f"the row at {scan.partition}:{scan.stretch.offset} does not tell the LSN of its snapshot")
            newest[scan.partition.topic] = max(newest[scan.partition.topic], scan.stretch.lsn)
            times[scan.stretch.lsn] = min(times.get(scan.stretch.lsn, scan.stretch.ms), scan.stretch.ms)
    without = [topic for topic, lsn in newest.items() if lsn < 0]
    if without or not newest:
        _refuse(f"there is no snapshot in {', '.join(without) or 'any topic'}")
    if len(set(newest.values())) > 1:
        told = ", ".join(f"{topic} {lsn}" for topic, lsn in newest.items())
        _refuse(f"the tables were snapshotted at different times: the last snapshot's LSN is of {told}")
    lsn = min(newest.values())
    return lsn, times[lsn]


def _check_marks(scans: Iterable[_Scan]) -> None:
    """Whether each table was taken once: one that was begun again on a quiet database has its rows twice, at one LSN."""
    marks: dict[str, Counter[str]] = {}
    for scan in scans:
        marks.setdefault(scan.partition.topic, Counter()).update(scan.stretch.marks if scan.stretch else {})
    for topic, found in marks.items():
        if max(found["first"], found["last"]) != 1:
            _refuse(
                f"by source.snapshot the snapshot in {topic} has {found['first']} first and {found['last']} last rows of its table, so it "
                "cannot be told that each row is there once"
            )


async def _split(reader: Reader, partition: Partition, bounds: tuple[int, int], lsn: int, began_ms: int) -> tuple[int, bool]:
    """Where to begin in a partition without a row of the snapshot, and whether a change has come after it. Raises SnapshotUnsound."""
    first, end = bounds
    start, is_whole = None, first == 0
    async for record in reader.records(partition, first, end):
        change = _decode(record.value)
        is_after = record.timestamp >= began_ms
        is_whole |= not is_after
        if change is None:
            continue
        at = f"{partition}:{record.offset}"
        if change.lsn is None:
            _refuse(f"{partition} has no row of the snapshot, and the change at {at} does not tell its LSN")
        if (change.lsn >= lsn) is not is_after or (start is not None and not is_after):
            _refuse(f"{partition} has no row of the snapshot, and time and LSN of the change at {at} disagree on whether it came before")
        if is_after and change.op == "t":
            _refuse(f"the table was truncated after the snapshot, at {at}")
        if is_after and start is None:
            start = record.offset
    if not is_whole:
        _refuse(f"{partition} now begins at offset {first}: rows of the snapshot may be gone from it")
    return (end, False) if start is None else (start, True)


def _decode(value: bytes | None) -> _Change | None:
    """None for what no projector counts: a tombstone, and whatever goes to the dead letters for its op or its JSON."""
    try:
        # an empty text is no JSON
        told = _TOLD.decode(value or b"")
    except UNREADABLE:
        return None
    try:
        source = _SOURCE.decode(told.source) or _Source()
        commit, text = _PAIR.decode(source.sequence or "")
        lsn = int(text)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return _Change(told.op, None)
    is_told = source.lsn is None or source.lsn == lsn
    return _Change(told.op, lsn if is_told else None, commit is None, source.snapshot)


def _refuse(reason: str) -> NoReturn:
    instead = "Build it from Kafka's beginning, `viewgate rebuild --from beginning`, or from SQL, `viewgate rebuild --from sql`."
    raise SnapshotUnsound(f"A view cannot be built from the snapshot in the topics: {reason}. {instead}")
