"""Whether fields with one name in the response can be one field: graphql-core's verdicts, without comparing each with each.

The specification asks that of every two fields. Here the fields of one name are a group, and each is compared with the group's
first: alike is alike all round. What lies below a group is merged and looked at in turn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import (
    ASTValidationRule,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLNamedType,
    GraphQLOutputType,
    InlineFragmentNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    StringValueNode,
    ValidationContext,
    ValueNode,
    VariableNode,
    get_named_type,
    is_interface_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
    type_from_ast,
)

# a document within the limits on selections never comes near it
MOST_VISITS = 50_000
LONGEST_NAME = 100


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """A field where it is selected. parent, definition: None where the schema has none."""

    node: FieldNode
    parent: GraphQLNamedType | None
    definition: GraphQLField | None


_Sets = list[tuple[SelectionSetNode, GraphQLNamedType | None]]


class FieldsMergeRule(ASTValidationRule):
    """In the place of graphql-core's OverlappingFieldsCanBeMergedRule. visits: selections looked at.

    Two passes over the same merged sets: in `shape`, all fields of a name must return values of one shape; in `same`, those that can
    occur in one object must be the same field with the same arguments.
    """

    context: ValidationContext

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self.visits = 0
        self._arguments: dict[int, object] = {}
        self._met: set[str] = set()
        self._seen: set[tuple[bool, frozenset[tuple[int, int]]]] = set()

    def leave_document(self, document: DocumentNode, *_: Any) -> None:
        for definition in document.definitions:
            if isinstance(definition, OperationDefinitionNode):
                self._check([(definition.selection_set, self.context.schema.get_root_type(definition.operation))])
        for definition in document.definitions:
            if isinstance(definition, FragmentDefinitionNode) and definition.name.value not in self._met:
                self._met.add(definition.name.value)
                self._check([(definition.selection_set, type_from_ast(self.context.schema, definition.type_condition))])

    def _check(self, sets: _Sets) -> None:
        waiting: list[tuple[bool, _Sets]] = [(False, sets), (True, sets)]
        while waiting:
            same, sets = waiting.pop()
            for name, group in self._groups(same, sets).items():
                for fields in _together(group) if same else [group]:
                    reason = self._conflict(fields, same)
                    if reason:
                        self._report(name, reason, fields)
                        return
                    below = [(one.node.selection_set, self._type_below(one)) for one in fields if one.node.selection_set]
                    if below:
                        waiting.append((same, below))
            if self.visits > MOST_VISITS:
                self.report_error(GraphQLError("Too many fields are to be merged; select fewer, or spread fewer fragments."))
                return

    def _groups(self, same: bool, sets: _Sets) -> dict[str, list[_Chosen]]:
        """The fields of merged selection sets by their name in the response; none if these fields have been looked at."""
        chosen = {(id(one.node), id(one.parent)): one for one in self._flat(sets)}
        key = same, frozenset(chosen)
        groups: dict[str, list[_Chosen]] = {}
        if key not in self._seen:
            self._seen.add(key)
            for one in chosen.values():
                name = one.node.alias or one.node.name
                groups.setdefault(name.value, []).append(one)
        return groups

    def _flat(self, sets: _Sets) -> Iterator[_Chosen]:
        spread: set[str] = set()
        waiting = sets[::-1]
        while waiting:
            selection_set, parent = waiting.pop()
            fields = parent.fields if is_object_type(parent) or is_interface_type(parent) else {}
            for node in selection_set.selections:
                self.visits += 1
                if isinstance(node, FieldNode):
                    yield _Chosen(node, parent, fields.get(node.name.value))
                elif isinstance(node, InlineFragmentNode):
                    condition = node.type_condition
                    waiting.append((node.selection_set, type_from_ast(self.context.schema, condition) if condition else parent))
                elif isinstance(node, FragmentSpreadNode) and node.name.value not in spread:
                    spread.add(node.name.value)
                    self._met.add(node.name.value)
                    fragment = self.context.get_fragment(node.name.value)
                    if fragment:
                        waiting.append((fragment.selection_set, type_from_ast(self.context.schema, fragment.type_condition)))

    def _conflict(self, fields: Sequence[_Chosen], same: bool) -> str | None:
        if len(fields) < 2:
            return None
        if any(directive.name.value == "stream" for one in fields for directive in one.node.directives or ()):
            return "they have overlapping stream directives"
        if same:
            return self._difference(fields)
        shapes = {_shape(one.definition.type) for one in fields if one.definition}
        return "they return values of different types" if len(shapes) > 1 else None

    def _difference(self, fields: Sequence[_Chosen]) -> str | None:
        first = fields[0].node
        for one in fields[1:]:
            if one.node.name.value != first.name.value:
                return f"{_short(first.name.value)} and {_short(one.node.name.value)} are different fields"
            if self._arguments_of(one.node) != self._arguments_of(first):
                return "they have different arguments"
        return None

    def _arguments_of(self, node: FieldNode) -> object:
        found = self._arguments.get(id(node))
        if found is None:
            found = self._arguments[id(node)] = sorted(
                (argument.name.value, repr(_value(argument.value))) for argument in node.arguments or ()
            )
        return found

    def _type_below(self, one: _Chosen) -> GraphQLNamedType | None:
        """Of __schema, too, which no type declares."""
        if not (is_object_type(one.parent) or is_interface_type(one.parent)):
            return None
        definition = self.context.schema.get_field(one.parent, one.node.name.value)
        return get_named_type(definition.type) if definition else None

    def _report(self, name: str, reason: str, fields: Sequence[_Chosen]) -> None:
        message = f"Fields {_short(name)} conflict: {reason}. Give one of them an alias if you want both."
        self.report_error(GraphQLError(message, [one.node for one in fields[:2]]))


def _together(group: list[_Chosen]) -> list[list[_Chosen]]:
    """The fields that can occur in one object: those of each object type, each time with those whose parent is none."""
    parents = dict.fromkeys(one.parent for one in group if is_object_type(one.parent))
    if len(parents) < 2:
        return [group]
    return [[one for one in group if one.parent is parent or not is_object_type(one.parent)] for parent in parents]


def _shape(returned: GraphQLOutputType) -> tuple[object, ...]:
    """The lists and non-nulls around a type, and the type if it is a leaf; what composites return is compared field by field."""
    outer: list[object] = []
    inner: Any = returned
    while is_list_type(inner) or is_non_null_type(inner):
        outer.append(type(inner))
        inner = inner.of_type
    return *outer, inner if is_leaf_type(inner) else None


def _value(node: ValueNode) -> object:
    """A value that is equal where the value written is; the order of an object's fields says nothing."""
    if isinstance(node, ListValueNode):
        return [_value(item) for item in node.values]
    if isinstance(node, ObjectValueNode):
        return node.kind, sorted((one.name.value, repr(_value(one.value))) for one in node.fields)
    if isinstance(node, VariableNode):
        return node.kind, node.name.value
    if isinstance(node, StringValueNode):
        return node.kind, node.value, node.block is True
    return node.kind, getattr(node, "value", None)


def _short(name: str) -> str:
    return f"'{name[:LONGEST_NAME]}…'" if len(name) > LONGEST_NAME else f"'{name}'"
