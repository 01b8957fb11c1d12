"""Both roads of an operation: what a plan answers is byte for byte what the executor answers, and plain requests have a plan."""

from collections.abc import Mapping

import msgspec
import pytest
from graphql import GraphQLError
from hypothesis import event, given, settings
from strawberry.schema.exceptions import CannotGetOperationTypeError
from strawberry.types.execution import ExecutionResult

from schema import graphql, limits
from schema.definition import read_definition
from schema.loader import FieldMissing, LoadError, Read, ViewUnavailable
from tests.request.arranged import DEFINITION, USERS, MemoryLoader, user
from tests.request.conftest import Open
from tests.request.documents import Asked, Drawn, requests
from tests.request.test_queries import CustomerView

SCHEMA = graphql.build(DEFINITION)
ROWS = {
    stored["id"]: stored
    for stored in (*USERS, user(5, "five", (2**31, 2**31 - 1, -(2**31), -(2**31) - 1)), user(6, "six") | {"joined_at": None})
}


USER = Drawn(
    "User",
    ("id", "username", "name", "joinedAt", "profileImageUrl", "tweetCount", "followerCount", "__typename"),
    {"user": ("id", "ID!"), "users": ("ids", "[ID!]!"), "userByUsername": ("username", "String!")},
    ids=["1", "2", "3", "-4", str(2**62), "5", "6", "99"],
    lookups=["ada", "bob", "çelik", "nobody", ""],
)
CUSTOMERS = graphql.build(read_definition(CustomerView))
CUSTOMER_ROWS: dict[str, dict[str, object]] = {
    "a@b": {"id": "a@b", "city": "Rome", "rank": None, "active": True, "score": 0.1, "order_count": 2, "cents_spent": 2**60},
    "c@d": {"id": "c@d", "city": "Bär", "rank": -1, "active": False, "score": 1e30, "order_count": 2**31, "cents_spent": -5},
}
CUSTOMER = Drawn(
    "Customer",
    ("id", "city", "rank", "active", "score", "orderCount", "centsSpent", "__typename"),
    {"customer": ("id", "ID!"), "customers": ("ids", "[ID!]!"), "customerByCity": ("city", "String!")},
    ids=["a@b", "c@d", "nobody@x"],
    lookups=["Rome", "Bär", ""],
)


async def both(asked: Asked, schema: graphql.ViewSchema, rows: Mapping[str, Mapping[str, object]]) -> str:
    """What came of it."""
    planned, executed = MemoryLoader(rows), MemoryLoader(rows)
    answer = await schema.planned(asked.text, asked.variables, graphql.Reading(planned), asked.operation)
    result = await by_executor(asked, schema, executed)
    if answer is not None:
        assert result.errors is None, asked
        assert msgspec.json.encode(answer.data) == msgspec.json.encode(result.data)
        assert planned.loads == executed.loads
    elif not asked.wild:
        assert result.errors is not None, asked
    return "planned" if answer is not None else "failed" if result.errors else "succeeded without a plan"


async def by_executor(asked: Asked, schema: graphql.ViewSchema, loader: MemoryLoader) -> ExecutionResult:
    try:
        result = await schema.executed(asked.text, asked.variables, graphql.Reading(loader), asked.operation)
    except CannotGetOperationTypeError as nothing:
        return ExecutionResult(None, [GraphQLError(str(nothing))])
    assert isinstance(result, ExecutionResult)
    return result


@given(requests(USER))
@settings(max_examples=200, deadline=None)
async def test_a_plan_answers_what_the_executor_answers_and_plain_requests_have_one(asked: Asked) -> None:
    event(await both(asked, SCHEMA, ROWS))


@given(requests(CUSTOMER))
@settings(max_examples=60, deadline=None)
async def test_plans_of_another_definition_do_so_too(asked: Asked) -> None:
    event(await both(asked, CUSTOMERS, CUSTOMER_ROWS))


@pytest.mark.parametrize("error", [ViewUnavailable("away"), FieldMissing("lost")])
async def test_what_was_read_or_failed_is_not_asked_for_again_by_the_executor(error: LoadError) -> None:
    for loader, code in ((MemoryLoader(error=error), error.code), (MemoryLoader(ROWS), None)):
        reading, asked = graphql.Reading(loader), '{ user(id: "5") { tweetCount } users(ids: ["1", "1"]) { id } }'
        assert await SCHEMA.planned(asked, {}, reading) is None
        result = await SCHEMA.executed(asked, {}, reading)
        assert [(found.extensions or {}).get("code") for found in result.errors or ()][:1] == [code]
        assert loader.loads == [[Read("id", "5", ("tweet_count",)), Read("id", "1", ("id",))]]


