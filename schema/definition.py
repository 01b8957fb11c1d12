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

from schema.fields import Aggregate, Column, Count, Facts, FormName, Kind, PositionKind, Row, Sum

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
        """Where the row's changes are read. Those of a changelog are made by a stage, and are in a topic of its own."""
        topic = row.source.topic
        return self.topic_prefix + (f"{self.name.lower()}.{topic}.rows" if row.source.form == "changelog" else topic)

    @cached_property
    def changelogs(self) -> Mapping[str, type[Row]]:
        """By the topic that is published to, the rows whose newest value is all that is told."""
        return {self.topic_prefix + row.source.topic: row for row in self.rows if row.source.form == "changelog"}

    @cached_property
    def topics(self) -> Mapping[str, type[Row]]:
        """By topic, the row whose changes it carries; of several that share it, the first."""
        return {topic: rows[0] for topic, rows in self.sharing.items()}

    @cached_property
    def sharing(self) -> Mapping[str, tuple[type[Row], ...]]:
        """By topic, all rows whose changes it carries: several where it carries facts."""
        sharing: dict[str, tuple[type[Row], ...]] = {}
        for row in self.rows:
            sharing[self.topic(row)] = (*sharing.get(self.topic(row), ()), row)
        return sharing

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
    form, position = row.source.form, row.source.position
    _known(line, row, _column_types(row), row.source.key)
    if isinstance(form, Facts):
        _check_facts(f"{line}: {row.__name__}", form, _column_types(row))
    elif form not in get_args(FormName):
        there_is = ", ".join(get_args(FormName))
        raise DefinitionError(
            f"{line}: {row.__name__} says form={form!r}, which cannot be read; there is {there_is}, and Facts(created=(…), deleted=(…))."
        )
    if position not in get_args(PositionKind):
        there_is = ", ".join(get_args(PositionKind))
        raise DefinitionError(f"{line}: {row.__name__} says position={position!r}, which cannot be read; there is {there_is}.")
    if position == "debezium" and form not in {"envelope", "outbox"}:
        raise DefinitionError(
            f"{line}: {row.__name__} says position='debezium', but only what Debezium sends (form='envelope', 'outbox') tells its pair of "
            "LSNs; write position='offset'."
        )


def _check_facts(row: str, form: Facts, columns: Mapping[str, tuple[Any, bool]]) -> None:
    types = form.types if isinstance(form.created, tuple) and isinstance(form.deleted, tuple) else ()
    if not form.created or not types or not all(isinstance(name, str) and name for name in types):
        raise DefinitionError(f'{row}: created= and deleted= are tuples of types, the first not empty; write Facts(created=("liked",)).')
    twice = sorted({name for name in types if types.count(name) > 1})
    if twice:
        raise DefinitionError(f"{row}: type {twice[0]!r} is named twice; a fact either makes the row or takes it back.")
    if form.header is None and form.field in {*columns, form.at}:
        raise DefinitionError(f"{row}: field={form.field!r} tells the type, and so cannot be a column or the time; name another field.")
    if form.at in columns and columns[form.at][0] is not datetime:
        raise DefinitionError(f"{row}: at={form.at!r} tells when a fact happened, but that column is no datetime; name another field.")


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
    rows: dict[str, list[type[Row]]] = {}
    for field in fields:
        row = field.kind.row
        others = rows.setdefault(row.source.topic, [])
        if row not in others:
            for other in others:
                _check_shared(f"{view.__name__}.{field.name}: topic {row.source.topic!r} is {other.__name__}'s already", row, other)
            others.append(row)


def _check_shared(line: str, row: type[Row], other: type[Row]) -> None:
    one, two = row.source.form, other.source.form
    if not isinstance(one, Facts) or not isinstance(two, Facts):
        raise DefinitionError(f"{line}; a topic carries one table, unless it carries facts, whose types tell them apart: form=Facts(…).")
    if (one.header or one.field, one.header is None, one.at) != (two.header or two.field, two.header is None, two.at):
        raise DefinitionError(f"{line}, and its facts tell their type or time elsewhere; write the same field=, header= and at= for both.")
    if both := set(one.types) & set(two.types):
        raise DefinitionError(f"{line}, and {min(both)!r} is a type of both; a fact changes one row.")


def _describe(kind: Kind) -> str:
    where, source = sorted((getattr(kind, "where", None) or {}).items()), _describe_source(kind.row)
    if isinstance(kind, Column):
        return f"column {source} {kind.lookup} {kind.prefix}"
    if isinstance(kind, Count):
        return f"count {source} {kind.by} {where}"
    return f"sum {source} {kind.of} {kind.by} {where}"


def _describe_source(row: type[Row]) -> str:
    """What is usual is left out: generations of before there was anything else are kept."""
    source = row.source
    unusual = [str(value) for value, usual in ((source.form, "envelope"), (source.position, "offset")) if value != usual]
    return " ".join([source.topic, *unusual])
