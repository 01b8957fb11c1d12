"""A document on its way to be executed: parsed, weighed, validated, each once per text; then weighed again with its variables."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

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
TOKENS = "Syntax Error: Document contains more than"


@dataclass(frozen=True, slots=True)
class Document:
    """What is known of a text. errors: why it must not be executed. weights: of each operation, by its definition."""

    parsed: DocumentNode
    errors: tuple[GraphQLError, ...] = ()
    weights: tuple[Weight, ...] = ()

    def weight(self, operation_name: str | None) -> Weight | None:
        """Of the operation that is to be executed; None if there is no such one, or none may be."""
        operations = (node for node in self.parsed.definitions if isinstance(node, OperationDefinitionNode))
        pairs = zip(operations, self.weights, strict=not self.errors)
        wanted = (weight for node, weight in pairs if not operation_name or (node.name and node.name.value == operation_name))
        return next(wanted, None)


class Documents:
    """Documents of one schema, the newest of them kept."""

    def __init__(self, schema: GraphQLSchema, allowed: Limits = limits.DEFAULT) -> None:
        self._schema, self._allowed = schema, allowed
        self.read = lru_cache(limits.CACHED_DOCUMENTS)(self._read)

    def _read(self, text: str) -> Document:
        """Raises GraphQLSyntaxError, and a GraphQLError with the code TOO_MANY_TOKENS."""
        parsed = self._parse(text)
        try:
            weights = weigh(parsed, self._allowed)
        except GraphQLError as error:
            return Document(parsed, (error.with_traceback(None),))
        errors = validate(self._schema, parsed, rules_for(text), MOST_ERRORS, hide_suggestions=not self._allowed.suggestions)
        return Document(parsed, tuple(errors), () if errors else tuple(weights))

    def errors(self, text: str) -> Sequence[GraphQLError]:
        """Why a text must not be executed, whatever its variables."""
        try:
            return self.read(text).errors
        except GraphQLError as error:
            return (error,)

    def check(self, document: Document, operation_name: str | None, variables: Mapping[str, object]) -> None:
        """variables: as the client sent them. Raises OPERATION_RESOLUTION_FAILURE, TOO_MANY_IDS, TOO_MANY_READS."""
        if not operation_name and len(document.weights) > 1:
            # Strawberry would take the first
            raise limits.refused("OPERATION_RESOLUTION_FAILURE", "The document has several operations: say by operationName which.")
        weight = document.weight(operation_name)
        if weight is not None:
            limits.check_variables(weight, variables, self._allowed)

    def _parse(self, text: str) -> DocumentNode:
        most = self._allowed.tokens
        try:
            return parse(Lines(text), max_tokens=most)
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
    """Puts Documents in the place of Strawberry's own parsing and validation."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._document: Document | None = None

    def on_parse(self) -> Iterator[None]:
        context = self.execution_context
        if context.query:
            self._document = self._documents.read(context.query)
            context.graphql_document = self._document.parsed
        yield

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        if self._document is not None:
            context.pre_execution_errors = [*self._document.errors]
            if not self._document.errors:
                try:
                    self._documents.check(self._document, context._provided_operation_name, context.variables or {})
                except GraphQLError as error:
                    context.pre_execution_errors = [error]
        yield
