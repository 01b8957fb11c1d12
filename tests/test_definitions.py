"""Every definition that cannot be counted is refused, with a sentence that names the line and the reason; and what a fingerprint is of."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from types import new_class
from typing import Annotated, Any

import pytest

from schema.definition import DefinitionError, read_definition
from schema.fields import Column, Count, Facts, Row, Sum
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


class Counted(Row, topic="counted", key="sale_id", position="lsn"):
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


def facts(form: Any, position: Any = "offset") -> type[Row]:
    """A row called Deals of this form."""
    columns = {"sale_id": int, "shop_id": int, "kind": str, "sold_at": datetime}
    body = {"__annotations__": columns, "__module__": __name__}
    return new_class(
        "Deals", (Row,), {"topic": "activity", "key": "sale_id", "form": form, "position": position}, lambda made: made.update(body)
    )


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
        count(row=Counted),
        "Counted says position='lsn', which cannot be read; there is offset, debezium",
    ),
    "a form that cannot be read": (
        "sales",
        count(row=facts("facts")),
        r"Deals says form='facts', which cannot be read; there is envelope, .*and Facts\(created=",
    ),
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
    with pytest.raises(DefinitionError, match=r"ShopView\.b: topic 'sales' is Sales's already; a topic carries one table, unless it"):
        read_definition(view(name=NAME, a=count(), b=count(row=OtherSales)))


# two at most of one topic, and what is said of the last
NOT_TOLD_APART: dict[str, tuple[list[type[Row]], str]] = {
    "facts by Debezium's position": (
        [facts(Facts(("sold",)), position="debezium")],
        "Deals says position='debezium', but only what Debezium sends .* tells its pair of LSNs; write position='offset'",
    ),
    "a changelog by Debezium's position": ([facts("changelog", position="debezium")], "says position='debezium', but only what Debezium"),
    "no type": ([facts(Facts(()))], r'created= and deleted= are tuples of types, .*write Facts\(created=\("liked",\)\)'),
    "only types that take back": ([facts(Facts((), ("returned",)))], "created= and deleted= are tuples of types, the first not empty"),
    "a text for a tuple": ([facts(Facts("sold"))], "created= and deleted= are tuples of types"),  # type: ignore[arg-type]  # that is what is refused
    "an empty type": ([facts(Facts(("sold", "")))], "created= and deleted= are tuples of types"),
    "a type that makes and takes back": ([facts(Facts(("sold",), ("sold",)))], "type 'sold' is named twice"),
    "a column that tells the type": ([facts(Facts(("sold",), field="kind"))], "field='kind' tells the type, and so cannot be a column"),
    "the time as type": ([facts(Facts(("sold",), field="at"))], "field='at' tells the type, and so cannot be a column or the time"),
    "a number as the time": ([facts(Facts(("sold",), at="shop_id"))], "at='shop_id' tells when a fact happened, but that column is no"),
    "facts beside an envelope": ([facts("envelope"), facts(Facts(("sold",)))], "topic 'activity' is Deals's already; a topic carries one"),
    "facts beside a changelog": ([facts(Facts(("sold",))), facts("changelog")], "topic 'activity' is Deals's already; a topic carries one"),
    "a type of two rows": ([facts(Facts(("sold", "won"))), facts(Facts(("gone", "won")))], "'won' is a type of both; a fact changes one"),
    "a type to make one row and take another back": ([facts(Facts(("sold",))), facts(Facts(("gone",), ("sold",)))], "'sold' is a type of"),
    "types in other fields": ([facts(Facts(("sold",))), facts(Facts(("gone",), field="sort"))], "its facts tell their type or time else"),
    "types in field and header": ([facts(Facts(("sold",))), facts(Facts(("gone",), header="type"))], "its facts tell their type or time"),
    "times in other fields": ([facts(Facts(("sold",))), facts(Facts(("gone",), at="sold_at"))], "its facts tell their type or time else"),
}


@pytest.mark.parametrize(("rows", "sentence"), NOT_TOLD_APART.values(), ids=NOT_TOLD_APART)
def test_facts_that_cannot_be_told_apart_are_refused(rows: list[type[Row]], sentence: str) -> None:
    lines = {f"line{number}": count(row=row) for number, row in enumerate(rows)}
    with pytest.raises(DefinitionError, match=rf"^ShopView\.line{len(rows) - 1}: .*{sentence}"):
        read_definition(view(name=NAME, **lines))


def test_rows_may_share_a_topic_of_facts() -> None:
    sold, gone = facts(Facts(("sold",), ("returned",))), facts(Facts(("gone",)))
    definition = read_definition(view(name=NAME, sales=count(row=sold), gone=count(row=gone), other=count()), "app.")
    assert definition.sharing == {"app.shops": (Shops,), "app.activity": (sold, gone), "app.sales": (Sales,)}
    assert definition.topics == {"app.shops": Shops, "app.activity": sold, "app.sales": Sales}


def test_the_type_may_be_a_column_where_a_header_tells_it() -> None:
    row = facts(Facts(("sold",), field="kind", header="kind", at="sold_at"))
    assert read_definition(view(name=NAME, sales=count(row=row))).rows == (Shops, row)


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


def test_the_fingerprint_changes_with_what_a_topic_is_read_as() -> None:
    forms: list[Any] = [Facts(("sold",)), Facts(("sold", "won")), Facts(("sold",), ("won",)), Facts(("sold",), header="kind")]
    rows = [*map(facts, ["envelope", "changelog", "outbox", *forms]), facts("envelope", position="debezium")]
    assert len({read_definition(view(name=NAME, sales=count(row=row))).fingerprint for row in rows}) == len(rows)


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
