"""A document on its way to be executed: parsed, weighed, validated; then weighed again with its variables.

What was parsed is never kept: a thousand documents of an attacker's would be millions of objects, and Python would stop for a second each
time that it looks through them. Of a text is remembered whether it may be executed, and what is wrong with it.
"""

import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    Source,
    parse,
    validate,
)
from graphql.language import SourceLocation
from strawberry.extensions import SchemaExtension

from schema import limits
from schema.limits import Limits, Weight
from schema.rules import rules_for
from schema.weighing import weigh

# each may have to look for its place in all of the text
MOST_ERRORS = 10
NEWLINE = re.compile(r"\r\n|[\n\r]")
_T = TypeVar("_T")
TOKENS = "Syntax Error: Document contains more than"


@dataclass(frozen=True, slots=True)
class Document:
    """A text that may be executed. weights: of each operation, by its definition."""

    parsed: DocumentNode
    weights: tuple[Weight, ...]

    def weight(self, operation_name: str | None) -> Weight | None:
        """Of the operation that is to be executed; None if there is no such one."""
        operations = (node for node in self.parsed.definitions if isinstance(node, OperationDefinitionNode))
        pairs = zip(operations, self.weights, strict=True)
        wanted = (weight for node, weight in pairs if not operation_name or (node.name and node.name.value == operation_name))
        return next(wanted, None)


class Refused(Exception):
    """A text must not be executed. errors: why, at least one."""

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__(errors)
        self.errors = errors


class Documents:
    """Documents of one schema; whether they may be executed is known of those asked for last."""

    def __init__(self, schema: GraphQLSchema, allowed: Limits = limits.DEFAULT) -> None:
        self._schema, self._allowed = schema, allowed
        self._valid: OrderedDict[str, None] = OrderedDict()
        self._refused: OrderedDict[str, Sequence[GraphQLError]] = OrderedDict()

    def read(self, text: str) -> Document:
        """Raises Refused. Of a text that is not known it may take ten milliseconds. Any thread may call it."""
        if refused := self._refused.get(text):
            raise Refused([error.with_traceback(None) for error in refused])
        try:
            parsed = self._parse(text)
            document = Document(parsed, tuple(weigh(parsed, self._allowed)))
            errors = [] if text in self._valid else self._validated(parsed, text)
        except GraphQLError as error:
            errors = [error]
        if errors:
            _remember(self._refused, text, [_bare(error, text) for error in errors], limits.CACHED_REFUSALS)
            raise Refused(errors)
        _remember(self._valid, text, None, limits.CACHED_DOCUMENTS)
        return document

    def knows(self, text: str) -> bool:
        """Whether it is known of a text if it may be executed; then `read` costs its parsing at most."""
        return text in self._valid or text in self._refused

    def errors(self, text: str) -> Sequence[GraphQLError]:
        """Why a text must not be executed, whatever its variables."""
        try:
            self.read(text)
        except Refused as refused:
            return refused.errors
        return ()

    def check(self, document: Document, operation_name: str | None, variables: Mapping[str, object]) -> None:
        """variables: as the client sent them. Raises OPERATION_RESOLUTION_FAILURE, TOO_MANY_IDS, TOO_MANY_READS."""
        if not operation_name and len(document.weights) > 1:
            # Strawberry would take the first
            raise limits.refused("OPERATION_RESOLUTION_FAILURE", "The document has several operations: say by operationName which.")
        weight = document.weight(operation_name)
        if weight is not None:
            limits.check_variables(weight, variables, self._allowed)

    def _validated(self, parsed: DocumentNode, text: str) -> list[GraphQLError]:
        return validate(self._schema, parsed, rules_for(text), MOST_ERRORS, hide_suggestions=not self._allowed.suggestions)

    def _parse(self, text: str) -> DocumentNode:
        most = self._allowed.tokens
        try:
            parsed = parse(Lines(text), max_tokens=most)
            _unlink(parsed)
            return parsed
        except GraphQLSyntaxError as error:
            if not error.message.startswith(TOKENS):
                raise
        raise limits.refused("TOO_MANY_TOKENS", f"The document has more than {most} tokens; ask for less, or in several requests.")


class Lines(Source):
    """A text that finds the line of a place without reading all lines before it; errors ask for many places."""

    def __init__(self, body: str) -> None:
        super().__init__(body)
        self._starts: list[int] | None = None

    def get_location(self, position: int) -> SourceLocation:
        if self._starts is None:
            self._starts = [found.end() for found in NEWLINE.finditer(self.body)]
        line = bisect_right(self._starts, position)
        return SourceLocation(line + 1, position + 1 - (self._starts[line - 1] if line else 0))


class Checked(SchemaExtension):
    """Has Strawberry execute what was read: its context's `document`."""

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        context.graphql_document = context.context.document.parsed
        yield

    def on_validate(self) -> Iterator[None]:
        self.execution_context.pre_execution_errors = []
        yield


def _remember(known: OrderedDict[str, _T], text: str, what: _T, most: int) -> None:
    known[text] = what
    if len(known) > most:
        known.popitem(last=False)


def _unlink(document: DocumentNode) -> None:
    """Let no token know the one before it: then nothing of a document is in a circle, and it goes as soon as nobody needs it."""
    token = document.loc.start_token if document.loc else None
    while token:
        token.prev = None
        token = token.next


def _bare(error: GraphQLError, text: str) -> GraphQLError:
    """The same without the nodes that it is about."""
    if not error.nodes:
        return error.with_traceback(None)
    return GraphQLError(error.message, source=Lines(text), positions=error.positions, extensions=error.extensions)
