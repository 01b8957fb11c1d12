"""A row's columns as they may come over the wire: narrower than their types, by what PostgreSQL and Redis can hold."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType, new_class
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from schema.definition import split_optional
from schema.fields import Row

R = TypeVar("R", bound=Row)
# what msgspec raises for bytes that are no JSON of the type
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Undecodable(ValueError):
    """The record is no change of its table; the message says why. It belongs into the dead letters."""


# HINCRBY would fail after the first write of a call
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
# a time without zone is none
Moment = Annotated[datetime, Meta(tz=True)]
# of the years 1 to 9999: another unit than it should be, or a counter, is no time
UnixMs = Annotated[int, Meta(ge=-62_135_596_800_000, le=253_402_300_799_999)]
_HELD: Mapping[Any, Any] = {int: Int64, datetime: Moment}


def strict(row: type[R], only: Mapping[str, Any] = MappingProxyType({})) -> type[R]:
    """The row, its integers held to 64 bits and its times to have a zone. only: what some columns are to be instead, by name."""
    hints: dict[str, Any] = {}
    for column in msgspec.structs.fields(row):
        scalar, nullable = split_optional(column.type)
        held = only.get(column.name, _HELD.get(scalar, scalar))
        hints[column.name] = held | None if nullable else held
    made: type[R] = new_class(row.__name__, (row,), exec_body=lambda body: body.update(__annotations__=hints, __module__=row.__module__))
    return made


def moments_of(row: type[Row]) -> list[str]:
    """The columns that hold times."""
    return [f.name for f in msgspec.structs.fields(row) if split_optional(f.type)[0] is datetime]


def check_moment(moment: datetime) -> None:
    """Raises Undecodable for one that UTC cannot write."""
    try:
        moment.astimezone(UTC)
    except OverflowError as error:
        raise Undecodable(f"{moment.isoformat()} is outside of the years 1 to 9999 in UTC") from error


def check_texts(value: bytes, *rows: Row | None) -> None:
    """Raises Undecodable for a NUL in a column, which PostgreSQL does not hold. value: the JSON that the rows were read from."""
    # by a pattern of msgspec's each change would cost up to four times as much
    if b"\\" in value and b"\\u0000" in value:
        for row in rows:
            for column in row.__struct_fields__ if row is not None else ():
                text = getattr(row, column)
                if isinstance(text, str) and "\0" in text:
                    raise Undecodable(f"column {column!r} has a NUL in its text, which PostgreSQL does not hold")


def undecodable(error: Exception) -> Undecodable:
    """Of what msgspec has raised."""
    text = str(error)
    is_number = text.startswith("Expected `datetime") and "got `int`" in text
    hint = "; a number does not tell its unit: make the column timestamptz, or let the converter send its schema" if is_number else ""
    return Undecodable(f"{text}{hint}")
