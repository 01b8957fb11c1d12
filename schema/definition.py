"""Reads a view definition and refuses, with a sentence, what cannot be counted. Knows no store and no transport."""

import hashlib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, get_args, get_origin

import msgspec

from schema.fields import Aggregate, Column, Count, Form, Kind, PositionKind, Row, Sum

SCALARS: tuple[type, ...] = (str, int, float, bool, datetime)


class DefinitionError(ValueError):
    """The definition asks for something that cannot be kept exactly right; the message says which line and why."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the view: its snake_case name (also the column's and Redis's word for it), kind and value type."""

    name: str
    kind: Kind
    type: type
    nullable: bool

    @property
    def description(self) -> str:
        return self.kind.description

    @property
    def camel(self) -> str:
        """The name in GraphQL."""
        head, *rest = self.name.split("_")
        return head + "".join(word.capitalize() for word in rest)


@dataclass(frozen=True)
class Definition:
    """A view as everything else sees it. Made by `read_definition`, never by hand."""

    name: str
    description: str
    base: type[Row]
    key_type: type
    columns: tuple[Field, ...]
    aggregates: tuple[Field, ...]
    topic_prefix: str = ""

    @property
    def fields(self) -> tuple[Field, ...]:
        return self.columns + self.aggregates

    @property
    def lookups(self) -> tuple[Field, ...]:
        return tuple(f for f in self.columns if isinstance(f.kind, Column) and f.kind.lookup)

    @cached_property
    def rows(self) -> tuple[type[Row], ...]:
        """The source tables, the base table first."""
        return tuple(dict.fromkeys([self.base, *(f.kind.row for f in self.aggregates)]))

    def topic(self, row: type[Row]) -> str:
        return self.topic_prefix + row.source.topic

    @cached_property
    def topics(self) -> Mapping[str, type[Row]]:
        return {self.topic(row): row for row in self.rows}

    @cached_property
    def fingerprint(self) -> str:
        """Changes when what is stored would: a generation is written only under the definition it was begun with."""
        lines = [self.name, self.base.source.topic, self.base.source.key, self.topic_prefix]
        lines += [f"{f.name} {f.type.__name__} {f.nullable} {_describe(f.kind)}" for f in self.fields]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def read_definition(view: type, topic_prefix: str = "") -> Definition:
    """Read a dataclass such as schema.user.UserView.

    topic_prefix: put before every topic's name, as Debezium's `topic.prefix` is.
    Raises DefinitionError, naming the line, for a definition that cannot be counted.
    """
    hints = typing.get_type_hints(view, include_extras=True)
    if not is_dataclass(view) or "id" not in hints:
        raise DefinitionError(f"{view.__name__}: a view is a dataclass with a field `id: str`; add @dataclass and the field.")
    fields = [_read_field(view, name, hint) for name, hint in hints.items() if name != "id"]
    base = _base_row(view, fields)
    key_type = _column_types(base)[base.source.key][0]
    for field in fields:
        _check_field(view, field, base, key_type)
    _check_names(view, fields)
    _check_topics(view, fields)
    columns = tuple(f for f in fields if isinstance(f.kind, Column))
    aggregates = tuple(f for f in fields if not isinstance(f.kind, Column))
    name = view.__name__.removesuffix("View")
    return Definition(name, (view.__doc__ or "").strip(), base, key_type, columns, aggregates, topic_prefix)


def _read_field(view: type, name: str, hint: Any) -> Field:
    line = f"{view.__name__}.{name}"
    if get_origin(hint) is not Annotated:
        raise DefinitionError(f"{line}: says not where it comes from; write Annotated[…, Column(…) or Count(…) or Sum(…)].")
    value_type, *kinds = get_args(hint)
    if len(kinds) != 1 or not isinstance(kinds[0], Kind):
        shown = ", ".join(type(kind).__name__ for kind in kinds)
        raise DefinitionError(
            f"{line}: {shown} is no kind of field. Only what one change can undo may be kept: Column, Count, Sum. "
            "A maximum, say, cannot be undone: when the largest row goes, all the others would have to be looked at."
        )
    scalar, nullable = split_optional(value_type)
    if scalar not in SCALARS:
        raise DefinitionError(f"{line}: type {value_type} is not one of str, int, float, bool, datetime (or one of them | None).")
    return Field(name, kinds[0], scalar, nullable)


def split_optional(hint: Any) -> tuple[Any, bool]:
    """A column's type and whether it may be null: `str | None` is (str, True)."""
    if get_origin(hint) in (types.UnionType, typing.Union):
        inner = [arg for arg in get_args(hint) if arg is not type(None)]
        return (inner[0] if len(inner) == 1 else hint), len(inner) < len(get_args(hint))
    return hint, False


def _column_types(row: type[Row]) -> dict[str, tuple[Any, bool]]:
    return {f.name: split_optional(f.type) for f in msgspec.structs.fields(row)}


