"""From a GraphQL document that may be executed to the plans of its operations."""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from graphql import (
    DirectiveNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLObjectType,
    GraphQLSchema,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    StringValueNode,
    ValueNode,
    VariableDefinitionNode,
    VariableNode,
    Visitor,
    is_list_type,
    is_non_null_type,
    type_from_ast,
    value_from_ast,
    visit,
)
from graphql.execution.collect_fields import FragmentDetails, collect_fields, collect_subfields
from graphql.execution.values import VariableValues

from schema import limits
from schema.definition import Definition
from schema.documents import Document, Documents, Refused
from schema.fields import Count
from schema.limits import Limits, Weight
from schema.plain import TYPENAME, Chosen, Given, Plain, Reference
from schema.plan import Argument, Plan, Root, RootField, Shape, Unplain, Variable

# each @skip and @include that hangs on a variable doubles how many shapes there are; what has more has no plan
MOST_SWITCHES = 4
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
            self.remember(text, self.learn(text))
            return self._known[text].get(operation)

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
        self.compiled += 1
        self._known[text] = plans
        if len(self._known) > limits.CACHED_DOCUMENTS:
            self._known.popitem(last=False)
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
        shape = self._shape_of(operation.roots)
        plan = Plan(variables, (), {(): shape}, self._definition.key_type, operation.weight, self._allowed)
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
        switches = _Switches()
        for node in (operation, *fragments.values()) if weight.directives else ():
            visit(node, switches)
        # fragments of other operations hang on others
        own = [one.name for one in variables if one.name in switches.found]
        if len(own) > MOST_SWITCHES:
            own, shapes = [], dict[tuple[bool, ...], Shape | None]()
        else:
            # all of them now: what was parsed is not kept
            told = itertools.product((False, True), repeat=len(own))
            shapes = {values: self._shape(operation, fragments, dict(zip(own, values, strict=True))) for values in told}
        return Plan(variables, own, shapes, self._definition.key_type, weight, self._allowed)

    def _variable(self, definition: VariableDefinitionNode) -> Variable:
        type_: Any = type_from_ast(self._schema, definition.type)
        default = None if definition.default_value is None else value_from_ast(definition.default_value, type_)
        required = is_non_null_type(type_) and definition.default_value is None
        return Variable(definition.variable.name.value, _coerce(type_), required, default)

    def _shape(
        self, operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode], switches: Mapping[str, bool]
    ) -> Shape | None:
        values = VariableValues({}, dict(switches))
        details = {name: FragmentDetails(fragment) for name, fragment in fragments.items()}
        selected = collect_fields(self._schema, details, values, self._query, operation).grouped_field_set
        chosen: list[Chosen] = []
        for key, (first, *_) in selected.items():
            name = first.node.name.value
            if name == TYPENAME:
                chosen.append(Chosen(key, name))
            elif name in self._roots:
                below = collect_subfields(self._schema, details, values, operation, self._row, selected[key]).grouped_field_set
                (argument,) = first.node.arguments or ()
                fields = {key: nodes[0].node.name.value for key, nodes in below.items()}
                chosen.append(Chosen(key, name, _given(argument.value), fields))
            else:
                return None
        return self._shape_of(chosen)

    def _shape_of(self, chosen: Sequence[Chosen]) -> Shape:
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


class _Switches(Visitor):
    """The variables on which @skip and @include hang."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def enter_directive(self, node: DirectiveNode, *_: Any) -> None:
        self.found |= {one.value.name.value for one in node.arguments or () if isinstance(one.value, VariableNode)}


def _object(slots: Sequence[str]) -> bytes:
    return b"{%b}" % ",".join(slots).encode()


def _given(node: ValueNode) -> Given:
    if isinstance(node, VariableNode):
        return Reference(node.name.value)
    if isinstance(node, ListValueNode):
        return [_given(one) for one in node.values]
    if isinstance(node, StringValueNode | IntValueNode):
        return node.value
    raise TypeError(f"a valid document has no {node.kind} here")


def _argument(given: Given, *, many: bool) -> Argument:
    if isinstance(given, Reference):
        name = given.name
        return (lambda values: values[name]) if many else (lambda values: (values[name],))
    if isinstance(given, list):
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
