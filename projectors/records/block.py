"""Kafka Connect's block around a value, `{"schema": {…}, "payload": …}`. Of the schema only this is read: which times are numbers."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw, Struct

from projectors.records.columns import UNREADABLE, Int64, Undecodable, moments_of, strict
from schema.fields import Row

SCHEMAS_KEPT = 8
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# of times without zone, which Debezium reads as UTC; a second has so many
UNITS: Mapping[str, int] = {
    "io.debezium.time.Timestamp": 1_000,
    "io.debezium.time.MicroTimestamp": 1_000_000,
    "io.debezium.time.NanoTimestamp": 1_000_000_000,
    "org.apache.kafka.connect.data.Timestamp": 1_000,
}


class Block(Struct):
    """Both as their JSON."""

    schema: Raw
    payload: Raw


class _Field(Struct):
    field: str | None = None
    name: str | None = None
    fields: tuple["_Field", ...] = ()


_BLOCK, _SCHEMA = msgspec.json.Decoder(Block), msgspec.json.Decoder(_Field | None)


def unblocked(value: bytes) -> Block | None:
    """None for a value that is not in a block."""
    try:
        return _BLOCK.decode(value)
    except UNREADABLE:
        return None


def decoder(row: type[Row], held: type[Row], decoder_of: Callable[[type[Row]], Callable[[Raw], Any]]) -> Callable[[Block], Any]:
    """What decodes the payloads, where those of the row's times that the schema calls numbers are numbers.

    held: the row as it is to be. decoder_of: what decodes a payload to a change of such a row.
    """
    times = moments_of(row)

    @lru_cache(SCHEMAS_KEPT)
    def of(schema: bytes) -> Callable[[Raw], Any]:
        units = {name: unit for name, unit in _units(schema).items() if name in times}
        if not units:
            return decoder_of(held)
        return _timed(decoder_of(strict(row, only=dict.fromkeys(units, Int64))), held, units)

    return lambda block: of(bytes(block.schema))(block.payload)


def _units(schema: bytes) -> Mapping[str, int]:
    """Of the columns that are numbers, by name."""
    of_row = (side for side in (_SCHEMA.decode(schema) or _Field()).fields if side.field in {"before", "after"})
    return {column.field or "": UNITS[column.name] for side in of_row for column in side.fields if column.name and column.name in UNITS}


def _timed(decode: Callable[[Raw], Any], held: type[Row], units: Mapping[str, int]) -> Callable[[Raw], Any]:
    def made(numbers: Row | None) -> Row | None:
        if numbers is None:
            return None
        columns = msgspec.structs.asdict(numbers)
        return held(**columns | {name: None if columns[name] is None else _moment(columns[name], unit) for name, unit in units.items()})

    def read(payload: Raw) -> Any:
        change = decode(payload)
        change.before, change.after = made(change.before), made(change.after)
        return change

    return read


def _moment(number: int, unit: int) -> datetime:
    try:
        return EPOCH + timedelta(microseconds=number * 1_000_000 // unit)
    except OverflowError as error:
        raise Undecodable(f"the time {number}, of which a second has {unit:,}, is outside of the years 1 to 9999") from error
