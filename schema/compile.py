"""From a GraphQL document that may be executed to the plans of its operations."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from graphql import (
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    VariableDefinitionNode,
    is_list_type,
    is_non_null_type,
    type_from_ast,
    value_from_ast,
)

from schema import limits, selections
from schema.definition import Definition
from schema.documents import Document, Documents, Refused
from schema.fields import Count
from schema.limits import Limits, Weight
from schema.plain import TYPENAME, Chosen, Given, Plain, Reference
from schema.plan import Argument, Plan, Root, RootField, Shape, Unplain, Variable

# of one plan: each @skip and @include that hangs on a variable doubles how many there are
CACHED_SHAPES = 8
_Plans = Mapping[str | None, Plan]


class UnlearntError(Exception):
    """A text that is neither known nor plain."""


class Plans:
    """Plans by the text of their document: of those to be kept, and of those asked for last.

    hits: how often a document was known. compiled: how often one was not. evicted: how many were known, and no longer are.
    """

    def __init__(self, compiler: "Compiler", documents: Documents) -> None:
        self._compiler, self._documents = compiler, documents
        self._known: OrderedDict[str, _Plans] = OrderedDict()
        self._kept: dict[str, _Plans] = {}
        self._size = 0
        self.hits = self.compiled = self.evicted = 0

    def keep(self, text: str) -> Sequence[GraphQLError]:
        """Never forget this document's plans. Returns why it must not be executed, if so; then it has none."""
        errors = self._documents.errors(text)
        if not errors:
            self._kept[text] = self._compiler.plain(text) or self.learn(text)
        return errors

    def find(self, text: str, operation: str | None) -> Plan | None:
        """The plan of the operation of this name; of the only one, where no name is given. None: the executor says what is wrong."""
        try:
            return self.known(text, operation)
        except UnlearntError:
            plans = self.learn(text)
            self.remember(text, plans)
            return plans.get(operation)

    def known(self, text: str, operation: str | None) -> Plan | None:
        """The same where it costs little. Raises UnlearntError: let another thread `learn` it, and have the outcome remembered."""
        plans = self._kept.get(text)
        if plans is None and (plans := self._known.get(text)) is not None:
            self._known.move_to_end(text)
            self.hits += 1
        if plans is None:
            plans = self._compiler.plain(text)
            if plans is None:
                raise UnlearntError
            self.remember(text, plans)
        return plans.get(operation)

    def learn(self, text: str) -> _Plans:
        """Of each operation, none where it must not be executed. May be called by any thread."""
        try:
            return self._compiler.plans(self._documents.read(text))
        except Refused:
            return {}

    def remember(self, text: str, plans: _Plans) -> None:
        """For a while: a document of many operations for less than others, as their plans are what is counted."""
        self.compiled += 1
        self._size += _size(plans) - _size(self._known.pop(text, None))
        self._known[text] = plans
        while self._size > limits.CACHED_PLANS:
            self._size -= _size(self._known.popitem(last=False)[1])
            self.evicted += 1


