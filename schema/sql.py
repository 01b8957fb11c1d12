"""The SQL of each field, as text: what the loader of mode sql reads and what the audit compares the view with."""

from collections.abc import Sequence

from schema.definition import Definition, Field
from schema.fields import Column, Sum


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
    collate = "" if definition.key_type is int else ' COLLATE "C"'
    return f"{_head(definition, ())} WHERE $1::{sql_type} IS NULL OR {key} > $1::{sql_type}{collate} ORDER BY {key}{collate} LIMIT $2"


def count(definition: Definition) -> str:
    """How many rows there are."""
    return f"SELECT count(*) FROM {_name(definition.base.source.table)}"


def _head(definition: Definition, fields: Sequence[str]) -> str:
    by_name = {f.name: f for f in definition.fields}
    source = definition.base.source
    columns = [f"base.{_name(source.key)} AS id", *(f"{_expression(definition, by_name[name])} AS {_name(name)}" for name in fields)]
    return f"SELECT {', '.join(columns)} FROM {_name(source.table)} base"


def _expression(definition: Definition, field: Field) -> str:
    kind = field.kind
    if isinstance(kind, Column):
        return f"base.{_name(field.name)}"
    result = f"coalesce(sum(counted.{_name(kind.of)}), 0)::bigint" if isinstance(kind, Sum) else "count(*)"
    conditions = [f"counted.{_name(kind.by)} = base.{_name(definition.base.source.key)}"]
    conditions += [f"counted.{_name(column)} IS NOT DISTINCT FROM {_literal(value)}" for column, value in (kind.where or {}).items()]
    return f"(SELECT {result} FROM {_name(kind.row.source.table)} counted WHERE {' AND '.join(conditions)})"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return "'" + str(value).replace("'", "''") + "'"
