"""Whether a document is plainly valid: what most clients send need not be looked at by each of graphql-core's rules.

It says yes only where they would find nothing. It does not know fragments, directives, defaults of variables and fields selected twice:
of what has those, and of all that is wrong, it says no, and the rules say what is what.
"""

from collections.abc import Mapping
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLSchema,
    IntValueNode,
    ListTypeNode,
    ListValueNode,
    NamedTypeNode,
    NonNullTypeNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    StringValueNode,
    TypeNode,
    VariableNode,
    get_named_type,
    is_leaf_type,
    is_object_type,
)

TYPENAME = "__typename"
# by the type of an argument, as it is written: what fits it beside a variable of that type
LITERALS: Mapping[str, tuple[type, ...]] = {"ID!": (StringValueNode, IntValueNode), "String!": (StringValueNode,)}
ITEMS = {"[ID!]!": "ID!"}


class Plain:
    """Of one schema's queries: fields of one argument, and below them fields that are leaves and have none."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._roots: dict[str, tuple[str, str, frozenset[str]]] = {}
        for name, root in schema.query_type.fields.items() if schema.query_type else ():
            row: Any = get_named_type(root.type)
            types = {argument: str(declared.type) for argument, declared in root.args.items()}
            if is_object_type(row) and len(types) == 1 and set(types.values()) <= LITERALS.keys() | ITEMS.keys():
                leaves = [leaf for leaf, field in row.fields.items() if is_leaf_type(get_named_type(field.type)) and not field.args]
                self._roots[name] = *types.popitem(), frozenset([TYPENAME, *leaves])

    def is_valid(self, document: DocumentNode) -> bool:
        operation = document.definitions[0]
        if len(document.definitions) > 1 or not isinstance(operation, OperationDefinitionNode):
            return False
        if operation.operation is not OperationType.QUERY or operation.directives:
            return False
        declared: dict[str, str] = {}
        for variable in operation.variable_definitions or ():
            if variable.default_value is not None or variable.directives or variable.variable.name.value in declared:
                return False
            declared[variable.variable.name.value] = _written(variable.type)
        used: set[str] = set()
        roots = _fields(operation.selection_set)
        if roots is None or not all(self._is_root(node, declared, used) for node in roots):
            return False
        return len(used) == len(declared)

    def _is_root(self, node: FieldNode, declared: Mapping[str, str], used: set[str]) -> bool:
        """used: gets the variables that it has."""
        if node.name.value == TYPENAME:
            return _is_leaf(node)
        if node.name.value not in self._roots or node.selection_set is None or len(node.arguments or ()) != 1:
            return False
        argument, type_, leaves = self._roots[node.name.value]
        (given,) = node.arguments or ()
        if given.name.value != argument or not _fits(given.value, type_, declared, used):
            return False
        fields = _fields(node.selection_set)
        return fields is not None and all(one.name.value in leaves and _is_leaf(one) for one in fields)


def _fields(chosen: SelectionSetNode) -> list[FieldNode] | None:
    """None where something else is among them, or a name in the response is there twice."""
    fields = [node for node in chosen.selections if isinstance(node, FieldNode) and not node.directives]
    names = {(node.alias or node.name).value for node in fields}
    return fields if len(names) == len(chosen.selections) else None


def _is_leaf(node: FieldNode) -> bool:
    return not node.arguments and node.selection_set is None


def _fits(value: object, type_: str, declared: Mapping[str, str], used: set[str]) -> bool:
    if isinstance(value, VariableNode):
        used.add(value.name.value)
        return declared.get(value.name.value) == type_
    if type_ in ITEMS:
        return isinstance(value, ListValueNode) and all(_fits(one, ITEMS[type_], declared, used) for one in value.values)
    return isinstance(value, LITERALS[type_])


def _written(node: TypeNode) -> str:
    if isinstance(node, NonNullTypeNode):
        return f"{_written(node.type)}!"
    if isinstance(node, ListTypeNode):
        return f"[{_written(node.type)}]"
    return node.name.value if isinstance(node, NamedTypeNode) else ""
