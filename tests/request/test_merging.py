"""The merge rule of our own says what graphql-core's says, of any document, and looks at twice as much where there is twice as much."""

from collections.abc import Callable

import pytest
from graphql import ASTValidationRule, GraphQLSchema, build_schema, parse, specified_rules, validate
from graphql.validation import OverlappingFieldsCanBeMergedRule, ValidationContext
from hypothesis import given, settings
from hypothesis import strategies as st

from schema import graphql
from schema.merging import FieldsMergeRule
from schema.rules import RULES
from tests.request.arranged import DEFINITION

OURS = graphql.build(DEFINITION)._schema
# what no view has: interfaces, unions, lists of lists, a type within itself
OTHER = build_schema(
    """
    interface Pet { name: String owner: Person toys(most: Int, of: [String]): [[Toy]] }
    type Dog implements Pet { name: String owner: Person toys(most: Int, of: [String]): [[Toy]] size: Int! kind: String child: Dog }
    type Cat implements Pet { name: String owner: Person toys(most: Int, of: [String]): [[Toy]] size: Int kind: [String] child: Cat }
    type Toy { name: String! kind: Int owner: Person }
    type Person { name: String pet: Pet any: Any child: Person }
    union Any = Dog | Cat | Person
    type Query { pet: Pet dog: Dog any: Any child: Person }
    """
)
FRAGMENTS = ("F", "G", "H")


def documents(types: list[str], fields: list[str], arguments: list[str]) -> st.SearchStrategy[str]:
    """Documents of these names, most of them with fields that conflict or nearly do."""
    alias = st.sampled_from(["", "", "", "x: ", "name: ", "id: "])
    directive = st.sampled_from(["", "", "", " @include(if: true)", " @skip(if: $no)"])
    leaf = st.builds("{}{}{}{}".format, alias, st.sampled_from(fields), st.sampled_from(arguments), directive)
    spread = st.sampled_from([f"...{name}" for name in FRAGMENTS])

    def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        chosen = st.lists(inner, min_size=1, max_size=4).map(lambda found: "{ " + " ".join(found) + " }")
        condition = st.sampled_from(["", *(f" on {name}" for name in types)])
        return st.builds("{} {}".format, leaf, chosen) | st.builds("...{}{} {}".format, condition, directive, chosen)

    selections = st.lists(st.recursive(leaf | leaf | spread, nested, max_leaves=8), min_size=1, max_size=5).map(" ".join)
    definitions = [
        st.builds(lambda on, found, name=name: f"fragment {name} on {on} {{ {found} }}", st.sampled_from(types), selections)
        for name in FRAGMENTS
    ]
    return st.builds(lambda *parts: "\n".join(parts), selections.map(lambda found: f"query Q($no: Boolean!) {{ {found} }}"), *definitions)


IDS = ['(id: "1")', '(id: "2")', '(ids: ["1", "2"])', '(ids: ["2", "1"])', "(id: $no)", '(username: "a")', "", ""]
OUR_DOCUMENTS = documents(["Query", "User"], ["user", "users", "userByUsername", "id", "name", "joinedAt", "__typename", "tweetCount"], IDS)
# only what fits below the root, so that most of what is generated is valid but for its merging
OUR_FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["", "a: ", "b: "]),
        st.sampled_from(['user(id: "1")', 'user(id: "2")', 'users(ids: ["1"])', 'userByUsername(username: "a")']),
        st.lists(
            st.sampled_from(
                [
                    "id",
                    "name",
                    "id: name",
                    "name: id",
                    "n: tweetCount",
                    "n: likeCount",
                    "...F",
                    "...G",
                    "... on User { name ...H }",
                    "... { id: id }",
                ]
            ),
            min_size=1,
            max_size=5,
        ).map(" ".join),
    ).map(lambda parts: f"{parts[0]}{parts[1]} {{ {parts[2]} }}"),
    min_size=1,
    max_size=4,
).map(
    lambda found: (
        "{ "
        + " ".join(found)
        + " } fragment F on User { id n: tweetCount ...G } fragment G on User { name } fragment H on User { n: likeCount ...G }"
    )
)
OTHER_ARGUMENTS = ["", "", "", "(most: 1)", "(most: 2)", '(of: ["a"], most: 1)', '(most: 1, of: ["a"])']
OTHER_DOCUMENTS = documents(
    ["Query", "Pet", "Dog", "Cat", "Toy", "Person", "Any"],
    ["pet", "dog", "any", "child", "name", "owner", "toys", "size", "kind", "__typename"],
    OTHER_ARGUMENTS,
)