async def test_documents_are_compiled_once_and_those_asked_for_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CACHED_PLANS", 2)
    plans = graphql.build(DEFINITION).plans
    one, other, third, wrong = "{ __typename }", "{ a: __typename }", "{ b: __typename }", "{ nosuch }"
    for text in (one, one, other, third, one):
        assert plans.find(text, None)
    assert (plans.hits, plans.compiled, plans.evicted) == (1, 4, 2)
    assert [plans.find(wrong, None), plans.find(wrong, None)] == [None, None]
    assert (plans.hits, plans.compiled) == (2, 5)


def test_of_several_operations_the_named_one_is_meant() -> None:
    plans = SCHEMA.plans
    text = 'query A { user(id: "1") { id } } query B { user(id: "2") { id } }'
    found = {name: plan and plan.bind({}) for name in ("A", "B", None, "", "C") for plan in [plans.find(text, name)]}
    assert {name: bound and bound.reads for name, bound in found.items()} == {
        "A": [Read("id", "1", ("id",))],
        "B": [Read("id", "2", ("id",))],
        None: None,
        "": None,
        "C": None,
    }


def test_a_plan_explains_what_it_reads() -> None:
    plan = SCHEMA.plans.find('query ($ids: [ID!]!) { users(ids: $ids) { name } userByUsername(username: "ada") { __typename } }', None)
    bound = plan.bind({"ids": ["1", 2, "1"]}) if plan else None
    assert bound
    assert bound.explained() == {
        "rows": 3,
        "reads": [{"by": "id", "rows": 2, "fields": ["name"]}, {"by": "username", "rows": 1, "fields": []}],
    }


async def test_operations_are_counted_by_what_answered_them(open_over: Open, answered_by: str) -> None:
    client = await open_over(MemoryLoader())
    for query in ('{ user(id: "1") { id } }', '{ user(id: "1") { id } }', "{ __schema { queryType { name } } }"):
        assert "errors" not in (await client.post("/graphql", json={"query": query})).json()
    told = (await client.get("/metrics")).text
    if answered_by != "executor":
        assert 'viewgate_operations_total{road="plan"} 2.0' in told
        assert 'viewgate_operations_total{road="executor"} 1.0' in told
        assert 'viewgate_plans_total{outcome="hit"} 1.0' in told
        assert 'viewgate_plans_total{outcome="compiled"} 2.0' in told
    else:
        assert 'viewgate_operations_total{road="executor"} 3.0' in told


@pytest.mark.parametrize(
    ("text", "variables", "planned"),
    [
        ('{ user(id: "5") { followingCount } }', {}, True),
        ('{ user(id: "5") { tweetCount } }', {}, False),
        ('{ user(id: "5") { likeCount } }', {}, False),
        ('{ user(id: "6") { username name } }', {}, True),
        ('{ a: user(id: "1") { id } b: user(id: "6") { joinedAt } }', {}, False),
        ('{ users(ids: ["1", "6"]) { joinedAt } }', {}, False),
        ("query ($id: ID!) { user(id: 1) { id } b: user(id: $id) @skip(if: true) { id } }", {}, False),
        ("query ($id: ID!) { user(id: 1) { id } b: user(id: $id) @skip(if: true) { id } }", {"id": "2"}, True),
        ("query ($no: Boolean = false) { user(id: 1) { id name @include(if: $no) } }", {}, True),
        ("query ($no: Boolean = false) { user(id: 1) { id name @include(if: $no) } }", {"no": None}, False),
        ("query ($ids: [ID!]!) { users(ids: $ids) { id } }", {"ids": [1, "2"]}, True),
        ("query ($ids: [ID!]!) { users(ids: $ids) { id } }", {"ids": ["1", None]}, False),
        ("query ($ids: [ID!]!) { users(ids: $ids) { id } }", {"ids": ["1"] * 101}, False),
        ("query ($id: ID! = 3) { users(ids: [$id, 1]) { username } }", {}, True),
        ("query ($ids: [ID!] = 3) { users(ids: $ids) { username } }", {}, True),
        ("{ users(ids: 3) { username } }", {}, True),
        ("query ($id: ID!) { user(id: $id) { id } }", {"id": True}, False),
        ("query ($id: ID!) { user(id: $id) { id } }", {"id": 1.0}, False),
        ('{ user(id: "1") @skip(if: true) { id } }', {}, True),
        ('{ user(id: "1") { id @skip(if: true) } }', {}, True),
        ("{ __typename }", {}, True),
    ],
)
async def test_the_edges_of_what_a_plan_answers(text: str, variables: dict[str, object], planned: bool) -> None:
    assert (await both(Asked(text, variables, None, wild=not planned), SCHEMA, ROWS) == "planned") == planned
