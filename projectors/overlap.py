"""Whether changes after a snapshot are in its rows already, which their LSNs do not always tell: see `overlapping`."""

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from projectors.records.columns import UNREADABLE
from projectors.records.envelope import Op
from projectors.topic_reader import Reader
from schema.positions import Partition

# what a snapshot has in it was committed before what it has not: if the first changes are not in it, no later one is
FIRST = 1_000
Row = Mapping[str, Raw]


class _Told(Struct):
    op: Op
    before: dict[str, Raw] | None = None
    after: dict[str, Raw] | None = None


_TOLD = msgspec.json.Decoder(_Told)


async def overlapping(reader: Reader, partition: Partition, start: int, rows_end: int, end: int) -> int | None:
    """The offset of a change that is in the snapshot's rows, None where there is none among the first.

    The rows lie from `start` up to `rows_end`, the changes after them up to `end`. Debezium takes its snapshot a moment after it has read
    the LSN, unless its slot is new: what was committed in between is in both, though its LSN is the higher one. A key's first change
    fits the row where it is not in it: what it creates is not there, and what it was before is what the row is.
    """
    first: dict[bytes, tuple[int, _Told]] = {}
    count = 0
    async for record in reader.records(partition, rows_end, end):
        told = _told(record.value)
        if told is not None and record.key is not None:
            first.setdefault(record.key, (record.offset, told))
            count += 1
        if count == FIRST:
            break
    rows: dict[bytes, Row] = {}
    if first:
        async for record in reader.records(partition, start, rows_end):
            if record.key in first and (told := _told(record.value)) is not None and told.after is not None:
                rows[record.key] = told.after
    return next((offset for key, (offset, told) in first.items() if not _fits(told, rows.get(key))), None)


def _fits(told: _Told, row: Row | None) -> bool:
    if told.before is None or row is None:
        return told.before is None and row is None
    # a snapshot tells columns that a stream leaves out, such as generated ones
    return all(told.before[name] == row[name] for name in told.before.keys() & row.keys())


def _told(value: bytes | None) -> _Told | None:
    """None for what no projector counts."""
    try:
        return _TOLD.decode(value or b"")
    except UNREADABLE:
        return None