def conflicts(schema: GraphQLSchema, text: str, rule: type[ASTValidationRule]) -> bool:
    return bool(validate(schema, parse(text), [rule]))


def agree(schema: GraphQLSchema, text: str) -> None:
    assert conflicts(schema, text, FieldsMergeRule) == conflicts(schema, text, OverlappingFieldsCanBeMergedRule)


@settings(max_examples=100, deadline=None)
@given(OUR_DOCUMENTS)
def test_any_document_of_a_view_gets_graphql_cores_verdict(text: str) -> None:
    agree(OURS, text)


@settings(max_examples=150, deadline=None)
@given(OUR_FIELDS)
def test_fields_that_fit_a_view_get_graphql_cores_verdict(text: str) -> None:
    agree(OURS, text)


@settings(max_examples=200, deadline=None)
@given(OTHER_DOCUMENTS)
def test_any_document_of_another_schema_gets_graphql_cores_verdict(text: str) -> None:
    agree(OTHER, text)


def test_documents_are_validated_by_this_rule_and_all_others_of_graphql_core() -> None:
    assert set(specified_rules) - set(RULES) == {OverlappingFieldsCanBeMergedRule}
    assert set(RULES) - set(specified_rules) == {FieldsMergeRule}


def visits(text: str) -> int:
    found: list[FieldsMergeRule] = []

    class Kept(FieldsMergeRule):
        def __init__(self, context: ValidationContext) -> None:
            super().__init__(context)
            found.append(self)

    assert validate(OURS, parse(text), [Kept]) == []
    return found[0].visits


@pytest.mark.parametrize(
    "shape",
    [
        lambda n: "{ user(id: 1) { " + "id " * n + "} }",
        lambda n: "{ " + "user(id: 1) { id } " * n + "}",
        lambda n: "{ user(id: 1) { " + "...F " * n + "} } fragment F on User { id name }",
        lambda n: (
            "{ user(id: 1) { ...F0 } } "
            + " ".join(f"fragment F{i} on User {{ id ...F{i + 1} }}" for i in range(n))
            + f"fragment F{n} on User {{ id }}"
        ),
        lambda n: "{ users(ids: [" + "1 " * n + "]) { id } users(ids: [" + "1 " * n + "]) { id } }",
    ],
    ids=["a field repeated", "a root field repeated", "a fragment repeated", "a chain of fragments", "a long list twice"],
)
def test_twice_the_document_is_at_most_twice_the_visits(shape: Callable[[int], str]) -> None:
    assert visits(shape(80)) <= 2 * visits(shape(40))


@pytest.mark.parametrize(
    ("text", "conflict"),
    [
        ("{ any { ... on Dog { x: name } ... on Cat { x: name } } }", False),
        ("{ any { ... on Dog { size } ... on Cat { size } } }", True),
        ("{ any { ... on Dog { kind } ... on Cat { kind } } }", True),
        ("{ any { ... on Dog { x: child { name } } ... on Cat { x: name } } }", True),
        ("{ any { ... on Dog { toys(most: 1) { name } } ... on Cat { toys(most: 2) { name } } } }", False),
        ("{ any { ... on Dog { child { x: kind } } ... on Cat { child { x: kind } } } }", True),
        ("{ any { ... on Dog { child { x: kind } } ... on Cat { child { x: name } } } }", False),
        ("{ pet { ... on Dog { x: name } x: name ... on Cat { x: name } } }", False),
        ("{ pet { ... on Dog { toys(most: 1) { name } } toys(most: 2) { name } } }", True),
        ('{ pet { toys(most: 1, of: ["a"]) { name } toys(of: ["a"], most: 1) { name } } }', False),
    ],
)
def test_what_cannot_be_of_one_object_need_only_be_of_one_shape(text: str, conflict: bool) -> None:
    assert conflicts(OTHER, text, FieldsMergeRule) == conflict
    agree(OTHER, text)
