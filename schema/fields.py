"""The words a view definition is written in: rows and the kinds of field. Checks nothing: see definition.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from msgspec import Struct, StructMeta

FormName = Literal["envelope", "changelog", "outbox"]
PositionKind = Literal["offset", "debezium"]


@dataclass(frozen=True, slots=True)
class Facts:
    """The form of immutable facts, `{"type": "liked", "at": 1767323045000, …all columns…}` as JSON; rows may share a topic of them.

    created: the types after which the row is there. deleted: those after which it is not; they tell the whole row too. Facts of
    other types are other rows', or nobody's. field: what tells the type. header: the Kafka header that tells it, then no field does.
    at: the field that tells when it happened, in RFC 3339 or Unix ms; where it is missing, Kafka's own timestamp does.
    """

    created: tuple[str, ...]
    deleted: tuple[str, ...] = ()
    field: str = "type"
    header: str | None = None
    at: str = "at"

    @property
    def types(self) -> tuple[str, ...]:
        return self.created + self.deleted


Form = FormName | Facts


@dataclass(frozen=True, slots=True)
class Source:
    """Where a table's changes come from.

    topic: Kafka topic, before any prefix. key: the column that names a row. table: the table in SQL.
    form: how a change looks on the wire (projectors/records). position: what tells that two records are the same change.
    """

    topic: str
    key: str
    table: str
    form: Form = "envelope"
    position: PositionKind = "offset"


class _RowMeta(StructMeta):
    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        topic: str | None = None,
        key: str | None = None,
        table: str | None = None,
        form: Form = "envelope",
        position: PositionKind = "offset",
    ) -> "_RowMeta":
        cls = super().__new__(mcls, name, bases, namespace, gc=False)
        if topic is not None and key is not None:
            cls.source = Source(topic, key, table or name.lower(), form, position)  # type: ignore[attr-defined]  # declared on Row
        return cls


class Row(Struct, metaclass=_RowMeta):
    """A source table as a msgspec struct: `class Likes(Row, topic="likes", key="like_id")` with its columns below.

    Columns are decoded and checked by their type; columns of the table that are not declared are ignored.
    """

    source: ClassVar[Source]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the row that the view is keyed by. Source: `row`'s newest change.

    lookup: a query `…By<Name>` finds the row by this column, which must be a required string.
    prefix: a text that most values start with; it is not stored again for each user.
    """

    row: type[Row]
    description: str = ""
    lookup: bool = False
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """How many of `row` bear this key in column `by` (and satisfy `where`: column = value, for each entry)."""

    row: type[Row]
    by: str
    description: str = ""
    where: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of the integer column `of`, over the rows that Count would count; a null counts as 0. A BigInt in GraphQL."""

    row: type[Row]
    of: str
    by: str
    description: str = ""
    where: Mapping[str, Any] | None = None


Aggregate = Count | Sum
Kind = Column | Aggregate
