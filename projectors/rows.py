"""The rows of a changelog by key, and the change that a record of it makes. Pure: projectors/stage.py reads and writes for it.

A changelog says only what a row is now. What it was, and that it is gone, is told by the changes that were made of it before.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from projectors.log import Record
from projectors.records.columns import UNREADABLE
from projectors.records.envelope import Undecodable, decoder
from schema.fields import Row

# in a header of each record that is written: how far the changelog had been read
REACHED = "viewgate-reached"
# of one row: twice that, before and after, stays below the 1 MiB that producer and broker take if nothing else is said
LARGEST = 450_000
_COLUMNS = msgspec.json.Decoder(dict[str, Raw] | None)
_BLOCK = {"schema", "payload"}


class Reached(NamedTuple):
    """How far one partition of a changelog was read: every record below `offset`.

    level_ms: when all was read that there was then, Unix ms. topic_id: Kafka's id of the changelog, "" where the broker tells none.
    declared: what the columns were declared as: what is no row by that may be one by another declaration.
    """

    offset: int
    level_ms: int
    topic_id: str
    declared: str = ""

    def encode(self) -> bytes:
        return b"%d|%d|%s|%s" % (self.offset, self.level_ms, self.topic_id.encode(), self.declared.encode())

    @classmethod
    def decode(cls, told: bytes) -> "Reached":
        """Raises ValueError for bytes that no `encode` made."""
        offset, level_ms, topic_id, declared = told.decode().split("|")
        return cls(int(offset), int(level_ms), topic_id, declared)


class Written(NamedTuple):
    """A record for the rows topic. value: a change in the envelope's form; None for a mark, which only says how far."""

    key: bytes
    value: bytes | None
    reached: Reached

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        return [(REACHED, self.reached.encode())]


class _Change(Struct):
    after: Raw = Raw(b"null")


_CHANGE = msgspec.json.Decoder(_Change)


class Rows:
    """The newest row of each key, as bytes of JSON: all of its columns, also those that are not declared yet.

    Memory: those of the key and the row, and about 250 B more: 560 MB for a million rows of 310 B, over all processes together.
    """

    def __init__(self, row: type[Row]) -> None:
        self._decode = decoder(row)
        self._newest: dict[bytes, bytes] = {}
        columns = [f"{column.name} {column.type}" for column in msgspec.structs.fields(row)]
        self.declared = blake2b("\n".join(columns).encode(), digest_size=4).hexdigest()

    def __len__(self) -> int:
        return len(self._newest)

    def recall(self, record: Record) -> Reached | None:
        """Take in what was written of these rows. How far the changelog had been read; None for a record that no stage has written."""
        if record.value is not None and record.key is not None:
            after = bytes(_CHANGE.decode(record.value).after)
            if after == b"null":
                self._newest.pop(record.key, None)
            else:
                self._newest[record.key] = after
        return reached_of(record)

    def change(self, record: Record) -> bytes | None:
        """The change that a record of the changelog makes, None if none. Raises Undecodable; then the row stays as it was."""
        if record.key is None:
            raise Undecodable("a record of a changelog needs a key: without one nobody knows whose newest value it is")
        before = self._newest.get(record.key)
        after = _row(record.value)
        if after == before:
            return None
        if after is None:
            return self.delete(record.key, record.timestamp)
        change = _envelope(b"c" if before is None else b"u", before, after, record.timestamp)
        # as the projector will read it: what it could not, it could not undo later either
        self._decode(change)
        self._newest[record.key] = after
        return change

    def delete(self, key: bytes, ts_ms: int | None) -> bytes:
        """The change that takes a row away. ts_ms: None where nobody knows when it went."""
        return _envelope(b"d", self._newest.pop(key), None, ts_ms)

    def has(self, record: Record) -> bool:
        """Whether a record of the changelog says what is known already."""
        known = self._newest.get(record.key or b"")
        try:
            return known == record.value or known == _row(record.value)
        except Undecodable:
            return False

    def missing(self, keys: Iterable[bytes]) -> list[bytes]:
        """The keys of rows that are not among these."""
        return list(self._newest.keys() - keys)


def reached_of(record: Record) -> Reached | None:
    """What a record of the rows topic says of the changelog; None if no stage has written it."""
    told = next((value for name, value in record.headers if name == REACHED), None)
    return None if told is None else Reached.decode(told)


def _row(value: bytes | None) -> bytes | None:
    """The row's JSON, taken out of Kafka Connect's block with a schema if it is in one. None where the row is gone: of a tombstone,
    and of JSON's null, which Connect's JsonConverter makes of one that has a schema."""
    if value is None:
        return None
    if len(value) > LARGEST:
        raise Undecodable(f"the row has {len(value):,} bytes, and {LARGEST:,} is the most that there is room for, before and after")
    try:
        columns = _COLUMNS.decode(value)
    except UNREADABLE as error:
        raise Undecodable(str(error)) from error
    if columns is None:
        return None
    row = bytes(columns["payload"]) if columns.keys() == _BLOCK else value
    return None if row == b"null" else row


def _envelope(op: bytes, before: bytes | None, after: bytes | None, ts_ms: int | None) -> bytes:
    when = b"null" if ts_ms is None or ts_ms < 0 else b"%d" % ts_ms
    return b'{"op":"%s","before":%s,"after":%s,"ts_ms":%s}' % (op, before or b"null", after or b"null", when)
