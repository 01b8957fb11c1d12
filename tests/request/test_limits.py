"""What a document may cost: each defence with what it refuses, attack shapes of our own, and any text at all."""

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from graphql import GraphQLError, Node, Token, get_introspection_query, parse
from hypothesis import given, settings
from hypothesis import strategies as st
from strawberry.types.execution import ExecutionResult

from app.settings import Settings
from schema import graphql, limits
from schema.documents import MOST_ERRORS, Documents, Lines, Refused
from schema.limits import DEFAULT, Limits
from schema.weighing import Weighing
from tests.request.arranged import DEFINITION, MemoryLoader

SCHEMA = graphql.build(DEFINITION)
DOCUMENTS = SCHEMA.documents
IDS = "query ($ids: [ID!]!) { users(ids: $ids) { id } }"
LARGEST = 16 * 1024
PIECES = [
    *'{}()[]:=!$@&|#,1\\"\n\x00\u00a0\ud7ff\U0001f600',
    *("...", '"""', "-1", "1e9", "true", "null", "on", "query", "mutation", "fragment", "user", "users", "id", "name", "F", "ids"),
    *("$ids", "@skip(if: true)", "...F", "__typename", "__schema", "(id: 1)", "{ id }", "fragment F on User { id }"),
]


async def errors_of(query: str, variables: Mapping[str, Any] | None = None, allowed: Limits = DEFAULT) -> list[GraphQLError]:
    loader = MemoryLoader()
    schema = SCHEMA if allowed == DEFAULT else graphql.build(DEFINITION, allowed)
    result = await schema.executed(query, variables or {}, graphql.Reading(loader))
    assert isinstance(result, ExecutionResult)
    assert not result.errors or loader.loads == []
    return list(result.errors or ())


async def code_of(query: str, variables: Mapping[str, Any] | None = None, allowed: Limits = DEFAULT) -> str:
    return next((str((error.extensions or {}).get("code")) for error in await errors_of(query, variables, allowed)), "ok")


def nested(levels: int) -> str:
    return '{ __type(name: "User") ' + "{ ofType " * (levels - 2) + "{ name }" + " }" * (levels - 1)


def fragments(count: int, inner: str) -> str:
    """Each spreads the next twice: 2ⁿ fields."""
    chain = " ".join(f"fragment F{i} on User {{ ...F{i + 1} ...F{i + 1} }}" for i in range(count))
    return f"{{ user(id: 1) {{ ...F0 }} }} {chain} fragment F{count} on User {{ {inner} }}"


@pytest.mark.parametrize(
    ("limit", "code", "document"),
    [
        ("tokens", "TOO_MANY_TOKENS", lambda n: "{ user(id: 1) { " + "id " * (n - 10) + "} }"),
        ("depth", "TOO_DEEP", nested),
        ("aliases", "TOO_MANY_ALIASES", lambda n: "{ user(id: 1) { " + " ".join(f"a{i}: id" for i in range(n)) + " } }"),
        ("root_fields", "TOO_MANY_ROOT_FIELDS", lambda n: "{ " + "__typename " * n + "}"),
        ("directives", "TOO_MANY_DIRECTIVES", lambda n: "{ user(id: 1) { " + "id @skip(if: true) " * n + "name } }"),
        ("selections", "TOO_MANY_SELECTIONS", lambda n: "{ user(id: 1) { " + "id " * (n - 1) + "} }"),
        ("ids", "TOO_MANY_IDS", lambda n: "{ users(ids: [" + "1 " * n + "]) { id } }"),
        ("rows", "TOO_MANY_READS", lambda n: "{ " + "__typename user(id: 1) { id } " * n + "}"),
    ],
)
async def test_what_a_limit_allows_passes_and_one_more_is_refused(limit: str, code: str, document: Callable[[int], str]) -> None:
    # only this limit is in the way
    wide = Limits(tokens=10_000, depth=99, aliases=99, root_fields=999, directives=99, selections=9_999, ids=999, rows=999)
    most = 20
    changed: Any = {limit: most}
    allowed = replace(wide, **changed)
    assert await code_of(document(most), {}, allowed) == "ok"
    assert await code_of(document(most + 1), {}, allowed) == code
    [error] = await errors_of(document(most + 1), {}, allowed)
    assert str(most) in error.message


