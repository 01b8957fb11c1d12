"""What one GraphQL operation reads, and the bytes of its answer with slots for what is read; made by compile.py.

What a plan answers is byte for byte what Strawberry's executor would. It answers plain successes only: variables that are not plainly of
their types, ids that nobody can have, and rows that GraphQL may not show go to the executor, which says what is wrong.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from graphql import GraphQLError

from schema import layout, limits
from schema.limits import Limits, Weight
from schema.loader import Read, Row

# of one plan: each @skip and @include that hangs on a variable doubles how many there are
CACHED_SHAPES = 8
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

    template: the bytes of a row, with a slot for each of `places`, which are indices of `fields`. ints and present: of these, what may be
    no more than a GraphQL Int, and what may not be null.
    """

    field: RootField
    argument: Argument
    fields: tuple[str, ...]
    template: bytes
    places: tuple[int, ...]
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
        return self.template % tuple([row[place] for place in self.places])


@dataclass(frozen=True, slots=True)
class Shape:
    """An operation as its directives leave it. template: the bytes of `data`, with a slot for each of `roots`."""

    template: bytes
    roots: tuple[Root, ...]


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
        at, answers = 0, []
        for root, count in zip(self._shape.roots, self._counts, strict=True):
            rendered = [root.render(rows[place]) for place in self._places[at : at + count]]
            at += count
            shown = [one for one in rendered if one is not None]
            if len(shown) < count:
                return None
            answers.append(b"[%b]" % b",".join(shown) if root.field.many else shown[0])
        return self._shape.template % tuple(answers)


class Plan:
    """One operation of a valid document. weight and allowed: what its variables may add.

    switches: the variables on which its directives hang. shape: how they leave it, None where it has a field that no plan answers.
    """

    def __init__(
        self,
        variables: Sequence[Variable],
        switches: Sequence[str],
        shape: Callable[[Mapping[str, bool]], Shape | None],
        key_type: type,
        weight: Weight,
        allowed: Limits,
    ) -> None:
        self._variables, self._switches, self._key_type = variables, switches, key_type
        self._weight, self._allowed = weight, allowed
        self._shape = lru_cache(CACHED_SHAPES)(lambda values: shape(dict(zip(switches, values, strict=True))))

    def bind(self, variables: Values) -> Bound | None:
        """variables: as they came. None: the executor has to look at them."""
        try:
            limits.check_variables(self._weight, variables, self._allowed)
            values = dict(self._coerced(variables))
            shape = self._shape(tuple([values[name] for name in self._switches]))
            if shape is None:
                return None
            asked = [root.argument(values) for root in shape.roots]
            reads = [self._read(root, text) for root, texts in zip(shape.roots, asked, strict=True) for text in texts]
        except (GraphQLError, Unplain, KeyError, layout.InvalidKey):
            return None
        counts = [len(texts) for texts in asked]
        if len(reads) == 1:
            return Bound(reads, shape, (0,), counts)
        places = {read: place for place, read in enumerate(dict.fromkeys(reads))}
        return Bound(list(places), shape, [places[read] for read in reads], counts)

    def _coerced(self, variables: Values) -> Iterator[tuple[str, Any]]:
        """Those that have a value. Raises Unplain."""
        for name, coerce, required, default in self._variables:
            if name in variables:
                yield name, coerce(variables[name])
            elif required:
                raise Unplain
            elif default is not None:
                yield name, default

    def _read(self, root: Root, text: str) -> Read:
        return Read(root.field.by, layout.canonical(self._key_type, text) if root.field.by == "id" else text, root.fields)
