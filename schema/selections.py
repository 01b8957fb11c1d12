"""What an operation selects, without its fragments: fields in their order, each with what must be so for it to be selected.

Of valid documents over one view, where every fragment is on the type that it is spread in. Nothing of the parsed document is in it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from graphql import (
    BooleanValueNode,
    DirectiveNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    SelectionSetNode,
    StringValueNode,
    ValueNode,
    VariableNode,
)

from schema.plain import Chosen, Given, Reference

# variables, and what each has to be
When = tuple[tuple[str, bool], ...]


class Field(NamedTuple):
    """key: its name in the response. given: its only argument, if it is asked for. below: what is selected of what it returns."""

    key: str
    name: str
    when: When
    given: Given
    below: tuple["Field", ...]


def selected(
    chosen: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode], roots: Collection[str] = (), when: When = ()
) -> Sequence[Field]:
    """roots: names of the fields below which is looked. when: what must be so for all of them."""
    found: dict[Field, None] = {}
    for node in chosen.selections:
        own = _when(node.directives)
        if own is None:
            continue
        if isinstance(node, FieldNode):
            found[_field(node, fragments, roots, when + own)] = None
        elif isinstance(node, FragmentSpreadNode | InlineFragmentNode):
            inner = node if isinstance(node, InlineFragmentNode) else fragments[node.name.value]
            found |= dict.fromkeys(selected(inner.selection_set, fragments, roots, when + own))
    # one that is selected in the same way again adds nothing
    return [*found]


def _field(node: FieldNode, fragments: Mapping[str, FragmentDefinitionNode], roots: Collection[str], when: When) -> Field:
    key, name = (node.alias or node.name).value, node.name.value
    if name not in roots or not node.arguments or not node.selection_set:
        return Field(key, name, when, "", ())
    return Field(key, name, when, _given(node.arguments[0].value), tuple(selected(node.selection_set, fragments)))


def switches(selected: Sequence[Field]) -> set[str]:
    """The variables on which it depends what is selected."""
    return {name for one in selected for name, _ in one.when} | {name for one in selected for name in switches(one.below)}


def merged(selected: Sequence[Field], values: Mapping[str, bool]) -> list[Chosen]:
    """values: of the switches. Fields of one name in the response are one, at the place of the first."""
    found: dict[str, list[Field]] = {}
    for one in selected:
        if _holds(one, values):
            found.setdefault(one.key, []).append(one)
    chosen = []
    for key, same in found.items():
        below = {leaf.key: leaf.name for one in same for leaf in one.below if _holds(leaf, values)}
        chosen.append(Chosen(key, same[0].name, same[0].given, below))
    return chosen


def _holds(one: Field, values: Mapping[str, bool]) -> bool:
    return all(values[name] is wanted for name, wanted in one.when)


def _when(directives: Sequence[DirectiveNode] | None) -> When | None:
    """None: never."""
    when = []
    for directive in directives or ():
        value, wanted = directive.arguments[0].value if directive.arguments else None, directive.name.value == "include"
        if isinstance(value, VariableNode):
            when.append((value.name.value, wanted))
        elif isinstance(value, BooleanValueNode) and value.value is not wanted:
            return None
    return tuple(when)


def _given(node: ValueNode) -> Given:
    if isinstance(node, VariableNode):
        return Reference(node.name.value)
    if isinstance(node, ListValueNode):
        return tuple([_given(one) for one in node.values])
    if isinstance(node, StringValueNode | IntValueNode):
        return node.value
    raise TypeError(f"a valid document has no {node.kind} here")
