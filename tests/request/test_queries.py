"""From a query to one load and back to values; over a loader in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from strawberry.types.execution import ExecutionResult

from schema import graphql, limits
from schema.definition import read_definition
from schema.fields import Column, Count, Row, Sum
from schema.loader import FieldMissing, LoadError, Overloaded, Read, SourceUnavailable, ViewNotReady, ViewUnavailable
from tests.request.arranged import DEFINITION, MemoryLoader

SCHEMA = graphql.build(DEFINITION)


async def ask(query: str, loader: MemoryLoader, **variables: Any) -> ExecutionResult:
    result = await SCHEMA.executed(query, variables or {}, graphql.Reading(loader))
    assert isinstance(result, ExecutionResult)
    return result


async def code_of(query: str, loader: MemoryLoader, **variables: Any) -> str:
    result = await ask(query, loader, **variables)
    assert result.errors
    return str((result.errors[0].extensions or {})["code"])


async def data_of(query: str, loader: MemoryLoader, **variables: Any) -> dict[str, Any]:
    result = await ask(query, loader, **variables)
    assert result.errors is None
    assert result.data is not None
    return result.data


async def test_users_come_in_the_order_asked_with_nulls_and_repetitions() -> None:
    data = await data_of('{ users(ids: ["3", "99", "1", "3"]) { id username } }', MemoryLoader())
    ada, celik = {"id": "1", "username": "ada"}, {"id": "3", "username": "çelik"}
    assert data == {"users": [celik, None, ada, celik]}


async def test_no_ids_are_no_users() -> None:
    assert await data_of("{ users(ids: []) { id } }", MemoryLoader()) == {"users": []}


async def test_a_user_is_found_by_username() -> None:
    query = '{ there: userByUsername(username: "ada") { id } not: userByUsername(username: "nobody") { id } }'
    assert await data_of(query, MemoryLoader()) == {"there": {"id": "1"}, "not": None}


async def test_all_root_fields_of_a_request_are_one_load() -> None:
    loader = MemoryLoader()
    query = (
        '{ a: user(id: "1") { id } b: users(ids: ["2", "3"]) { name } c: userByUsername(username: "bob") { id } d: user(id: "1") { id } }'
    )
    await data_of(query, loader)
    assert loader.loads == [
        [Read("id", "1", ("id",)), Read("id", "2", ("name",)), Read("id", "3", ("name",)), Read("username", "bob", ("id",))],
    ]


async def test_only_selected_fields_are_read_through_fragments_and_directives() -> None:
    loader = MemoryLoader()
    query = """
      query ($no: Boolean!, $yes: Boolean!) {
        user(id: "1") { ...Counts shown: name @include(if: $yes) location @include(if: $no) ... @skip(if: $yes) { description } }
        user(id: "1") { ... on User { webPageUrl @skip(if: $no) } }
      }
      fragment Counts on User { tweetCount ...More }
      fragment More on User { followerCount }
    """
    data = await data_of(query, loader, no=False, yes=True)
    assert loader.loads == [[Read("id", "1", ("name", "web_page_url", "tweet_count", "follower_count"))]]
    assert data == {"user": {"tweetCount": 3, "followerCount": 5, "shown": "Ada", "webPageUrl": None}}


async def test_a_typename_alone_still_tells_whether_the_user_exists() -> None:
    loader = MemoryLoader()
    data = await data_of('{ a: user(id: "1") { __typename } b: user(id: "99") { __typename } }', loader)
    assert data == {"a": {"__typename": "User"}, "b": None}
    assert loader.loads == [[Read("id", "1", ()), Read("id", "99", ())]]


@pytest.mark.parametrize("wrong", ["007", " 1", "1 ", "", "abc", "1.5", "+1", "-0", "٣", "9" * 129, str(2**63)])
async def test_an_id_that_no_user_can_have_is_refused_before_anything_is_read(wrong: str) -> None:
    loader = MemoryLoader()
    assert await code_of("query ($id: ID!) { user(id: $id) { id } }", loader, id=wrong) == "INVALID_ID"
    assert await code_of("query ($id: ID!) { users(ids: [$id]) { id } }", loader, id=wrong) == "INVALID_ID"
    assert loader.loads == []


async def test_a_list_may_be_a_hundred_ids_long() -> None:
    query = "query ($ids: [ID!]!) { users(ids: $ids) { id } }"
    assert len((await data_of(query, MemoryLoader(), ids=[str(number) for number in range(100)]))["users"]) == 100
    assert await code_of(query, MemoryLoader(), ids=[str(number) for number in range(101)]) == "TOO_MANY_IDS"


async def test_a_request_may_read_a_thousand_rows_repeated_ones_included() -> None:
    def query(lists: int) -> str:
        return "query ($ids: [ID!]!) {" + " ".join(f"a{number}: users(ids: $ids) {{ id }}" for number in range(lists)) + "}"

    loader = MemoryLoader()
    assert len(await data_of(query(10), loader, ids=["1"] * 100)) == 10
    assert await code_of(query(11), loader, ids=["1"] * 100) == "TOO_MANY_READS"
    assert len(loader.loads) == 1


async def test_a_document_may_not_have_any_number_of_tokens() -> None:
    result = await SCHEMA.executed("{ user(id: 1) { " + "id " * limits.MOST_TOKENS + "} }", {}, graphql.Reading(MemoryLoader()))
    assert isinstance(result.errors, list)
    assert "tokens" in result.errors[0].message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ViewUnavailable("away"), "UNAVAILABLE"),
        (ViewNotReady("building"), "NOT_READY"),
        (FieldMissing("lost"), "FIELD_MISSING"),
        (SourceUnavailable("away"), "UNAVAILABLE"),
        (Overloaded("full"), "OVERLOADED"),
    ],
)
async def test_an_error_of_the_loader_keeps_its_code_and_gives_every_field_null(error: LoadError, code: str) -> None:
    result = await ask('{ a: user(id: "1") { id } b: user(id: "2") { id } }', MemoryLoader(error=error))
    assert result.data == {"a": None, "b": None}
    assert [(found.message, found.extensions) for found in result.errors or ()] == [(str(error), {"code": code})] * 2


class Customers(Row, topic="customers", key="email"):
    email: str
    city: str
    rank: int | None
    active: bool
    score: float


class Orders(Row, topic="orders", key="order_id"):
    order_id: int
    customer: str
    cents: int


@dataclass
class CustomerView:
    """Someone who buys."""

    id: str
    city: Annotated[str, Column(Customers, "Where they live.", lookup=True)]
    rank: Annotated[int | None, Column(Customers)]
    active: Annotated[bool, Column(Customers)]
    score: Annotated[float, Column(Customers)]
    order_count: Annotated[int, Count(Orders, by="customer")]
    cents_spent: Annotated[int, Sum(Orders, of="cents", by="customer", description="All that they ever paid.")]


async def test_another_definition_makes_another_schema() -> None:
    schema = graphql.build(read_definition(CustomerView))
    row = {"id": "a@b.example", "city": "Rome", "rank": None, "active": True, "score": 0.1, "order_count": 2, "cents_spent": 2**60}
    query = '{ customer(id: "a@b.example") { id rank active score orderCount centsSpent } customerByCity(city: "Rome") { city } }'
    result = await schema.executed(query, {}, graphql.Reading(MemoryLoader({"a@b.example": row})))
    assert result.data == {
        "customer": {"id": "a@b.example", "rank": None, "active": True, "score": 0.1, "orderCount": 2, "centsSpent": 2**60},
        "customerByCity": {"city": "Rome"},
    }
    text = graphql.sdl(read_definition(CustomerView))
    assert "  centsSpent: BigInt!" in text
    assert "  rank: BigInt\n" in text
    assert '  """All that they ever paid."""' in text


@pytest.mark.parametrize(
    ("word", "plural"), [("user", "users"), ("city", "cities"), ("day", "days"), ("box", "boxes"), ("class", "classes")]
)
def test_the_query_for_many_is_named_in_the_plural(word: str, plural: str) -> None:
    assert graphql.plural(word) == plural


def test_the_schema_in_the_repository_is_the_one_that_is_served() -> None:
    stored = Path(__file__).parents[2] / "schema.graphql"
    assert stored.read_text() == graphql.sdl(DEFINITION), "run: viewgate schema > schema.graphql"


def test_everything_in_the_schema_has_a_description() -> None:
    lines = graphql.sdl(DEFINITION).splitlines()
    undescribed = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if line.strip() and not line.strip().startswith(('"', "}", ")")) and not before.strip().startswith('"')
    ]
    assert undescribed == []