def _base_row(view: type, fields: list[Field]) -> type[Row]:
    rows = list(dict.fromkeys(f.kind.row for f in fields if isinstance(f.kind, Column)))
    if len(rows) != 1:
        shown = ", ".join(row.__name__ for row in rows) or "none"
        raise DefinitionError(
            f"{view.__name__}: its Columns must come from one row, whose key is the view's id (found: {shown}). "
            "A view needs at least one Column: it is what tells that the row exists."
        )
    _check_source(view.__name__, rows[0])
    return rows[0]


def _check_field(view: type, field: Field, base: type[Row], key_type: Any) -> None:
    line = f"{view.__name__}.{field.name}"
    _check_source(line, field.kind.row)
    columns = _column_types(field.kind.row)
    if key_type not in (int, str):
        raise DefinitionError(f"{line}: the key {base.__name__}.{base.source.key} must be an int or a str.")
    if isinstance(field.kind, Column):
        _check_column(line, field, field.kind, columns)
    else:
        _check_aggregate(line, field, field.kind, columns, key_type)


def _check_source(line: str, row: type[Row]) -> None:
    if not hasattr(row, "source"):
        raise DefinitionError(f'{line}: {row.__name__} has no topic; write class {row.__name__}(Row, topic="…", key="…").')
    _known(line, row, _column_types(row), row.source.key)
    for word, value, known in (("form", row.source.form, Form), ("position", row.source.position, PositionKind)):
        if value not in get_args(known):
            there_is = ", ".join(get_args(known))
            raise DefinitionError(f"{line}: {row.__name__} says {word}={value!r}, which cannot be read; there is {there_is}.")


def _check_column(line: str, field: Field, kind: Column, columns: dict[str, tuple[Any, bool]]) -> None:
    _known(line, kind.row, columns, field.name)
    if (field.type, field.nullable) != columns[field.name]:
        raise DefinitionError(f"{line}: its type differs from {kind.row.__name__}.{field.name}; write the same in both places.")
    if (kind.lookup or kind.prefix) and field.type is not str:
        raise DefinitionError(f"{line}: lookup= and prefix= are for strings.")
    if kind.lookup and field.nullable:
        raise DefinitionError(f"{line}: lookup= needs a column that is never null.")


def _check_aggregate(line: str, field: Field, kind: Aggregate, columns: dict[str, tuple[Any, bool]], key_type: Any) -> None:
    named = [kind.by, *(kind.where or {}), *([kind.of] if isinstance(kind, Sum) else [])]
    for column in named:
        _known(line, kind.row, columns, column)
    if columns[kind.by][0] is not key_type:
        raise DefinitionError(f"{line}: by={kind.by!r} is not of the type of the view's key ({key_type.__name__}).")
    if field.type is not int or field.nullable:
        raise DefinitionError(f"{line}: a {type(kind).__name__} is an int and never null; write Annotated[int, …].")
    if isinstance(kind, Sum) and columns[kind.of][0] is not int:
        raise DefinitionError(f"{line}: of={kind.of!r} is not an integer: sums of floats cannot be undone exactly. Keep cents, not euros.")
    for column, value in (kind.where or {}).items():
        expected, nullable = columns[column]
        if type(value) is not expected and not (value is None and nullable):
            raise DefinitionError(f"{line}: where={{{column!r}: {value!r}}} can never be true: the column is of type {expected.__name__}.")
        if (isinstance(value, datetime) and value.tzinfo is None) or (isinstance(value, float) and not math.isfinite(value)):
            raise DefinitionError(f"{line}: where={{{column!r}: {value!r}}} can never be true: times have a zone, and numbers an end.")


def _known(line: str, row: type[Row], columns: Mapping[str, Any], column: str) -> None:
    if column not in columns:
        raise DefinitionError(f"{line}: {row.__name__} has no column {column!r} (it has {', '.join(columns)}).")


def _check_names(view: type, fields: list[Field]) -> None:
    seen = {"id": "id"}
    for field in fields:
        if field.camel in seen:
            raise DefinitionError(
                f"{view.__name__}.{field.name}: GraphQL would call it {field.camel}, as {seen[field.camel]} is already called."
            )
        seen[field.camel] = field.name


def _check_topics(view: type, fields: list[Field]) -> None:
    rows: dict[str, type[Row]] = {}
    for field in fields:
        row = field.kind.row
        first = rows.setdefault(row.source.topic, row)
        if first is not row:
            line = f"{view.__name__}.{field.name}"
            raise DefinitionError(f"{line}: topic {row.source.topic!r} is {first.__name__}'s already; a topic carries one table.")


def _describe(kind: Kind) -> str:
    where = sorted((getattr(kind, "where", None) or {}).items())
    if isinstance(kind, Column):
        return f"column {kind.row.source.topic} {kind.lookup} {kind.prefix}"
    if isinstance(kind, Count):
        return f"count {kind.row.source.topic} {kind.by} {where}"
    return f"sum {kind.row.source.topic} {kind.of} {kind.by} {where}"
