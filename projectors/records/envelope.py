"""Form `envelope`: Debezium's, `{"op": "c|u|d|r|t", "before": {…}|null, "after": {…}|null, "ts_ms": …}` as JSON.

With or without Kafka Connect's block around it (block.py), which tells the schema of each record.
"""

from collections.abc import Callable
from datetime import UTC
from operator import attrgetter
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from projectors.records import block
from projectors.records.columns import UNREADABLE, Undecodable, UnixMs, check_moment, check_texts, moments_of, strict, undecodable
from schema.fields import Row

__all__ = ["Change", "Op", "Undecodable", "decoder"]
R = TypeVar("R", bound=Row)
Op = Literal["c", "u", "d", "r", "t"]


class Change(Struct, Generic[R], gc=False):
    """One row before and after. ts_ms: the source's time, Unix ms.

    pair: where the source's position is `debezium`, (LSN of the commit before, LSN) of `source.sequence`; the first is 0 where the
    connector knows of none, as a new one does, and one that has lost its offsets.
    """

    op: Op
    before: R | None = None
    after: R | None = None
    ts_ms: UnixMs | None = None
    # no field of the envelope: it is read from inside of `source`
    pair: tuple[int, int] | None = msgspec.field(default=None, name="viewgate.pair")


class _Source(Struct, gc=False):
    sequence: str | None = None
    ts_ms: UnixMs | None = None


class _Paired(Change[R], Generic[R], gc=False):
    source: _Source | None = None


_SIDES = {"c": (False, True), "r": (False, True), "u": (True, True), "d": (True, False), "t": (False, False)}
_NEEDED = {
    "c": "no before and an after",
    "r": "no before and an after",
    "u": "a before and an after (REPLICA IDENTITY FULL)",
    "d": "a before and no after (REPLICA IDENTITY FULL)",
    "t": "neither before nor after",
}
_Lsn = Annotated[int, Meta(ge=0, le=2**63 - 1)]
# its numbers are texts
_SEQUENCE = msgspec.json.Decoder(tuple[_Lsn | None, _Lsn], strict=False)


def decoder(row: type[R]) -> Callable[[bytes], Change[R]]:
    """What decodes the values of the row's topic. It raises Undecodable; tombstones are not for it."""
    held, is_paired = strict(row), row.source.position == "debezium"
    shape = _Paired if is_paired else Change
    plain = msgspec.json.Decoder(shape[held]).decode
    in_block = block.decoder(row, held, lambda other: msgspec.json.Decoder(shape[other]).decode)
    key, moments = row.source.key, [attrgetter(name) for name in moments_of(row)]
    # whether a block has come: only what is tried first hangs on it
    expects_block = False

    def either(value: bytes) -> Change[R]:
        found = block.unblocked(value)
        change: Change[R] = plain(value) if found is None else in_block(found)
        return change

    def read(value: bytes) -> Change[R]:
        nonlocal expects_block
        try:
            change = either(value) if expects_block else plain(value)
        except UNREADABLE:
            change, expects_block = _again(either, value), True
        before, after = change.before, change.after
        if (before is not None, after is not None) != _SIDES[change.op]:
            raise Undecodable(f"op {change.op!r} needs {_NEEDED[change.op]}")
        if before is not None and after is not None and getattr(before, key) != getattr(after, key):
            raise Undecodable(f"an update changes the key {key!r}; send a delete and a create, each under its own key")
        check_texts(value, before, after)
        if after is not None:
            for moment_of in moments:
                moment = moment_of(after)
                if moment is not None and moment.tzinfo is not UTC:
                    check_moment(moment)
        if is_paired:
            change.pair, change.ts_ms = _pair(change), _committed_ms(change)
        return change

    return read


def _again(either: Callable[[bytes], Change[R]], value: bytes) -> Change[R]:
    """In case that it is in a block, as the records before it were not."""
    try:
        return either(value)
    except UNREADABLE as error:
        raise undecodable(error) from error


def _pair(change: Change[Any]) -> tuple[int, int]:
    sequence = change.source.sequence if isinstance(change, _Paired) and change.source is not None else None
    try:
        commit, lsn = _SEQUENCE.decode(sequence or "")
    except UNREADABLE as error:
        raise Undecodable(
            f"source.sequence is {sequence!r} and not a pair of LSNs, which position='debezium' goes by: "
            "it is for Debezium's connector for PostgreSQL; for all else declare position='offset'"
        ) from error
    return commit or 0, lsn


def _committed_ms(change: Change[Any]) -> int | None:
    """The same each time that the change is sent, as the envelope's own `ts_ms`, which is the connector's, is not."""
    told = change.source.ts_ms if isinstance(change, _Paired) and change.source is not None else None
    return change.ts_ms if told is None else told
