"""Every definition that cannot be counted is refused, with a sentence that names the line and the reason; and what a fingerprint is of."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest

from schema.definition import DefinitionError, read_definition
from schema.fields import Column, Count, Row, Sum
from schema.user import UserView


class Shops(Row, topic="shops", key="shop_id"):
    shop_id: int
    name: str
    motto: str | None
    opened_at: datetime
    odd: list[str]


class Sales(Row, topic="sales", key="sale_id"):
    sale_id: int
    shop_id: int
    partner_id: int | None
    shop_name: str
    cents: int
    kilos: float
    state: str | None
    is_paid: bool
    sold_at: datetime


class OtherSales(Row, topic="sales", key="sale_id"):
    sale_id: int
    shop_id: int


class Homeless(Row):
    shop_id: int


class Keyless(Row, topic="keyless", key="no_such"):
    shop_id: int


class Paired(Row, topic="paired", key="sale_id", position="debezium"):
    sale_id: int
    shop_id: int


class Facts(Row, topic="facts", key="sale_id", form="facts"):
    sale_id: int
    shop_id: int


class Weighed(Row, topic="weighed", key="kilos"):
    kilos: float
    name: str


@dataclass(frozen=True)
class Max:
    row: type[Row]
    of: str
    by: str


NAME = Annotated[str, Column(Shops)]


def view(**lines: Any) -> type:
    """A view called ShopView with these lines below its id."""
    return dataclass(type("ShopView", (), {"__annotations__": {"id": str, **lines}}))


def count(by: str = "shop_id", row: type[Row] = Sales, **where: Any) -> Any:
    return Annotated[int, Count(row, by, where=where or None)]


def total(of: str, value_type: Any = int) -> Any:
    return Annotated[value_type, Sum(Sales, of, "shop_id")]


# a line, and what is said of it
REFUSED: dict[str, tuple[str, Any, str]] = {
    "a Column that the row lacks": ("names", Annotated[str, Column(Shops)], r"Shops has no column 'names' \(it has shop_id, name"),
    "a by that the row lacks": ("sales", count(by="shop"), "Sales has no column 'shop'"),
    "a where that the row lacks": ("sales", count(paid=True), "Sales has no column 'paid'"),
    "an of that the row lacks": ("total", total("amount"), "Sales has no column 'amount'"),
    "a key that the row lacks": ("sales", count(row=Keyless), "Keyless has no column 'no_such'"),
    "a kind of one's own": ("best", Annotated[int, Max(Sales, "cents", "shop_id")], "Max is no kind of field.*cannot be undone"),
    "two kinds": ("name", Annotated[str, Column(Shops), Column(Shops)], "Column, Column is no kind of field"),
    "no kind": ("motto", str, "says not where it comes from; write Annotated"),
    "a by of another type": ("sales", count(by="shop_name"), r"by='shop_name' is not of the type of the view's key \(int\)"),
    "a Sum of floats": ("kilos", total("kilos"), "of='kilos' is not an integer.*cents, not euros"),
    "a Sum of truths": ("paid", total("is_paid"), "of='is_paid' is not an integer"),
    "a Sum as float": ("total", total("cents", float), "a Sum is an int and never null"),
    "a Sum that may be null": ("total", total("cents", int | None), "a Sum is an int and never null"),
    "a Count that may be null": ("sales", Annotated[int | None, Count(Sales, "shop_id")], "a Count is an int and never null"),
    "an int where a bool is": ("paid", count(is_paid=1), r"where=\{'is_paid': 1\} can never be true: the column is of type bool"),
    "a bool where an int is": ("one", count(cents=True), r"where=\{'cents': True\} can never be true: the column is of type int"),
    "an int where a float is": ("one", count(kilos=1), r"where=\{'kilos': 1\} can never be true: the column is of type float"),
    "null where none is": ("paid", count(is_paid=None), r"where=\{'is_paid': None\} can never be true"),
    "no number where one is": ("light", count(kilos=math.nan), r"where=\{'kilos': nan\} can never be true"),
    "infinity where a number is": ("heavy", count(kilos=math.inf), r"where=\{'kilos': inf\} can never be true"),
    "a time without a zone": ("new", count(sold_at=datetime(2026, 1, 1)), r"where=\{'sold_at': .*\} can never be true: times have a zone"),
    "a row without a topic": ("sales", count(row=Homeless), r'Homeless has no topic; write class Homeless\(Row, topic="…", key="…"\)'),
    "a position that cannot be read": (
        "sales",
        count(row=Paired),
        "Paired says position='debezium', which cannot be read; there is offset",
    ),
    "a form that cannot be read": ("sales", count(row=Facts), "Facts says form='facts', which cannot be read; there is envelope"),
    "a lookup that may be null": ("motto", Annotated[str | None, Column(Shops, lookup=True)], "lookup= needs a column that is never null"),
    "a lookup by a time": ("opened_at", Annotated[datetime, Column(Shops, lookup=True)], "lookup= and prefix= are for strings"),
    "a prefix of a time": ("opened_at", Annotated[datetime, Column(Shops, prefix="2")], "lookup= and prefix= are for strings"),
    "a type unlike the row's": ("motto", Annotated[str, Column(Shops)], r"its type differs from Shops\.motto"),
    "a type that no field has": ("odd", Annotated[list[str], Column(Shops)], r"type list\[str\] is not one of str, int, float, bool"),
    "one type of two": ("name", Annotated[str | int, Column(Shops)], r"type str \| int is not one of"),
}


@pytest.mark.parametrize(("line", "hint", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_line_that_cannot_be_counted_is_refused_and_named(line: str, hint: Any, sentence: str) -> None:
    with pytest.raises(DefinitionError, match=rf"^ShopView\.{line}: {sentence}"):
        read_definition(view(**{"name": NAME, line: hint}))


def test_two_lines_with_one_name_in_graphql_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"ShopView\.openedAt: GraphQL would call it openedAt, as opened_at is already called"):
        read_definition(view(opened_at=Annotated[datetime, Column(Shops)], openedAt=count()))


def test_two_rows_of_one_topic_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"ShopView\.b: topic 'sales' is Sales's already; a topic carries one table"):
        read_definition(view(name=NAME, a=count(), b=count(row=OtherSales)))


def test_columns_of_two_rows_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"ShopView: its Columns must come from one row.*found: Shops, Sales"):
        read_definition(view(name=NAME, state=Annotated[str | None, Column(Sales)]))


def test_a_view_without_a_column_is_refused_since_nothing_says_that_a_row_exists() -> None:
    with pytest.raises(DefinitionError, match=r"ShopView: .*\(found: none\).*at least one Column"):
        read_definition(view(sales=Annotated[int, Count(Sales, by="shop_id")]))


def test_a_key_that_is_neither_a_number_nor_a_text_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"ShopView\.name: the key Weighed\.kilos must be an int or a str"):
        read_definition(view(name=Annotated[str, Column(Weighed)]))


def test_a_row_of_columns_without_a_topic_is_refused_with_what_to_write() -> None:
    with pytest.raises(DefinitionError, match=r"Homeless has no topic"):
        read_definition(view(shop_id=Annotated[int, Column(Homeless)]))


def test_a_base_row_without_its_key_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Keyless has no column 'no_such'"):
        read_definition(view(shop_id=Annotated[int, Column(Keyless)]))


def test_what_is_no_dataclass_or_has_no_id_is_refused() -> None:
    no_dataclass = type("ShopView", (), {"__annotations__": {"id": str, "name": NAME}})
    without_id: type = dataclass(type("ShopView", (), {"__annotations__": {"name": NAME}}))
    for no_view in (no_dataclass, without_id):
        with pytest.raises(DefinitionError, match="ShopView: a view is a dataclass with a field `id: str`"):
            read_definition(no_view)


def test_everything_that_can_be_counted_is_taken() -> None:
    where = {"state": None, "is_paid": True, "kilos": 0.5, "sold_at": datetime(2026, 1, 1, tzinfo=UTC), "cents": 5}
    definition = read_definition(
        view(
            name=Annotated[str, Column(Shops, lookup=True, prefix="The ")],
            motto=Annotated[str | None, Column(Shops)],
            partnered=Annotated[int, Count(Sales, by="partner_id", where=where)],
            total=Annotated[int, Sum(Sales, of="cents", by="shop_id", where={"state": "paid"})],
        )
    )
    assert (definition.name, definition.base, definition.key_type) == ("Shop", Shops, int)
    assert [f.camel for f in definition.fields] == ["name", "motto", "partnered", "total"]
    assert list(definition.topics.items()) == [("shops", Shops), ("sales", Sales)]


def test_topics_bear_the_prefix() -> None:
    assert list(read_definition(UserView, "app.").topics) == ["app.users", "app.tweets", "app.follows", "app.likes"]


class OldSales(Row, topic="old-sales", key="sale_id"):
    sale_id: int
    shop_id: int
    cents: int


BASE: dict[str, Any] = {"name": NAME, "sales": count(state="paid"), "total": total("cents")}
STORED_OTHERWISE: dict[str, dict[str, Any]] = {
    "one field more": {"motto": Annotated[str | None, Column(Shops)]},
    "a lookup": {"name": Annotated[str, Column(Shops, lookup=True)]},
    "a prefix": {"name": Annotated[str, Column(Shops, prefix="The ")]},
    "another by": {"sales": count(by="partner_id", state="paid")},
    "another where": {"sales": count(state="open")},
    "a where of null": {"sales": count(state=None)},
    "no where": {"sales": count()},
    "another of": {"total": total("sale_id")},
    "a Count for a Sum": {"total": count()},
    "another topic": {"total": Annotated[int, Sum(OldSales, "cents", "shop_id")]},
}


def fingerprint(**lines: Any) -> str:
    return read_definition(view(**BASE | lines)).fingerprint


@pytest.mark.parametrize("lines", STORED_OTHERWISE.values(), ids=STORED_OTHERWISE)
def test_the_fingerprint_changes_with_what_is_stored(lines: dict[str, Any]) -> None:
    assert fingerprint(**lines) != fingerprint()


def test_the_fingerprint_changes_with_the_topics_prefix() -> None:
    assert read_definition(UserView, "a.").fingerprint != read_definition(UserView).fingerprint


def test_the_fingerprint_does_not_change_with_descriptions() -> None:
    described = {
        "name": Annotated[str, Column(Shops, "Over the door.")],
        "sales": Annotated[int, Count(Sales, by="shop_id", description="Paid.", where={"state": "paid"})],
        "total": Annotated[int, Sum(Sales, of="cents", by="shop_id", description="In cents.")],
    }
    assert fingerprint(**described) == fingerprint()


def test_the_fingerprint_does_not_change_with_the_order_of_a_where() -> None:
    one, other = ({"state": "paid", "cents": 1}, {"cents": 1, "state": "paid"})
    assert len({fingerprint(sales=Annotated[int, Count(Sales, by="shop_id", where=where)]) for where in (one, other)}) == 1
