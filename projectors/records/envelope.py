"""Form `envelope`: Debezium's, `{"op": "c|u|d|r|t", "before": {…}|null, "after": {…}|null, "ts_ms": …}` as JSON."""

from collections.abc import Callable
from datetime import UTC, datetime
from operator import attrgetter
from types import new_class
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from schema.definition import split_optional
from schema.fields import Row

R = TypeVar("R", bound=Row)
Op = Literal["c", "u", "d", "r", "t"]


class Change(Struct, Generic[R], gc=False):
    """One row before and after. ts_ms: the source's time, Unix ms."""

    op: Op
    before: R | None = None
    after: R | None = None
    ts_ms: int | None = None


class Undecodable(ValueError):
    """The record is no change of its table; the message says why. It belongs into the dead letters."""


_SIDES = {"c": (False, True), "r": (False, True), "u": (True, True), "d": (True, False), "t": (False, False)}
_NEEDED = {
    "c": "no before and an after",
    "r": "no before and an after",
    "u": "a before and an after (REPLICA IDENTITY FULL)",
    "d": "a before and no after (REPLICA IDENTITY FULL)",
    "t": "neither before nor after",
}


def decoder(row: type[R]) -> Callable[[bytes], Change[R]]:
    """What decodes the values of the row's topic. It raises Undecodable; tombstones are not for it."""
    decode = msgspec.json.Decoder(Change[_strict(row)]).decode  # type: ignore[misc]  # a class known at run time only
    key = row.source.key
    moments = [attrgetter(f.name) for f in msgspec.structs.fields(row) if split_optional(f.type)[0] is datetime]

    def read(value: bytes) -> Change[R]:
        try:
            change: Change[R] = decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Undecodable(str(error)) from error
        before, after = change.before, change.after
        if (before is not None, after is not None) != _SIDES[change.op]:
            raise Undecodable(f"op {change.op!r} needs {_NEEDED[change.op]}")
        if before is not None and after is not None and getattr(before, key) != getattr(after, key):
            raise Undecodable(f"an update changes the key {key!r}; send a delete and a create, each under its own key")
        if after is not None:
            for moment_of in moments:
                moment = moment_of(after)
                if moment is not None and moment.tzinfo is not UTC:
                    _check_moment(moment)
        return change

    return read


# what PostgreSQL and Redis can hold: HINCRBY would fail after the first write of a call, and a time without zone is none
_HELD: dict[Any, Any] = {int: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)], datetime: Annotated[datetime, Meta(tz=True)]}


def _strict(row: type[R]) -> type[R]:
    """The row, its integers held to 64 bits and its times to have a zone."""
    hints: dict[str, Any] = {}
    for column in msgspec.structs.fields(row):
        scalar, nullable = split_optional(column.type)
        held = _HELD.get(scalar, scalar)
        hints[column.name] = held | None if nullable else held
    strict: type[R] = new_class(row.__name__, (row,), exec_body=lambda body: body.update(__annotations__=hints, __module__=row.__module__))
    return strict


def _check_moment(moment: datetime) -> None:
    try:
        moment.astimezone(UTC)
    except OverflowError as error:
        raise Undecodable(f"{moment.isoformat()} is outside of the years 1 to 9999 in UTC") from error
