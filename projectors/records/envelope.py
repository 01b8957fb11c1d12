"""Form `envelope`: Debezium's, `{"op": "c|u|d|r|t", "before": {…}|null, "after": {…}|null, "ts_ms": …}` as JSON."""

from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import msgspec
from msgspec import Struct

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
    decode = msgspec.json.Decoder(Change[row]).decode  # type: ignore[valid-type]  # a class known at run time only
    key = row.source.key

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
        return change

    return read
