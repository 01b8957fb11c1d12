"""From the wire to a Change. A form of record is a module here; this one gives a topic the decoder that its rows ask for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from projectors.log import Record
from projectors.records import envelope, outbox
from projectors.records.envelope import Change, Undecodable
from projectors.records.facts import fact_decoder
from schema.definition import Definition
from schema.fields import Facts, Row

# Kafka takes 1 MiB if nothing else is said; who raises that may have large rows, but nobody's row is to hold up all others
LARGEST = 8 * 1024 * 1024
Decode = Callable[[Record], Change[Any] | None]

_FORMS = {"envelope": envelope.decoder, "changelog": envelope.decoder, "outbox": outbox.decoder}


def decoders(definition: Definition) -> Mapping[str, Decode]:
    """One for each topic of the definition."""
    return {topic: decoder(*rows) for topic, rows in definition.sharing.items()}


def decoder(row: type[Row], *others: type[Row]) -> Decode:
    """What decodes the records of one topic, which these rows share. It raises Undecodable.

    None of a record that changes none of the rows: a tombstone, or a fact of another type.
    """
    form = row.source.form
    return _of_facts(form, (row, *others)) if isinstance(form, Facts) else _of_values(_FORMS[form](row))


def _of_values(read: Callable[[bytes], Change[Any] | None]) -> Decode:
    def decode(record: Record) -> Change[Any] | None:
        value = record.value
        if value is None:
            return None
        if len(value) > LARGEST:
            raise _too_large(value)
        change = read(value)
        # a TRUNCATE is of no row
        if record.key is None and (change is None or change.op != "t"):
            raise _keyless()
        return change

    return decode


def _of_facts(form: Facts, rows: Sequence[type[Row]]) -> Decode:
    read = fact_decoder(form, rows)

    def decode(record: Record) -> Change[Any] | None:
        value = record.value
        if value is None:
            return None
        if len(value) > LARGEST:
            raise _too_large(value)
        if record.key is None:
            raise _keyless()
        return read(record, value)

    return decode


def _keyless() -> Undecodable:
    return Undecodable("the record has no key, so changes of one row may come in any order; publish it under the key of its row")


def _too_large(value: bytes) -> Undecodable:
    return Undecodable(f"the value has {len(value):,} bytes, and {LARGEST:,} is the most that is read")
