"""What one GraphQL operation reads, and the bytes of its answer with slots for what is read; made by compile.py.

What a plan answers is byte for byte what Strawberry's executor would. It answers plain successes only: variables that are not plainly of
their types, ids that nobody can have, and rows that GraphQL may not show go to the executor, which says what is wrong.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from graphql import GraphQLError

from schema import layout, limits
from schema.limits import Limits, Weight
from schema.loader import Read, Row

# of a GraphQL Int; one of fewer digits cannot be beyond it
LEAST_INT, MOST_INT, DIGITS = -(2**31), 2**31 - 1, 9
NULL = b"null"

Values = Mapping[str, Any]
# the ids or lookup values that a root field asks for, of coerced variables
Argument = Callable[[Values], Sequence[str]]


class Unplain(Exception):
    """A variable's value is for the executor to judge."""


class RootField(NamedTuple):
    """A field of the query type. by: as in Read. many: it takes a list and answers one."""

    by: str
    many: bool


class Variable(NamedTuple):
    """coerce: its value from what the request has, raises Unplain. required: the request must have it. default: what it is else."""

    name: str
    coerce: Callable[[Any], Any]
    required: bool
    default: Any


@dataclass(frozen=True, slots=True)
class Root:
    """A root field as it is selected. fields: of the view, to be read.

    template: the bytes of a row, with a slot for each fragment that is `shown`. ints and present: indices of `fields`, of what may be
    no more than a GraphQL Int, and of what may not be null.
    """

    field: RootField
    argument: Argument
    fields: tuple[str, ...]
    template: bytes
    shown: Callable[[Row], tuple[bytes, ...]]
    ints: tuple[int, ...]
    present: tuple[int, ...]

    def render(self, row: Row | None) -> bytes | None:
        """None if GraphQL may not show it."""
        if row is None:
            return NULL
        for place in self.ints:
            if len(row[place]) > DIGITS and not LEAST_INT <= int(row[place]) <= MOST_INT:
                return None
        for place in self.present:
            if row[place] == NULL:
                return None
        return self.template % self.shown(row)


@dataclass(frozen=True, slots=True)
class Shape:
    """An operation as its directives leave it. template: the bytes of `data`, with a slot for each of `roots`."""

    template: bytes
    roots: tuple[Root, ...]
    # whether that is one row of one root, as most are
    is_one: bool


class Bound:
    """A plan with its variables. reads: none of them twice."""

    __slots__ = ("_counts", "_places", "_shape", "reads")

    def __init__(self, reads: Sequence[Read], shape: Shape, places: Sequence[int], counts: Sequence[int]) -> None:
        self.reads, self._shape = reads, shape
        # of every row that the roots show, where it is in `reads`; and how many each root has
        self._places, self._counts = places, counts

    def explained(self) -> dict[str, Any]:
        """What is read, as JSON has it: how many rows, and of each kind of read how many of them and which fields."""
        kinds = Counter((read.by, read.fields) for read in self.reads)
        reads = [{"by": by, "rows": rows, "fields": list(fields)} for (by, fields), rows in kinds.items()]
        return {"rows": len(self.reads), "reads": reads}

    def render(self, rows: Sequence[Row | None]) -> bytes | None:
        """The bytes of `data`. rows: of `reads`. None if GraphQL may not show one of them."""
        if self._shape.is_one:
            rendered_row = self._shape.roots[0].render(rows[0])
            return None if rendered_row is None else self._shape.template % rendered_row
        at, answers = 0, []
        for root, count in zip(self._shape.roots, self._counts, strict=True):
            rendered = [root.render(rows[place]) for place in self._places[at : at + count]]
            at += count
            if None in rendered:
                return None
            answers.append(b"[%b]" % b",".join(rendered) if root.field.many else rendered[0])  # type: ignore[arg-type]  # there is no None
        return self._shape.template % tuple(answers)


class Plan:
    """One operation of a valid document. weight and allowed: what its variables may add.

    switches: the variables on which its directives hang. shape: how their values leave it, None where it has a field that no plan answers.
    """

    def __init__(
        self,
        variables: Sequence[Variable],
        switches: Sequence[str],
        shape: Callable[..., Shape | None],
        key_type: type,
        weight: Weight,
        allowed: Limits,
    ) -> None:
        self._variables, self._switches, self._key_type = variables, switches, key_type
        self._weight, self._allowed = weight, allowed
        self._shape = shape

    def bind(self, variables: Values) -> Bound | None:
        """variables: as they came. None: the executor has to look at them."""
        try:
            limits.check_variables(self._weight, variables, self._allowed)
            values = self._coerced(variables)
            shape = self._shape(*[values[name] for name in self._switches])
            if shape is None:
                return None
            if shape.is_one:
                return Bound([self._read(shape.roots[0], *shape.roots[0].argument(values))], shape, (0,), (1,))
            asked = [[self._read(root, text) for text in root.argument(values)] for root in shape.roots]
        except (GraphQLError, Unplain, KeyError, layout.InvalidKey):
            return None
        counts = [len(of_root) for of_root in asked]
        reads = [read for of_root in asked for read in of_root]
        if len(counts) == 1 and len({read.value for read in reads}) == len(reads):
            return Bound(reads, shape, range(len(reads)), counts)
        places = {read: place for place, read in enumerate(dict.fromkeys(reads))}
        return Bound(list(places), shape, [places[read] for read in reads], counts)

    def _coerced(self, variables: Values) -> Values:
        """Those that have a value. Raises Unplain."""
        values = {}
        for name, coerce, required, default in self._variables:
            if name in variables:
                values[name] = coerce(variables[name])
            elif required:
                raise Unplain
            elif default is not None:
                values[name] = default
        return values

    def _read(self, root: Root, text: str) -> Read:
        by = root.field.by
        return Read(by, layout.canonical(self._key_type, text) if by == "id" else text, root.fields)
