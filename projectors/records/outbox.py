"""Form `outbox`: a message of a transactional outbox as Debezium captured it; its column `payload` is the change, in the envelope."""

from collections.abc import Callable
from types import new_class
from typing import TypeVar

import msgspec
from msgspec import Struct

from projectors.records import envelope
from projectors.records.columns import UNREADABLE
from projectors.records.envelope import Change, Op, Undecodable
from schema.fields import PositionKind, Row

R = TypeVar("R", bound=Row)
# a message that is tidied away was one before
TIDIED = ("d", "t")


class _Operation(Struct):
    """Of the message, not of the change in it; within Kafka Connect's block where there is one."""

    op: Op | None = None
    payload: "_Operation | None" = None


class _Message(Row):
    payload: str


def decoder(row: type[R]) -> Callable[[bytes], Change[R] | None]:
    """What decodes the values of the outbox's topic; None where a message is tidied away. It raises Undecodable."""
    operation = msgspec.json.Decoder(_Operation).decode
    message = envelope.decoder(_with(_Message, "payload", row.source.position))
    # the pair of LSNs, where it is asked for, is the message's
    change = envelope.decoder(_with(row, row.source.key, "offset"))

    def read(value: bytes) -> Change[R] | None:
        try:
            outer = operation(value)
        except UNREADABLE as error:
            raise Undecodable(str(error)) from error
        op = outer.op if outer.payload is None else outer.payload.op
        if op in TIDIED:
            return None
        if op != "c":
            raise Undecodable(f"op {op!r}: a message of an outbox is inserted, and a snapshot repeats it; set snapshot.mode=no_data")
        captured = message(value)
        inner = change(captured.after.payload.encode() if captured.after is not None else b"")
        inner.pair = captured.pair
        return inner

    return read


def _with(row: type[R], key: str, position: PositionKind) -> type[R]:
    made: type[R] = new_class(row.__name__, (row,), {"topic": "outbox", "key": key, "position": position})
    return made