@pytest.mark.parametrize("field", ['__type(name: "User") { name }', "__schema { types { name } }"])
async def test_the_schema_is_told_four_times_in_an_operation(field: str) -> None:
    def asked(times: int) -> str:
        return f"{{ a: {field} ...F }} fragment F on Query {{ " + " ".join(f"b{i}: {field}" for i in range(times - 1)) + " }"

    assert await code_of(asked(4), {}) == "ok"
    assert await code_of(asked(5), {}) == "TOO_MANY_ROOT_FIELDS"
    # by those names there are other fields elsewhere
    assert await code_of("{ user(id: 1) { __typename } }", {}) == "ok"


async def test_a_list_is_refused_before_its_items_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []

    def look(value: object, *_: object) -> str:
        looked.append(value)
        return "1"

    scalar = SCHEMA._schema.type_map["ID"]
    for name in ("parse_value", "parse_literal", "coerce_input_value", "coerce_input_literal"):
        monkeypatch.setattr(scalar, name, look, raising=False)
    assert await code_of(IDS, {"ids": ["1"] * 7_000}) == "TOO_MANY_IDS"
    assert await code_of("{ users(ids: [" + "1 " * 101 + "]) { id } }") == "TOO_MANY_IDS"
    assert await code_of("query ($ids: [ID!]! = [" + "1 " * 101 + "]) { users(ids: $ids) { id } }") == "TOO_MANY_IDS"
    assert looked == []
    assert await code_of(IDS, {"ids": ["1"]}) == "ok"
    assert looked == ["1"]


async def test_rows_are_counted_by_the_lengths_of_lists() -> None:
    twice = "query ($ids: [ID!]! = [1, 2, 3]) { users(ids: $ids) { id } ...F } fragment F on Query { more: users(ids: $ids) { id } }"
    allowed = Limits(rows=6)
    assert await code_of(twice, {}, allowed) == "ok"
    assert await code_of(twice, {"ids": ["1"] * 4}, allowed) == "TOO_MANY_READS"
    assert await code_of(twice, {"ids": ["1"] * 3}, allowed) == "ok"
    assert await code_of("{ users(ids: [1, 2, 3]) { id } a: users(ids: [1, 2, 3, 4]) { id } }", {}, allowed) == "TOO_MANY_READS"


async def test_only_the_operation_that_is_executed_is_counted_with_its_variables() -> None:
    query = (
        "query A($ids: [ID!]!) { users(ids: $ids) { id } } query B($ids: [ID!]!) { a: users(ids: $ids) { id } b: users(ids: $ids) { id } }"
    )
    schema = graphql.build(DEFINITION, Limits(rows=5))
    counted = {}
    for name in ("A", "B"):
        answer = await schema.executed(query, {"ids": ["1"] * 5}, graphql.Reading(MemoryLoader()), name)
        counted[name] = bool(answer.errors)
    assert counted == {"A": False, "B": True}


@pytest.mark.parametrize("suggestions", [False, True])
async def test_an_error_guesses_what_was_meant_only_where_that_is_set(suggestions: bool) -> None:
    allowed = Limits(suggestions=suggestions)
    for query in ("{ user(id: 1) { usernam } }", "{ user(idd: 1) { id } }", "{ user(id: 1) { ... on Usr { id } } }"):
        told = " ".join(error.message for error in await errors_of(query, {}, allowed))
        assert ("Did you mean" in told) == suggestions


async def test_introspection_can_be_turned_off() -> None:
    closed = Limits(introspection=False)
    hidden = "{ ...F } fragment F on Query { ... { __schema { queryType { name } } } }"
    for query in (get_introspection_query(), hidden, '{ a: __type(name: "User") { name } }'):
        assert await code_of(query) == "ok"
        assert await code_of(query, {}, closed) == "INTROSPECTION_OFF"
    assert await code_of("{ user(id: 1) { __typename } }", {}, closed) == "ok"


def test_every_limit_is_a_setting_with_the_same_default() -> None:
    assert Settings(_env_file=None).limits == DEFAULT  # type: ignore[call-arg] # pydantic-settings' own, which no field declares
    given = Settings(limit_tokens=1, limit_depth=2, limit_rows=3, introspection=False, suggestions=True).limits
    assert given == replace(DEFAULT, tokens=1, depth=2, rows=3, introspection=False, suggestions=True)


