"""What a document may cost: counted before it is validated, and again with its variables before anything is read.

Refusals are GraphQL errors with a stable code. Whether a document fits the schema is not asked here (schema/documents.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

from graphql import GraphQLError

LONGEST_LIST = 100
MOST_ROWS = 1_000
MOST_TOKENS = 500
# each may be answered with all of the schema, which no plan does
MOST_INTROSPECTIONS = 4
# of what clients ask for, by their names and by none
CACHED_PLANS = 2_048
CACHED_DOCUMENTS = 1_024
# of documents that are refused, the errors
CACHED_REFUSALS = 128


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask. docs/security.md says what each stops.

    tokens: lexical tokens and comments of a document. depth: fields within fields. aliases, root_fields, directives: in one operation;
    selections: fields and fragments in all operations; a fragment counts wherever it is spread. ids: items of one list.
    rows: read by one operation, skipped and repeated ones included. suggestions: whether errors guess what was meant.
    """

    tokens: int = MOST_TOKENS
    depth: int = 15
    aliases: int = 30
    root_fields: int = 20
    directives: int = 50
    selections: int = 1_000
    ids: int = LONGEST_LIST
    rows: int = MOST_ROWS
    introspection: bool = True
    suggestions: bool = False


DEFAULT = Limits()


@dataclass(frozen=True, slots=True)
class Weight:
    """What one operation costs, its fragments included.

    rows: how many are read whatever the variables. lists: variable → how often its length adds to that. defaults: their lengths
    where the client sends none. introspections: fields that answer with the whole schema.
    """

    depth: int = 0
    aliases: int = 0
    root_fields: int = 0
    directives: int = 0
    selections: int = 0
    rows: int = 0
    introspections: int = 0
    _: KW_ONLY
    lists: Mapping[str, int] = field(default_factory=dict)
    defaults: Mapping[str, int] = field(default_factory=dict)


def refused(code: str, message: str) -> GraphQLError:
    """The error of a request that is refused. code: for the client's program; message: for its author."""
    return GraphQLError(message, extensions={"code": code})


def check_list(ids: Sequence[object], longest: int = LONGEST_LIST) -> None:
    """Raises TOO_MANY_IDS."""
    if len(ids) > longest:
        raise refused("TOO_MANY_IDS", f"{len(ids)} ids were asked for in one list; ask for at most {longest} at once.")


def check_rows(asked: int, most: int = MOST_ROWS) -> None:
    """asked: rows that a request reads in all its fields, repetitions included. Raises TOO_MANY_READS."""
    if asked > most:
        raise refused("TOO_MANY_READS", f"The request reads {asked} rows; a request may read at most {most}. Ask in several requests.")


def check_weights(weights: Iterable[Weight], limits: Limits) -> None:
    """Of each operation of a document. Raises the error of the first limit that is passed."""
    selections = 0
    for weight in weights:
        selections += weight.selections
        for error in _passed(weight, limits):
            raise error
        check_rows(weight.rows, limits.rows)
    if selections > limits.selections:
        raise refused(
            "TOO_MANY_SELECTIONS",
            f"The document selects {selections} fields and fragments, each fragment wherever it is spread;"
            f" at most {limits.selections} may be. Ask in several requests.",
        )


def check_variables(weight: Weight, variables: Mapping[str, object], limits: Limits) -> None:
    """variables: as the client sent them, not coerced yet. Raises TOO_MANY_IDS, TOO_MANY_READS."""
    for value in variables.values():
        if isinstance(value, list):
            check_list(value, limits.ids)
    # without them, it is what the document was let in with
    if weight.lists:
        check_rows(weight.rows + sum(times * _size(name, weight, variables) for name, times in weight.lists.items()), limits.rows)


def _size(name: str, weight: Weight, variables: Mapping[str, object]) -> int:
    if name not in variables:
        return weight.defaults.get(name, 1)
    value = variables[name]
    return len(value) if isinstance(value, list) else 1


def _passed(weight: Weight, limits: Limits) -> Iterator[GraphQLError]:
    if weight.depth > limits.depth:
        yield refused("TOO_DEEP", f"The operation is {weight.depth} fields deep; at most {limits.depth} are allowed. Nest fewer.")
    if weight.aliases > limits.aliases:
        message = (
            f"The operation has {weight.aliases} aliases; at most {limits.aliases} are allowed. Ask in several requests, or by a list."
        )
        yield refused("TOO_MANY_ALIASES", message)
    if weight.root_fields > limits.root_fields:
        message = f"The operation has {weight.root_fields} root fields; at most {limits.root_fields} are allowed."
        yield refused("TOO_MANY_ROOT_FIELDS", f"{message} Ask in several requests, or by a list.")
    if weight.introspections > MOST_INTROSPECTIONS:
        message = f"The operation asks {weight.introspections} times for __schema or __type; at most {MOST_INTROSPECTIONS} are allowed."
        yield refused("TOO_MANY_ROOT_FIELDS", f"{message} Ask in several requests.")
    if weight.directives > limits.directives:
        message = f"The operation has {weight.directives} directives; at most {limits.directives} are allowed. Leave out fields instead."
        yield refused("TOO_MANY_DIRECTIVES", message)
