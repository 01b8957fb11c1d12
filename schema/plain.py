"""Plain documents: what most clients send, read from its text at once, where graphql-core parses it, validates it and walks it thrice.

Whatever is not plain is none of its business: fragments, directives, defaults of variables, comments, fields selected twice, escapes in
strings; and all that is wrong. It must never take a document for plain that graphql-core would refuse, or see another way.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graphql import GraphQLError, GraphQLSchema, get_named_type, is_leaf_type, is_object_type

from schema import limits
from schema.limits import Limits, Weight

TYPENAME = "__typename"
# types of arguments, and of the items of one
SCALARS = frozenset({"ID!", "String!"})
ITEMS = {"[ID!]!": "ID!"}
TYPES = SCALARS | ITEMS.keys()
# after what is ignored: a name, a mark, a whole number, a string, the end; or else all the rest, which the grammar below has no place for
_TOKEN = re.compile(
    r"[ \t,\n\r\ufeff]*("
    r"[_A-Za-z][_0-9A-Za-z]*"
    r"|[$():\[\]{}!]"
    r"|-?(?:0|[1-9][0-9]*)(?![_0-9A-Za-z.])"
    r'|"(?!"")[^"\\\x00-\x1f\ud800-\udfff]*"'
    r"|\Z"
    r"|(?s:.+))"
)


class Reference(NamedTuple):
    """A variable, where a value is given."""

    name: str


Given = Reference | str | tuple["Given", ...]


class Chosen(NamedTuple):
    """A root field, by its name in the response. given: its only argument. fields: below it, by their names in the response.

    Of `__typename` neither says anything.
    """

    key: str
    name: str
    given: Given = ""
    fields: Mapping[str, str] = {}


class Operation(NamedTuple):
    """The only one of its document. variables: their types as they are written."""

    name: str | None
    variables: Mapping[str, str]
    roots: Sequence[Chosen]
    weight: Weight


class Root(NamedTuple):
    """What can be asked for. type: of its argument. leaves: what may be selected below it."""

    argument: str
    type: str
    leaves: frozenset[str]


class Plain:
    """Plain documents of one schema: root fields of one argument, and below them fields that are leaves and have none."""

    def __init__(self, schema: GraphQLSchema, allowed: Limits) -> None:
        self._allowed = allowed
        self._roots: dict[str, Root] = {}
        for name, root in schema.query_type.fields.items() if schema.query_type else ():
            row: Any = get_named_type(root.type)
            types = {argument: str(declared.type) for argument, declared in root.args.items()}
            if is_object_type(row) and len(types) == 1 and TYPES.issuperset(types.values()):
                leaves = [leaf for leaf, field in row.fields.items() if is_leaf_type(get_named_type(field.type)) and not field.args]
                self._roots[name] = Root(*types.popitem(), frozenset([TYPENAME, *leaves]))

    def read(self, text: str) -> Operation | None:
        """None: it is not plain, or beyond a limit."""
        tokens = _TOKEN.findall(text)
        if len(tokens) > self._allowed.tokens:
            return None
        try:
            operation = _Reader(tokens, self._roots).operation()
            limits.check_weights([operation.weight], self._allowed)
        except (_NotPlainError, IndexError, GraphQLError):
            return None
        lists = [len(one.given) for one in operation.roots if type(one.given) is tuple]
        return operation if max(lists, default=0) <= self._allowed.ids else None


class _NotPlainError(Exception):
    pass


class _Reader:
    """Reads from the front. Raises _NotPlainError, and IndexError after the end."""

    def __init__(self, tokens: Sequence[str], roots: Mapping[str, Root]) -> None:
        self._tokens, self._at, self._roots = tokens, -1, roots
        self._variables: dict[str, str] = {}
        self._used: set[str] = set()
        self._aliases = 0

    def operation(self) -> Operation:
        name, found = None, self._next()
        if found == "query":
            found = self._next()
            if found.isidentifier():
                name, found = found, self._next()
            if found == "(":
                self._declare()
                found = self._next()
        _expect(found == "{")
        roots = self._selected()
        _expect(self._next() == "" and len(self._used) == len(self._variables))
        return Operation(name, self._variables, roots, self._weight(roots))

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at]

    def _declare(self) -> None:
        while (found := self._next()) != ")":
            name = self._next()
            _expect(found == "$" and name.isidentifier() and name not in self._variables and self._next() == ":")
            type_ = self._next()
            if type_ == "[":
                type_ += self._next() + self._next() + self._next()
            type_ += self._next()
            _expect(type_ in TYPES)
            self._variables[name] = type_
        _expect(self._variables)

    def _named(self) -> tuple[str, str] | None:
        """A field's name in the response and its own; None: there are no more."""
        key = self._next()
        if key == "}":
            return None
        if self._tokens[self._at + 1] != ":":
            return key, key
        _expect(key.isidentifier())
        self._at += 1
        self._aliases += 1
        return key, self._next()

    def _selected(self) -> Sequence[Chosen]:
        roots: dict[str, Chosen] = {}
        while (named := self._named()) is not None:
            key, name = named
            _expect(key not in roots)
            roots[key] = Chosen(key, name) if name == TYPENAME else self._chosen(key, name)
        _expect(roots)
        return [*roots.values()]

    def _chosen(self, key: str, name: str) -> Chosen:
        root = self._roots.get(name)
        if root is None:
            raise _NotPlainError
        _expect(self._next() == "(" and self._next() == root.argument and self._next() == ":")
        given = self._given(root.type)
        _expect(self._next() == ")" and self._next() == "{")
        fields: dict[str, str] = {}
        while (named := self._named()) is not None:
            leaf, own = named
            _expect(own in root.leaves and leaf not in fields)
            fields[leaf] = own
        _expect(fields)
        return Chosen(key, name, given, fields)

    def _given(self, type_: str) -> Given:
        found = self._next()
        if found == "$":
            name = self._next()
            _expect(self._variables.get(name) == type_)
            self._used.add(name)
            return Reference(name)
        if type_ in ITEMS:
            _expect(found == "[")
            items: list[Given] = []
            while self._tokens[self._at + 1] != "]":
                items.append(self._given(ITEMS[type_]))
            self._at += 1
            return tuple(items)
        if found.startswith('"'):
            return found[1:-1]
        _expect(type_ == "ID!" and (found.isdigit() or found.startswith("-")))
        return found

    def _weight(self, roots: Sequence[Chosen]) -> Weight:
        """As weighing.py counts."""
        rows, lists = 0, dict[str, int]()
        for one in roots:
            if isinstance(one.given, Reference):
                lists[one.given.name] = lists.get(one.given.name, 0) + 1
            elif one.fields:
                rows += len(one.given) if type(one.given) is tuple else 1
        selections = len(roots) + sum([len(one.fields) for one in roots])
        depth = 2 if any(one.fields for one in roots) else 1
        return Weight(depth, self._aliases, len(roots), 0, selections, rows, lists=lists)


def _expect(is_so: object) -> None:
    if not is_so:
        raise _NotPlainError