ATTACKS: dict[str, tuple[str, str]] = {
    "fields nested deeply": (nested(100), "TOO_DEEP"),
    "brackets nested deeply": ("{ a" * 240 + "}" * 240, "GRAPHQL"),
    "inline fragments nested deeply": ("{ " + "... { " * 150 + "__typename" + " }" * 151, "ok"),
    "lists nested deeply": ("{ user(id: " + "[" * 230 + "]" * 230 + ") { id } }", "GRAPHQL"),
    "aliases": ("{ " + " ".join(f"a{i}: __typename" for i in range(100)) + " }", "TOO_MANY_ALIASES"),
    "root fields": ("{ " + "__typename " * 400 + "}", "TOO_MANY_ROOT_FIELDS"),
    "a bomb of fragments": (fragments(30, "id"), "TOO_MANY_SELECTIONS"),
    "a bomb of fragments with aliases": (fragments(30, "a: id"), "TOO_MANY_ALIASES"),
    "a bomb of fragments with directives": (fragments(30, "id @skip(if: true) name"), "TOO_MANY_DIRECTIVES"),
    "a bomb of fragments on the root": (
        "{ ...F0 } "
        + " ".join(f"fragment F{i} on Query {{ ...F{i + 1} ...F{i + 1} }}" for i in range(30))
        + " fragment F30 on Query { __typename }",
        "TOO_MANY_ROOT_FIELDS",
    ),
    "directives": ("{ __typename " + "@skip(if: true) " * 60 + "}", "TOO_MANY_DIRECTIVES"),
    "directives that are unknown": ("{ __typename " + "@a " * 200 + "}", "TOO_MANY_DIRECTIVES"),
    "a field repeated": ("{ user(id: 1) { " + "id " * 485 + "} }", "ok"),
    "a field repeated beyond the tokens": ("{ user(id: 1) { " + "id " * 5_000 + "} }", "TOO_MANY_TOKENS"),
    "comments": ("#\n" * 8_000 + "{ __typename }", "TOO_MANY_TOKENS"),
    "blank lines and errors": ("{" + "\n" * 15_000 + "a " * 19 + "}", "GRAPHQL"),
    "a list of ids": ("{ users(ids: [" + "1 " * 400 + "]) { id } }", "TOO_MANY_IDS"),
    "a list within a list": ("{ users(ids: [[" + "1 " * 400 + "]]) { id } }", "TOO_MANY_IDS"),
    "a fragment of itself": ("{ user(id: 1) { ...F } } fragment F on User { id ...F }", "GRAPHQL"),
    "a ring of fragments": (
        "{ user(id: 1) { ...F0 } } " + " ".join(f"fragment F{i} on User {{ id ...F{(i + 1) % 40} }}" for i in range(40)),
        "GRAPHQL",
    ),
    "fragments that all spread all": (
        "{ user(id: 1) { ...F0 } } "
        + " ".join(f"fragment F{i} on User {{ {' '.join(f'...F{j}' for j in range(12))} }}" for i in range(12)),
        "",
    ),
    "fragments that nobody spreads": (fragments(30, "id").replace("...F0", "id"), "TOO_MANY_SELECTIONS"),
    "many operations": (" ".join(f"query Q{i} {{ __typename }}" for i in range(90)), "ok"),
    "operations that share fragments": (
        " ".join(f"query Q{i} {{ ...F }}" for i in range(50)) + " fragment F on Query { " + "__typename " * 20 + "}",
        "TOO_MANY_SELECTIONS",
    ),
    "a long name": ("{ " + "a" * 16_000 + " }", "GRAPHQL"),
    "a long number": ("{ user(id: " + "9" * 16_000 + ") { id } }", "INVALID_ID"),
    "a long text": ('{ user(id: "' + "\\u0041" * 2_600 + '") { id } }', "INVALID_ID"),
    "a text in a block": ('{ user(id: """' + "\n  " * 5_000 + '""") { id } }', "INVALID_ID"),
    "variables": ("query (" + " ".join(f"$v{i}: ID" for i in range(120)) + ") { __typename }", "GRAPHQL"),
    "an argument repeated": ("{ user(" + "id: 1 " * 160 + ") { id } }", "GRAPHQL"),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_is_answered_with_an_error_that_says_why_or_with_little_work(name: str) -> None:
    query, expected = ATTACKS[name]
    schema = graphql.build(DEFINITION)
    named = "Q0" if "query Q0" in query else None
    answer = await schema.executed(query, {}, graphql.Reading(MemoryLoader()), named)
    errors = list(answer.errors or ()) if isinstance(answer, ExecutionResult) else []
    code = str((errors[0].extensions or {}).get("code", "GRAPHQL")) if errors else "ok"
    assert code == expected or (not expected and code != "ok")
    assert len(errors) <= MOST_ERRORS + 1
    assert all(isinstance(error.original_error, GraphQLError | None) for error in errors)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(max_size=200),
        st.lists(
            st.sampled_from(PIECES),
            max_size=300,
        ).map(" ".join),
        st.tuples(st.sampled_from(sorted(ATTACKS)), st.integers(0, LARGEST), st.text(max_size=3)).map(
            lambda cut: (ATTACKS[cut[0]][0][: cut[1]] + cut[2] + ATTACKS[cut[0]][0][cut[1] :])[:LARGEST]
        ),
    )
)
def test_any_text_is_a_document_or_a_graphql_error(text: str) -> None:
    errors: list[GraphQLError] = []
    try:
        DOCUMENTS.check(DOCUMENTS.read(text), None, {"ids": ["1"]})
    except Refused as refused:
        errors = [*refused.errors]
        assert errors
    except GraphQLError as error:
        errors = [error]
    assert all(error.formatted["message"] for error in errors)
    # and what is remembered says the same
    assert [error.formatted for error in DOCUMENTS.errors(text)] in ([error.formatted for error in errors], [])


