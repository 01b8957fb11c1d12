"""The modes give the same bytes, over whatever is asked; against real Redis and PostgreSQL."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schema import layout
from schema.loader import Mode
from tests.request.arranged import DEFINITION, USERS, View
from tests.request.conftest import Open

pytestmark = pytest.mark.servers

MODES: tuple[Mode, ...] = ("view", "cache-aside", "cache-invalidate", "sql")
IDS = st.sampled_from([stored["id"] for stored in USERS] + ["99", "0", str(2**63 - 1)])
NAMES = st.sampled_from([stored["username"] for stored in USERS] + ["nobody", "", "ADA", "a:b", "\0", '"'])
FIELDS = st.sampled_from(["id", "__typename", *(f.camel for f in DEFINITION.fields)])
DIRECTIVES = st.sampled_from(["", "", "", " @skip(if: $no)", " @include(if: $yes)", " @skip(if: $yes)", " @include(if: $no)"])


@st.composite
def selection(draw: st.DrawFn, depth: int = 2) -> str:
    """A selection set of a user: fields with aliases and directives, inline fragments, spreads of F and G."""
    kinds = ["field"] * 3 + (["inline", "spread"] if depth else [])
    parts = []
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(kinds))
        directive = draw(DIRECTIVES)
        if kind == "field":
            name = draw(FIELDS)
            alias = draw(st.sampled_from(["", f"{name}{depth}{number}: "]))
            parts.append(f"{alias}{name}{directive}")
        elif kind == "inline":
            parts.append(f"... {draw(st.sampled_from(['', 'on User']))}{directive} {draw(selection(depth - 1))}")
        else:
            parts.append(f"...{draw(st.sampled_from('FG'))}{directive}")
    return "{ " + " ".join(parts) + " }"


@st.composite
def operation(draw: st.DrawFn) -> dict[str, Any]:
    """A request's body: one to five root fields, by id, ids or username, as literals or variables."""
    roots = []
    for number in range(draw(st.integers(1, 5))):
        argument = draw(
            st.one_of(
                IDS.map(lambda found: f'user(id: "{found}")'),
                st.just("user(id: $id)"),
                st.lists(IDS, max_size=4).map(lambda found: f"users(ids: [{', '.join(map(str, found))}])"),
                st.just("users(ids: $ids)"),
                NAMES.map(lambda found: f"userByUsername(username: {json.dumps(found)})"),
            )
        )
        roots.append(f"r{number}: {argument}{draw(DIRECTIVES)} {draw(selection())}")
    heads = "query ($id: ID!, $ids: [ID!]!, $yes: Boolean!, $no: Boolean!)"
    used = 'u: user(id: $id) { id } us: users(ids: $ids) { id } a: user(id: "1") { id @include(if: $yes) name @skip(if: $no) ...F ...G }'
    fragments = f"fragment F on User {draw(selection(0))} fragment G on User {draw(selection(0))}"
    variables = {"id": draw(IDS), "ids": draw(st.lists(IDS, max_size=5)), "yes": True, "no": False}
    return {"query": f"{heads} {{ {used} {' '.join(roots)} }} {fragments}", "variables": variables}


async def ask(client: httpx.AsyncClient, body: dict[str, Any], mode: Mode) -> bytes:
    answer = await client.post("/graphql", json=body, headers={"viewgate-mode": mode})
    assert answer.headers["viewgate-mode"] == mode
    return answer.content


@pytest.fixture
async def client(view: View, open_gateway: Open) -> httpx.AsyncClient:
    # what is generated may pass the limits, which are not the question here
    return await open_gateway(limit_tokens=10_000, limit_aliases=1_000, limit_directives=1_000, limit_selections=10_000)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=operation())
async def test_the_modes_answer_with_the_same_bytes(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answers = [await ask(client, body, mode) for mode in (*MODES, "cache-aside", "cache-invalidate")]
    assert b'"errors"' not in answers[0]
    assert answers.count(answers[0]) == len(answers)


async def test_the_bytes_of_an_answer_are_the_fragments_that_are_stored(view: View, client: httpx.AsyncClient) -> None:
    stored = await view.redis.hget(view.key("2"), view.code("name"))
    assert stored is not None
    answer = await client.post("/graphql", json={"query": '{ user(id: "2") { name joinedAt } }'})
    name = layout.uncut(bytes(stored), view.record.prefixes["name"])  # type: ignore[arg-type]  # this client answers bytes
    assert answer.content == b'{"data":{"user":{"name":' + name + b',"joinedAt":"2020-02-29T12:00:00Z"}}}'
