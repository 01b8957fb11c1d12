"""Which transaction wrote a change, by what Debezium's connector for PostgreSQL tells of its source. Reads nothing else of a record."""

from typing import NamedTuple

import msgspec
from msgspec import Struct

from projectors.log import Record
from projectors.records.columns import UNREADABLE


class Transaction(NamedTuple):
    """tx_id: of 64 bits the lower 32. commit: LSN of the commit before its own, 0 where the connector knows of none."""

    tx_id: int
    commit: int
    database: str | None = None


class _Source(Struct, gc=False):
    # its numbers are texts
    sequence: str = ""
    tx_id: int | None = msgspec.field(default=None, name="txId")
    db: str | None = None


class _Told(Struct, gc=False):
    """payload: within Kafka Connect's block, where there is one."""

    source: _Source | None = None
    payload: "_Told | None" = None


_TOLD = msgspec.json.Decoder(_Told)
_SEQUENCE = msgspec.json.Decoder(tuple[int | None, int], strict=False)


def transaction(record: Record) -> Transaction | None:
    """None where it is not told."""
    try:
        told = _TOLD.decode(record.value or b"{}")
        source = (told.payload or told).source
        if source is None or source.tx_id is None:
            return None
        commit, _ = _SEQUENCE.decode(source.sequence)
    except UNREADABLE:
        return None
    return Transaction(source.tx_id, commit or 0, source.db)
