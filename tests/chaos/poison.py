"""Records that are no change of a row's table, one of each kind. Sends nothing."""

from collections.abc import Mapping
from typing import Any

import msgspec

from demo.publish import envelope
from schema.fields import Row

MB = 1024 * 1024
MS = 1_767_323_045_000


def poison(row: Row) -> Mapping[str, tuple[bytes | None, bytes]]:
    """Key and value by what is wrong with them; all told of this row, which must never be seen."""
    created, key = envelope("c", None, row, MS), str(getattr(row, row.source.key)).encode()
    nested = b"[" * 100_000 + b"]" * 100_000
    values = {
        "no JSON": b"\x00\x01\x02",
        "empty": b"",
        "bad UTF-8": created.replace(b'"c"', b'"c\xff"'),
        "half of a surrogate pair": created.replace(b'"c"', rb'"c\ud800"'),
        "cut off": created[:-9],
        "more after the end": created + b"}",
        "brackets that never close": b"[" * 100_000,
        "a nested bomb beside the columns": created.replace(b'"op"', b'"x":' + nested + b',"op"'),
        "a nested bomb as schema": b'{"schema":' + nested + b',"payload":' + created + b"}",
        "a block around nothing": b'{"schema":null,"payload":null}',
        "a list": b"[]",
        "a list of a million": b"[" + b"0," * 1_000_000 + b"0]",
        "null": b"null",
        "unknown op": created.replace(b'"c"', b'"x"'),
        "op null": created.replace(b'"c"', b"null"),
        "no op": b'{"before":null,"after":null}',
        "create without after": envelope("c", None, None, MS),
        "update without before": envelope("u", None, row, MS),
        "delete without before": envelope("d", None, None, MS),
        "delete with after": envelope("d", row, row, MS),
        "time beyond the year 9999": created.replace(b"%d" % MS, b"%d" % (MS * 1_000_000)),
        "time of no bits": created.replace(b"%d" % MS, b"9" * 40),
        "10 MB": envelope("c", None, row, MS).replace(b'"op"', b'"x":"' + b"x" * 10 * MB + b'","op"'),
        **_columns(created),
    }
    return {name: (key, value) for name, value in values.items()} | {"no key": (None, created)}


def _columns(created: bytes) -> dict[str, bytes]:
    """Each column of the row with what it may not be."""
    spoilt: dict[str, bytes] = {}
    columns: dict[str, Any] = msgspec.json.decode(created)["after"]
    for name, value in columns.items():
        if isinstance(value, int):
            bad: dict[str, Any] = {"a number as text": str(value), "a fraction": value + 0.5, "true": True, "65 bits": 2**64, "null": None}
        elif name.endswith("_at"):
            bad = {"a time without zone": "2026-01-02T03:04:05", "a time as number": MS, "no month": "2026-13-02T03:04:05Z", "null": None}
        elif value is not None:
            bad = {"a text as number": 1, "a list": [value], "an object": {name: value}, "null": None, "a NUL": f"{value}\0"}
        else:
            bad = {"a number where a text may be": 1, "a NUL": "\0"}
        spoilt |= {f"{name}: {what}": _with(created, columns | {name: one}) for what, one in bad.items()}
        spoilt[f"no {name}"] = _with(created, {other: one for other, one in columns.items() if other != name})
    return spoilt


def _with(created: bytes, columns: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(created) | {"after": columns})
