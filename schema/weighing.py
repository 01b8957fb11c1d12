"""How much the operations of a parsed document cost: one walk over its nodes, each fragment weighed once. Knows no schema."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from graphql import (
    DirectiveNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    ListValueNode,
    Node,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
)

from schema import limits
from schema.limits import Limits, Weight

# a fragment spread twice by one that is spread twice … outgrows any memory; more than this is as bad as this
MOST = 10**9
INTROSPECTION = frozenset({"__schema", "__type"})


@dataclass(slots=True)
class _Own:
    """What a definition has without its fragments. spreads: which, how many fields lie above, and whether it adds root fields."""

    depth: int = 0
    aliases: int = 0
    root_fields: int = 0
    directives: int = 0
    selections: int = 0
    rows: int = 0
    introspections: int = 0
    lists: dict[str, int] = field(default_factory=dict)
    defaults: dict[str, int] = field(default_factory=dict)
    spreads: list[tuple[str, int, bool]] = field(default_factory=list)


class Weighing:
    """The weight of each operation, in the document's order, and of the fragments that none spreads. visits: nodes looked at.

    Raises INTROSPECTION_OFF, and TOO_MANY_IDS for a list in the document.
    """

    def __init__(self, document: DocumentNode, allowed: Limits) -> None:
        self._allowed = allowed
        self.visits = 0
        operations = [self._own(node) for node in document.definitions if isinstance(node, OperationDefinitionNode)]
        fragments = [node for node in document.definitions if isinstance(node, FragmentDefinitionNode)]
        owns = {node.name.value: self._own(node) for node in fragments}
        weights: dict[str, Weight] = {}
        for name in _inner_first(owns):
            weights[name] = _sum(owns[name], weights)
        self.operations = [_sum(own, weights) for own in operations]
        spread = {name for own in (*operations, *owns.values()) for name, _, _ in own.spreads}
        # validation walks them too, before it says that nobody uses them
        self.unused = [Weight(selections=weight.selections) for name, weight in weights.items() if name not in spread]

    def _own(self, node: OperationDefinitionNode | FragmentDefinitionNode) -> _Own:
        own = _Own()
        for variable in getattr(node, "variable_definitions", None) or ():
            self._count_directives(own, variable.directives)
            if variable.default_value:
                own.defaults[variable.variable.name.value] = self._check_lists(variable.default_value)
        self._count_directives(own, node.directives)
        waiting = [(node.selection_set, 0, True)]
        while waiting:
            self._count(own, *waiting.pop(), waiting)
        return own

    def _count(
        self, own: _Own, chosen: SelectionSetNode, above: int, root: bool, waiting: list[tuple[SelectionSetNode, int, bool]]
    ) -> None:
        for node in chosen.selections:
            self.visits += 1
            own.selections += 1
            self._count_directives(own, node.directives)
            if isinstance(node, FragmentSpreadNode):
                own.spreads.append((node.name.value, above, root))
            elif isinstance(node, InlineFragmentNode):
                waiting.append((node.selection_set, above, root))
            elif isinstance(node, FieldNode):
                self._count_field(own, node, above, root)
                if node.selection_set:
                    waiting.append((node.selection_set, above + 1, False))

    def _count_field(self, own: _Own, node: FieldNode, above: int, root: bool) -> None:
        if node.name.value in INTROSPECTION and not self._allowed.introspection:
            raise limits.refused("INTROSPECTION_OFF", "This gateway tells nothing of its schema; ask its owner for the schema file.")
        own.depth = max(own.depth, above + 1)
        own.aliases += node.alias is not None
        own.root_fields += root
        sizes = [self._check_lists(argument.value) for argument in node.arguments or ()]
        own.introspections += root and node.name.value in INTROSPECTION
        if not root or node.name.value.startswith("__"):
            return
        variables = [argument.value.name.value for argument in node.arguments or () if isinstance(argument.value, VariableNode)]
        if variables and sizes == [1]:
            own.lists[variables[0]] = own.lists.get(variables[0], 0) + 1
        else:
            own.rows += max(sizes, default=1)

    def _count_directives(self, own: _Own, directives: Iterable[DirectiveNode] | None) -> None:
        for directive in directives or ():
            self.visits += 1
            own.directives += 1
            for argument in directive.arguments or ():
                self._check_lists(argument.value)

    def _check_lists(self, value: ValueNode) -> int:
        """The length of a list, 1 of any other value. Raises TOO_MANY_IDS, for one within it too."""
        waiting: list[Node] = [value]
        while waiting:
            node = waiting.pop()
            self.visits += 1
            if isinstance(node, ListValueNode):
                limits.check_list(node.values, self._allowed.ids)
                waiting.extend(node.values)
            elif isinstance(node, ObjectValueNode):
                waiting.extend(one.value for one in node.fields)
        return len(value.values) if isinstance(value, ListValueNode) else 1


def weigh(document: DocumentNode, allowed: Limits) -> list[Weight]:
    """The weight of each operation, in the document's order. Raises the error of the first limit that is passed."""
    weighed = Weighing(document, allowed)
    limits.check_weights([*weighed.operations, *weighed.unused], allowed)
    return weighed.operations


def _sum(own: _Own, weights: dict[str, Weight]) -> Weight:
    """A definition with its fragments. One that is not weighed yet closes a cycle, which validation refuses: it counts as nothing."""
    lists = dict(own.lists)
    depth, aliases, root_fields = own.depth, own.aliases, own.root_fields
    directives, selections, rows, introspections = own.directives, own.selections, own.rows, own.introspections
    for name, above, root in own.spreads:
        inner = weights.get(name, Weight())
        depth = max(depth, above + inner.depth)
        aliases, directives, selections = aliases + inner.aliases, directives + inner.directives, selections + inner.selections
        if root:
            root_fields, rows = root_fields + inner.root_fields, rows + inner.rows
            introspections += inner.introspections
            for variable, times in inner.lists.items():
                lists[variable] = min(MOST, lists.get(variable, 0) + times)
    counts = [min(MOST, count) for count in (depth, aliases, root_fields, directives, selections, rows, introspections)]
    return Weight(*counts, lists=lists, defaults=own.defaults)


def _inner_first(owns: dict[str, _Own]) -> Iterator[str]:
    """Each fragment once, after those that it spreads; without recursion, as a chain of them may be as long as the document."""
    met: set[str] = set()
    for first, own in owns.items():
        waiting = [(first, iter(own.spreads))] if first not in met else []
        met.add(first)
        while waiting:
            name, spreads = waiting[-1]
            inner = next((inner for inner, _, _ in spreads if inner in owns and inner not in met), None)
            if inner is None:
                waiting.pop()
                yield name
            else:
                met.add(inner)
                waiting.append((inner, iter(owns[inner].spreads)))
