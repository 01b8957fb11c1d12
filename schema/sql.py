"""The SQL of each field, as text: what the loader of mode sql reads, what the audit compares the view with, what a view is filled from."""

from collections.abc import Sequence

from schema.definition import Definition, Field
from schema.fields import Column, Count, Sum

# where a sink keeps Kafka's offsets, in the database and the transactions of the rows that it writes
POSITIONS = "sink_positions"


def select(definition: Definition, fields: Sequence[str], by: str) -> str:
    """Rows whose `by` ("id" or a lookup field) is in $1, an array: first the key, then `fields` in that order."""
    column = definition.base.source.key if by == "id" else by
    # without the cast an integer column refuses an id of 64 bits instead of not having it
    cast = "::bigint[]" if by == "id" and definition.key_type is int else ""
    return f"{_head(definition, fields)} WHERE base.{_name(column)} = ANY($1{cast})"


def keys(definition: Definition) -> str:
    """The next $2 keys above $1 (null: from the first), in their order, as `id`."""
    key = f"base.{_name(definition.base.source.key)}"
    sql_type = "bigint" if definition.key_type is int else "text"
    collate = _collate(definition)
    return f"{_head(definition, ())} WHERE $1::{sql_type} IS NULL OR {key} > $1::{sql_type}{collate} ORDER BY {key}{collate} LIMIT $2"


def count(definition: Definition) -> str:
    """How many rows there are."""
    return f"SELECT count(*) FROM {_name(definition.base.source.table)}"


def some_keys(definition: Definition) -> str:
    """$2 keys at random, as `id`, out of about $1 percent of the rows."""
    source = definition.base.source
    sampled = f"SELECT {_name(source.key)} AS id FROM {_name(source.table)} TABLESAMPLE BERNOULLI ($1)"
    return f"SELECT id FROM ({sampled}) sampled ORDER BY random() LIMIT $2"


def positions() -> str:
    """`topic, partition, next_offset` of the topics in $1, an array: what the sink has written lies below these."""
    return f"SELECT topic, partition, next_offset FROM {POSITIONS} WHERE topic = ANY($1)"


def every_row(definition: Definition) -> str:
    """All rows of the base table with all columns that the definition names, the key first, in the order of keys."""
    source = definition.base.source
    return f"{_row(definition)} ORDER BY {_name(source.key)}{_collate(definition)}"


def rows_of(definition: Definition) -> str:
    """The same of the keys in $1, an array, in no order."""
    return f"{_row(definition)} WHERE {_name(definition.base.source.key)} = ANY($1::{_array(definition)})"


def every_amount(definition: Definition, field: Field) -> str:
    """`id, amount` of every key that rows are counted for, in the order of keys, whether the base table has a row of it or not."""
    by = _counted_by(field)
    return f"{_amount(field)} GROUP BY {by} ORDER BY {by}{_collate(definition)}"


def amounts_of(definition: Definition, field: Field) -> str:
    """The same of the keys in $1, an array, in no order."""
    by = _counted_by(field)
    return f"{_amount(field)} AND {by} = ANY($1::{_array(definition)}) GROUP BY {by}"


def any_row(table: str) -> str:
    """Whether a table has a row."""
    return f"SELECT EXISTS (SELECT FROM {_name(table)})"


def _row(definition: Definition) -> str:
    source = definition.base.source
    columns = [source.key, *(name for name in definition.base.__struct_fields__ if name != source.key)]
    return f"SELECT {', '.join(map(_name, columns))} FROM {_name(source.table)}"


def _amount(field: Field) -> str:
    kind, by = field.kind, _counted_by(field)
    conditions = [f"{by} IS NOT NULL", *_conditions(field)]
    return f"SELECT {by} AS id, {_aggregated(field)} AS amount FROM {_name(kind.row.source.table)} counted WHERE {' AND '.join(conditions)}"


def _aggregated(field: Field) -> str:
    return f"coalesce(sum(counted.{_name(field.kind.of)}), 0)::bigint" if isinstance(field.kind, Sum) else "count(*)"


def _counted_by(field: Field) -> str:
    if isinstance(field.kind, Count | Sum):
        return f"counted.{_name(field.kind.by)}"
    raise TypeError(f"{field.name} counts nothing")


def _conditions(field: Field) -> list[str]:
    where = getattr(field.kind, "where", None) or {}
    return [f"counted.{_name(column)} IS NOT DISTINCT FROM {_literal(value)}" for column, value in where.items()]


def _collate(definition: Definition) -> str:
    """Text in the order in which Python sorts it."""
    return "" if definition.key_type is int else ' COLLATE "C"'


def _array(definition: Definition) -> str:
    return "bigint[]" if definition.key_type is int else "text[]"


def _head(definition: Definition, fields: Sequence[str]) -> str:
    by_name = {f.name: f for f in definition.fields}
    source = definition.base.source
    columns = [f"base.{_name(source.key)} AS id", *(f"{_expression(definition, by_name[name])} AS {_name(name)}" for name in fields)]
    return f"SELECT {', '.join(columns)} FROM {_name(source.table)} base"


def _expression(definition: Definition, field: Field) -> str:
    kind = field.kind
    if isinstance(kind, Column):
        return f"base.{_name(field.name)}"
    conditions = [f"counted.{_name(kind.by)} = base.{_name(definition.base.source.key)}"]
    conditions += _conditions(field)
    return f"(SELECT {_aggregated(field)} FROM {_name(kind.row.source.table)} counted WHERE {' AND '.join(conditions)})"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return "'" + str(value).replace("'", "''") + "'"