@pytest.mark.parametrize(
    "document",
    [
        lambda n: "{ user(id: 1) { " + "id " * n + "} }",
        lambda n: fragments(n, "id"),
        lambda n: "{ " + " ".join(f"a{i}: user(id: 1) {{ ...F }}" for i in range(n)) + " } fragment F on User { " + "id " * n + "}",
        lambda n: "{ users(ids: [" + "1 " * n + "]) { id } }",
        lambda n: "{ user(id: 1) { id " + "@skip(if: true) " * n + "} }",
    ],
    ids=["a field repeated", "a bomb of fragments", "a fragment spread widely", "a list", "directives"],
)
def test_twice_the_document_is_weighed_with_at_most_twice_the_visits(document: Callable[[int], str]) -> None:
    wide = replace(DEFAULT, ids=1_000)
    assert Weighing(parse(document(80)), wide).visits <= 2 * Weighing(parse(document(40)), wide).visits


def test_what_outgrows_any_number_is_counted_no_further() -> None:
    [weight] = Weighing(parse(fragments(5_000, "id @skip(if: true)")), DEFAULT).operations
    assert weight.selections == weight.directives == 10**9


@pytest.mark.parametrize("text", ["{ ...{ user(id: 1) { id } } }", "{ nothing }", "{ user(id: 1) { ...F } } fragment F on User { no }"])
def test_a_text_is_validated_once(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = Documents(SCHEMA._schema)
    first = [error.formatted for error in documents.errors(text)]
    monkeypatch.setattr("schema.documents.validate", None)
    assert [error.formatted for error in documents.errors(text)] == first


def test_nothing_that_was_parsed_stays() -> None:
    """Python would look through it again and again, and answer nobody meanwhile."""
    schema = graphql.build(DEFINITION)
    gc.collect()
    before = sum(isinstance(one, Node | Token) for one in gc.get_objects())
    for text, _ in ATTACKS.values():
        schema.plans.find(text, None)
    gc.collect()
    assert sum(isinstance(one, Node | Token) for one in gc.get_objects()) == before


@given(st.text(alphabet="a\r\n", max_size=40), st.integers(0, 40))
def test_a_place_in_a_text_is_where_graphql_core_finds_it(text: str, position: int) -> None:
    place = min(position, len(text))
    plain = parse("{a}").loc
    assert plain is not None
    assert Lines(text).get_location(place) == type(plain.source)(text).get_location(place) or text[place - 1 : place + 1] == "\r\n"


def test_a_refusal_says_the_number_the_limit_and_what_to_do() -> None:
    with pytest.raises(GraphQLError, match=r"^101 ids were asked for in one list; ask for at most 100 at once\.$"):
        limits.check_list(["1"] * 101)