class Compiler:
    """Makes the plans of one schema. roots: every field of its query type, by its name in GraphQL."""

    def __init__(self, definition: Definition, schema: GraphQLSchema, roots: Mapping[str, RootField], allowed: Limits) -> None:
        self._definition, self._schema, self._roots, self._allowed = definition, schema, roots, allowed
        self._names = {"id": "id"} | {f.camel: f.name for f in definition.fields}
        self._ints = {f.name for f in definition.fields if isinstance(f.kind, Count)}
        self._present = {f.name for f in definition.fields if not f.nullable} - self._ints
        query, row = schema.query_type, schema.get_type(definition.name)
        if not (isinstance(query, GraphQLObjectType) and isinstance(row, GraphQLObjectType)):
            raise TypeError(f"the schema is none of the view {definition.name}")
        self._query, self._row = query, row
        self._plain = Plain(schema, allowed)

    def plain(self, text: str) -> Mapping[str | None, Plan] | None:
        """The same as `plans` of a document that is plain (schema/plain.py); None: this one is not."""
        operation = self._plain.read(text)
        if operation is None:
            return None
        variables = [Variable(name, _COERCE[type_], required=True, default=None) for name, type_ in operation.variables.items()]
        shape = self._shape(operation.roots)
        plan = Plan(variables, (), lambda: shape, self._definition.key_type, operation.weight, self._allowed)
        return {None: plan, operation.name: plan}

    def plans(self, document: Document) -> Mapping[str | None, Plan]:
        """Of each operation of a valid document, by its name; of the only one, by None too."""
        definitions = document.parsed.definitions
        fragments = {one.name.value: one for one in definitions if isinstance(one, FragmentDefinitionNode)}
        operations = [one for one in definitions if isinstance(one, OperationDefinitionNode)]
        plans: dict[str | None, Plan] = {
            one.name.value if one.name else None: self._plan(one, fragments, weight)
            for one, weight in zip(operations, document.weights, strict=True)
        }
        return plans | {None: next(iter(plans.values()))} if len(operations) == 1 else plans

    def _plan(self, operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode], weight: Weight) -> Plan:
        variables = [self._variable(one) for one in operation.variable_definitions or ()]
        selected = selections.selected(operation.selection_set, fragments, self._roots)
        found = selections.switches(selected)
        own = [one.name for one in variables if one.name in found]
        if own:

            def shape(*values: bool) -> Shape | None:
                return self._shape(selections.merged(selected, dict(zip(own, values, strict=True))))

            return Plan(variables, own, lru_cache(CACHED_SHAPES)(shape), self._definition.key_type, weight, self._allowed)
        only = self._shape(selections.merged(selected, {}))
        return Plan(variables, (), lambda: only, self._definition.key_type, weight, self._allowed)

    def _variable(self, definition: VariableDefinitionNode) -> Variable:
        type_: Any = type_from_ast(self._schema, definition.type)
        default = None if definition.default_value is None else value_from_ast(definition.default_value, type_)
        required = is_non_null_type(type_) and definition.default_value is None
        return Variable(definition.variable.name.value, _coerce(type_), required, default)

    def _shape(self, chosen: Sequence[Chosen]) -> Shape | None:
        if any(one.name not in self._roots and one.name != TYPENAME for one in chosen):
            return None
        slots = [f'"{one.key}":"{self._query.name}"' if one.name == TYPENAME else f'"{one.key}":%b' for one in chosen]
        roots = tuple([self._root(self._roots[one.name], one.given, one.fields) for one in chosen if one.name != TYPENAME])
        return Shape(_object(slots), roots, len(roots) == 1 and not roots[0].field.many)

    def _root(self, field: RootField, given: Given, asked: Mapping[str, str]) -> Root:
        """asked: fields by their names in the response."""
        # in the definition's order, so that equal selections make equal Reads
        fields = tuple([name for camel, name in self._names.items() if camel in asked.values()])
        slots = [f'"{key}":"{self._row.name}"' if camel == TYPENAME else f'"{key}":%b' for key, camel in asked.items()]
        places = [fields.index(self._names[camel]) for camel in asked.values() if camel != TYPENAME]
        ints, present = (tuple([place for place, name in enumerate(fields) if name in names]) for names in (self._ints, self._present))
        # of less than two places itemgetter makes no tuple
        shown = itemgetter(*places) if len(places) > 1 else lambda row: tuple([row[place] for place in places])
        return Root(field, _argument(given, many=field.many), fields, _object(slots), shown, ints, present)


def _size(plans: _Plans | None) -> int:
    """One at least: what has none is remembered too."""
    return 0 if plans is None else max(1, len(plans))


def _object(slots: Sequence[str]) -> bytes:
    return b"{%b}" % ",".join(slots).encode()


def _argument(given: Given, *, many: bool) -> Argument:
    if isinstance(given, Reference):
        name = given.name
        return (lambda values: values[name]) if many else (lambda values: (values[name],))
    if isinstance(given, tuple):
        parts = [_argument(one, many=False) for one in given]
        return lambda values: [text for part in parts for text in part(values)]
    texts = (given,)
    return lambda values: texts


def _coerce(type_: Any) -> Callable[[Any], Any]:
    """Of a type in GraphQL. None of another than these is the type of an argument here."""
    inner = type_.of_type if is_non_null_type(type_) else type_
    return _ids if is_list_type(inner) else _SCALARS.get(inner.name, _unplain)


def _id(value: Any) -> str:
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    raise Unplain


def _ids(value: Any) -> list[str]:
    return [_id(one) for one in value] if type(value) is list else [_id(value)]


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise Unplain


def _bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise Unplain


def _unplain(value: Any) -> Any:
    raise Unplain


_SCALARS: Mapping[str, Callable[[Any], Any]] = {"ID": _id, "String": _text, "Boolean": _bool}
# by the types that a plain document may name
_COERCE: Mapping[str, Callable[[Any], Any]] = {"ID!": _id, "String!": _text, "[ID!]!": _ids}
