"""The quick rules of validation against graphql-core's own: the same errors, in the same order, at the same places."""

import pytest
from graphql import GraphQLError, get_introspection_query, parse, validate
from hypothesis import given, settings
from hypothesis import strategies as st

from schema import graphql
from schema.rules import MARKS, NEEDED, RULES, rules_for
from tests.request.arranged import DEFINITION

SCHEMA = graphql.build(DEFINITION)._schema
PIECES = [
    *("{ ", "} ", "} ", "( ", ") ", "[ ", "] ", ": ", "$a ", "$b ", "1 ", '"x" ', "null ", "query ", "query Q", "subscription "),
    *("mutation S", "user ", "users ", "id ", "name ", "username ", "nothing ", "__typename ", "...F ", "...G ", "a: "),
    *("__schema { types { fields { type { fields { name } } } } } ", 'user(id: "1") { id } ', "user(id: $a) { id name } "),
    *("users(ids: [$a, $b]) { ...F } ", "... on User { id } ", "fragment F on User { id } ", "fragment F on Nothing { id } "),
    *("fragment G on Query { ...G user(id: $a) { ...F } } ", "query ($a: ID!) ", "query Q($a: ID, $a: Nothing) ", "@skip(if: true) "),
    *("@include(if: $b) ", "@skip(if: true) @skip(if: 1) ", "@nothing ", "type A { b: C } "),
]


def told(errors: list[GraphQLError]) -> list[object]:
    return [(error.message, error.locations) for error in errors]


def agree(text: str) -> bool:
    """Whether it could be parsed."""
    try:
        document = parse(text)
    except GraphQLError:
        return False
    assert told(validate(SCHEMA, document, rules_for(text))) == told(validate(SCHEMA, document, RULES))
    return True


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join))
def test_any_pieces_get_the_errors_that_all_rules_find(text: str) -> None:
    agree(text)
    agree("{ " + text + "}")
    agree("query Q($a: ID!, $b: Boolean) { " + text + "} fragment F on User { name }")


@pytest.mark.parametrize(
    "text",
    [
        get_introspection_query(),
        "subscription { a b }",
        "{ user(id: $missing) { id } }",
        "query ($unused: ID) { __typename }",
        "query ($a: User) { user(id: $a) { id } }",
        "{ ...Nowhere }",
        "fragment Unused on User { id } { __typename }",
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        "{ __typename @skip }",
        "{ __typename @defer }",
        "{ __schema { types { fields { type { fields { type { fields { name } } } } } } } }",
        "type A { b: C } { __typename }",
        "# $ @ ... fragment subscription __\n{ nothing }",
    ],
)
def test_what_each_rule_finds_is_found(text: str) -> None:
    assert agree(text)


def test_a_rule_is_left_out_only_where_it_has_nothing_to_find_and_by_its_right_name() -> None:
    assert set(NEEDED) <= {rule.__name__ for rule in RULES}
    assert len(rules_for("{ a }")) == len(RULES) - len(NEEDED)
    assert [rule.__name__ for rule in rules_for(" ".join(MARKS))] == [rule.__name__ for rule in RULES]
