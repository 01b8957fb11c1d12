"""Form `facts`: what happened and is never changed, `{"type": "liked", "at": …, columns…}` as JSON (schema/fields.py, Facts)."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Raw

from projectors.log import Record
from projectors.records.columns import UNREADABLE, Moment, Undecodable, UnixMs, check_moment, check_texts, moments_of, strict, undecodable
from projectors.records.envelope import Change
from schema.fields import Facts, Row

_Read = Callable[[bytes], Row]
_At = UnixMs | Moment | None
_AT = msgspec.json.Decoder(_At)


def fact_decoder(form: Facts, rows: Sequence[type[Row]]) -> Callable[[Record, bytes], Change[Any] | None]:
    """What decodes the records of one topic, whose rows these are, and of which `form` tells where type and time are.

    None of a fact of another type. It raises Undecodable, also where no type is told.
    """
    reads = {kind: one for row in rows if isinstance(row.source.form, Facts) for kind, one in _reads(row, row.source.form).items()}
    head, header = _head(form), form.header
    where = f"field {form.field!r}" if header is None else f"header {header!r}"

    def read(record: Record, value: bytes) -> Change[Any] | None:
        # a value whose header tells that it is another's may be no JSON at all
        told: Any = head(value) if header is None else None
        kind = told.type if header is None else _in_header(record, header)
        if kind is None:
            raise Undecodable(f"the fact has no {where}, which tells its type; publish it with one")
        if kind not in reads:
            return None
        op, row_of = reads[kind]
        row, at_ms = row_of(value), _at_ms((told or head(value)).at, form.at, record)
        return Change(op, None, row, at_ms) if op == "c" else Change(op, row, None, at_ms)

    return read


def _head(form: Facts) -> Callable[[bytes], Any]:
    """What reads `type`, if a field tells it, and `at`, as they are called here."""
    fields: list[tuple[str, Any, Any]] = [("type", str | None, None)] if form.header is None else []
    # in a fact that is nobody's it may be anything
    fields.append(("at", Raw, Raw(b"null")))
    decode = msgspec.json.Decoder(msgspec.defstruct("Head", fields, rename={"type": form.field, "at": form.at}, gc=False)).decode

    def head(value: bytes) -> Any:
        try:
            return decode(value)
        except UNREADABLE as error:
            raise undecodable(error) from error

    return head


def _in_header(record: Record, name: str) -> str | None:
    kind = next((value for header, value in record.headers if header == name), None)
    try:
        return None if kind is None else kind.decode()
    except UnicodeDecodeError as error:
        raise Undecodable(f"header {name!r} is no UTF-8: {error}") from error


def _reads(row: type[Row], form: Facts) -> dict[str, tuple[Literal["c", "d"], _Read]]:
    decode, moments = msgspec.json.Decoder(strict(row)).decode, moments_of(row)

    def created(value: bytes) -> Row:
        try:
            one = decode(value)
        except UNREADABLE as error:
            raise undecodable(error) from error
        check_texts(value, one)
        for name in moments:
            if (moment := getattr(one, name)) is not None:
                check_moment(moment)
        return one

    def deleted(value: bytes) -> Row:
        try:
            return created(value)
        except Undecodable as reason:
            raise Undecodable(f"{reason}; a fact that takes a row back tells the whole row, as it was") from reason

    return {**dict.fromkeys(form.created, ("c", created)), **dict.fromkeys(form.deleted, ("d", deleted))}


def _at_ms(at: Raw, name: str, record: Record) -> int | None:
    try:
        moment = _AT.decode(at)
    except UNREADABLE as error:
        raise Undecodable(f"{name!r} is no time, in RFC 3339 or Unix ms: {error}") from error
    if moment is None:
        return record.timestamp if record.timestamp >= 0 else None
    return moment if isinstance(moment, int) else round(moment.timestamp() * 1000)
