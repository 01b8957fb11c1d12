"""Plainly valid documents: whatever is called so passes all of graphql-core's rules, and most of what clients send is called so."""

import pytest
from graphql import DocumentNode, FieldNode, OperationDefinitionNode, parse, print_ast, specified_rules, validate
from hypothesis import given, settings
from hypothesis import strategies as st

from schema import limits
from schema.plain import Chosen, Plain
from schema.selections import _given
from schema.weighing import weigh
from tests.request.documents import Asked, requests
from tests.request.test_plans import CUSTOMER, CUSTOMERS, SCHEMA, USER
from tests.request.test_rules import PIECES

SCHEMAS = [schema._schema for schema in (SCHEMA, CUSTOMERS)]
OWN_PIECES = [
    *PIECES,
    "query Q($a: ID!) ",
    "user(id: $a) ",
    "users(ids: [$a]) ",
    'userByUsername(username: "x") ',
    "-",
    "0",
    "7",
    '"',
    "\n",
]
FIELDS = "{ id username tweetCount __typename }"


def is_plain(text: str) -> bool:
    """By the schema of users. Fails where one is taken for plain that graphql-core refuses, or sees another way."""
    found = [Plain(schema, limits.DEFAULT).read(text) for schema in SCHEMAS]
    for schema, plain in zip(SCHEMAS, found, strict=True):
        if plain:
            document = parse(text)
            assert validate(schema, document, specified_rules) == [], text
            assert weigh(document, limits.DEFAULT) == [plain.weight], text
            assert seen(document) == plain[:3], text
    return found[0] is not None


def seen(document: DocumentNode) -> tuple[object, ...]:
    """What there is to be read, by graphql-core's parser."""
    (operation,) = document.definitions
    assert isinstance(operation, OperationDefinitionNode)
    variables = {one.variable.name.value: print_ast(one.type) for one in operation.variable_definitions or ()}
    roots = []
    for node in operation.selection_set.selections:
        assert isinstance(node, FieldNode)
        key = (node.alias or node.name).value
        inner = node.selection_set.selections if node.selection_set else ()
        fields = {(one.alias or one.name).value: one.name.value for one in inner if isinstance(one, FieldNode)}
        given = [_given(one.value) for one in node.arguments or ()]
        roots.append(Chosen(key, node.name.value, given[0], fields) if given else Chosen(key, node.name.value))
    return operation.name.value if operation.name else None, variables, roots


@settings(max_examples=400, deadline=None)
@given(st.one_of(requests(USER), requests(CUSTOMER)))
def test_what_clients_send_passes_the_rules_where_it_is_plain(asked: Asked) -> None:
    is_plain(asked.text)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(OWN_PIECES), max_size=8))
def test_any_pieces_pass_the_rules_where_they_are_plain(pieces: list[str]) -> None:
    text = "".join(pieces)
    is_plain(text)
    is_plain("query Q($a: ID!) { user(id: $a) { " + text + "} }")
    is_plain("query Q($a: ID!) { " + text + "}")


@pytest.mark.parametrize(
    "text",
    [
        f'{{ user(id: "1") {FIELDS} }}',
        f"query Name($id: ID!) {{ user(id: $id) {FIELDS} }}",
        f"query ($ids: [ID!]!) {{ users(ids: $ids) {FIELDS} }}",
        f'query ($id: ID!) {{ a: users(ids: [$id, "2", 3]) {FIELDS} b: user(id: 4) {{ id }} __typename }}',
        f"query ($name: String!) {{ userByUsername(username: $name) {FIELDS} }}",
        '{ user(id: "1") { id again: id } }',
    ],
)
def test_most_are_plain(text: str) -> None:
    assert is_plain(text)


@pytest.mark.parametrize(
    "text",
    [
        "{ nothing }",
        "{ user { id } }",
        '{ user(id: "1") }',
        '{ user(id: "1") { nothing } }',
        '{ user(id: "1") { id { id } } }',
        '{ user(id: "1") { id(a: 1) } }',
        '{ user(id: "1", id: "2") { id } }',
        '{ user(name: "1") { id } }',
        "{ user(id: true) { id } }",
        "{ user(id: null) { id } }",
        '{ user(id: ["1"]) { id } }',
        '{ users(ids: "1") { id } }',
        '{ users(ids: [["1"]]) { id } }',
        "{ userByUsername(username: 1) { id } }",
        "{ user(id: $a) { id } }",
        "query ($a: ID!) { __typename }",
        "query ($a: ID) { user(id: $a) { id } }",
        "query ($a: String!) { user(id: $a) { id } }",
        "query ($a: ID!) { users(ids: $a) { id } }",
        "query ($a: [ID]!) { users(ids: $a) { id } }",
        "query ($a: Nothing!) { user(id: $a) { id } }",
        "query ($a: ID!, $a: ID!) { user(id: $a) { id } }",
        'query ($a: ID! = "1") { user(id: $a) { id } }',
        "query ($a: ID! @skip(if: true)) { user(id: $a) { id } }",
        "{ __typename(a: 1) }",
        "{ __typename { id } }",
        "{ __typename __typename }",
        "{ __typename @skip(if: true) }",
        '{ user(id: "1") { id } user(id: "2") { id } }',
        '{ user(id: "1") { a: id a: name } }',
        '{ user(id: "1") @include(if: false) { id } }',
        '{ user(id: "1") { id @include(if: false) } }',
        '{ user(id: "1") { ... { id } } }',
        '{ user(id: "1") { ...F } } fragment F on User { id }',
        "query @skip(if: true) { __typename }",
        "mutation { __typename }",
        "subscription { __typename }",
        "{ __typename } { __typename }",
        "{ __typename } fragment F on User { id }",
        "fragment F on User { id }",
        "type A { b: C }",
        "{ __schema { queryType { name } } }",
        "",
        "{ }",
        "{ __typename",
        "{ __typename }}",
        "{ __typename } # said",
        "query () { __typename }",
        '{ user(id: "1") { } }',
        "{ user(id: 007) { id } }",
        "{ users(ids: [007]) { id } }",
        "{ user(id: 1.5) { id } }",
        "{ user(id: 1a) { id } }",
        "{ user(id: -) { id } }",
        '{ user(id: "a) { id } }',
        '{ user(id: "\\u0031") { id } }',
        '{ user(id: """1""") { id } }',
        '{ user(id: "1") { 5: id } }',
        '{ user(id: "1") { é: id } }',
        '{ user(id: "1") { a: : id } }',
        "{ users(ids: [" + "1 " * 101 + "]) { id } }",
        "{" + "".join(f' a{number}: user(id: "1") {{ id }}' for number in range(21)) + "}",
        "{ user(id: 1) {" + "".join(f" a{number}: id" for number in range(200)) + "} }",
    ],
)
def test_what_is_wrong_or_seldom_is_not_called_plain(text: str) -> None:
    assert not is_plain(text)
