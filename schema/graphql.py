"""The GraphQL types and queries of a view, made from its definition. They read through a Loader, once per request."""

import asyncio
import operator
import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, NewType

import msgspec
import strawberry
from graphql import GraphQLError, GraphQLObjectType, get_named_type
from graphql.execution.collect_fields import FieldDetails, FragmentDetails, collect_subfields
from graphql.execution.values import VariableValues
from strawberry.dataloader import DataLoader
from strawberry.schema.config import StrawberryConfig
from strawberry.types.execution import ExecutionContext, ExecutionResult, PreExecutionError
from strawberry.types.field import StrawberryField
from strawberry.types.scalar import ScalarDefinition

from schema import layout, limits
from schema.compile import Compiler, Plans, UnlearntError
from schema.definition import Definition, Field
from schema.documents import Checked, Document, Documents, Refused
from schema.fields import Count
from schema.limits import Limits
from schema.loader import Loader, LoadError, Read, Row, Rows, load_after
from schema.pacing import PacedThread
from schema.plan import RootField
from schema.positions import Token

BigInt = NewType("BigInt", int)
SCALARS: dict[object, ScalarDefinition] = {
    BigInt: strawberry.scalar(name="BigInt", description="A whole number of up to 64 bits, as a JSON integer."),
    datetime: strawberry.scalar(name="DateTime", description="A moment in UTC, as RFC 3339 writes it: 2024-02-29T12:00:00Z."),
}

Values = Mapping[str, object]


class Reading:
    """What one request reads; the context value of its execution.

    All its fields are answered by one load. after: writes that the answer must have. rows: the loader's answer; None until there is one.
    """

    def __init__(self, loader: Loader, after: Sequence[Token] = ()) -> None:
        self._loader, self._after = loader, after
        # only the executor reads piece by piece
        self._reads: DataLoader[Read, Row | None] | None = None
        self._known: tuple[Sequence[Read], Rows | Exception] | None = None
        self.rows: Rows | None = None
        # what is executed, where no plan answers
        self.document: Document | None = None

    async def load(self, reads: Sequence[Read]) -> Rows:
        """Asked the same once more, it says the same and reads nothing. Raises what the loader raises."""
        if self._known is None or self._known[0] != reads:
            self._known = reads, await self._loaded(reads)
        rows = self._known[1]
        if isinstance(rows, Exception):
            raise rows
        self.rows = rows
        return rows

    async def _loaded(self, reads: Sequence[Read]) -> Rows | Exception:
        try:
            return await (load_after(self._loader, reads, self._after) if self._after else self._loader.load(reads))
        except Exception as error:  # noqa: BLE001 - raised by `load`, as often as it is asked
            return error

    def read(self, read: Read) -> Awaitable[Row | None]:
        """Raises, when awaited, a GraphQLError with the code of the LoadError."""
        self._reads = self._reads or DataLoader(self._load)
        return self._reads.load(read)

    async def _load(self, reads: list[Read]) -> Sequence[Row | None]:
        try:
            return (await self.load(reads)).rows
        except LoadError as error:
            raise limits.refused(error.code, str(error)) from error


_Info = strawberry.Info[Reading, None]


class ViewSchema(strawberry.Schema):
    """Strawberry's schema, silent: who serves it decides what of an error is logged and what is told. plans: of its operations."""

    plans: Plans
    documents: Documents

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # who sends one new document after another keeps others with new ones waiting, and nobody else
        self._apart = PacedThread()

    async def planned(
        self, text: str, variables: Mapping[str, Any], reading: Reading, operation: str | None = None
    ) -> ExecutionResult | None:
        """The operation's answer by its plan; `data` is a msgspec.Raw. None: execute it, with the same Reading, which has what it read."""
        try:
            plan = self.plans.known(text, operation)
        except UnlearntError:
            plans = await self._apart.run(partial(self.plans.learn, text))
            self.plans.remember(text, plans)
            plan = plans.get(operation)
        bound = plan.bind(variables) if plan else None
        if bound is None:
            return None
        try:
            rows = (await reading.load(bound.reads)).rows if bound.reads else ()
        except Exception:  # noqa: BLE001 - the executor meets it again, and puts it into GraphQL's words
            return None
        data = bound.render(rows)
        # only who encodes it looks into it
        return None if data is None else ExecutionResult(msgspec.Raw(data), None)  # type: ignore[arg-type]

    async def executed(self, text: str, variables: Mapping[str, Any], reading: Reading, operation: str | None = None) -> ExecutionResult:
        """The operation's answer by Strawberry's executor. Raises CannotGetOperationTypeError where there is no such operation."""
        try:
            read = partial(self.documents.read, text)
            reading.document = read() if self.documents.knows(text) else await self._apart.run(read)
            self.documents.check(reading.document, operation, variables)
        except Refused as refused:
            return PreExecutionError(None, [*refused.errors])
        except GraphQLError as error:
            return PreExecutionError(None, [error])
        weight = reading.document.weight(operation)
        if weight and weight.introspections and not weight.rows and not weight.lists:
            # it asks nobody, and may tell all of the schema
            return await self._apart.run(partial(self.execute_sync, text, dict(variables), reading, operation_name=operation))
        return await self.execute(text, dict(variables), reading, operation_name=operation)

    def explained(self, text: str, variables: Mapping[str, Any], operation: str | None = None) -> Mapping[str, Any] | None:
        """What the operation's plan reads, as JSON has it. None: no plan answers it."""
        plan = self.plans.find(text, operation)
        bound = plan.bind(variables) if plan else None
        return bound.explained() if bound else None

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Strawberry's own would log the client's mistakes, with stack traces."""


def build(definition: Definition, allowed: Limits = limits.DEFAULT) -> ViewSchema:
    """The schema of a view. Execute it with a Reading as context value. allowed: what is refused before anything is read."""
    queries = _Queries(definition, allowed)
    schema = ViewSchema(
        _query_type(queries),
        config=StrawberryConfig(default_resolver=operator.getitem, scalar_map=SCALARS),
        extensions=[Checked],
    )
    core = schema._schema  # Strawberry shows its graphql-core schema nowhere else
    schema.documents = Documents(core, allowed)
    schema.plans = Plans(Compiler(definition, core, queries.roots, allowed), schema.documents)
    return schema


def sdl(definition: Definition) -> str:
    """The schema in GraphQL's schema definition language."""
    return build(definition).as_str() + "\n"


def plural(word: str) -> str:
    """The name of the query for many: users of user."""
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


class _Queries:
    """The root fields: what each is called, and how it turns arguments and selection into Reads."""

    def __init__(self, definition: Definition, allowed: Limits) -> None:
        self.definition, self._allowed = definition, allowed
        self.word = definition.name[0].lower() + definition.name[1:]
        self._row_type = _row_type(definition)
        self._names = {"id": "id"} | {f.camel: f.name for f in definition.fields}
        self._by_lookup = {f"{self.word}By{f.camel[0].upper()}{f.camel[1:]}": f for f in definition.lookups}
        lookups = {name: RootField(f.name, many=False) for name, f in self._by_lookup.items()}
        self.roots = {self.word: RootField("id", many=False), plural(self.word): RootField("id", many=True)} | lookups

    def fields(self) -> dict[str, StrawberryField]:
        """By their names in GraphQL."""
        lookups = {name: self.by_lookup(f) for name, f in self._by_lookup.items()}
        return {self.word: self.by_id(), plural(self.word): self.by_ids()} | lookups

    def by_id(self) -> StrawberryField:
        argument = strawberry.argument(description=f"Id of the {self.word}.")

        def resolve(info: _Info, id: Annotated[strawberry.ID, argument]) -> Awaitable[Values | None]:
            return _value(info, Read("id", self._canonical(id), self._selected(info)))

        return self._field(resolve, self._row_type | None, f"The {self.word} with this id; null if there is none.")

    def by_ids(self) -> StrawberryField:
        argument = strawberry.argument(description=f"At most {self._allowed.ids} ids; repeated ones are answered repeatedly.")

        def resolve(info: _Info, ids: Annotated[list[strawberry.ID], argument]) -> Awaitable[list[Values | None]]:
            fields = self._selected(info)
            return _values(info, [Read("id", self._canonical(text), fields) for text in ids])

        rows = types.GenericAlias(list, (self._row_type | None,))
        return self._field(resolve, rows, f"The {self.word} of each id, in the order asked; null where there is none.")

    def by_lookup(self, field: Field) -> StrawberryField:
        argument = strawberry.argument(name=field.camel, description=field.description)

        def resolve(info: _Info, value: Annotated[str, argument]) -> Awaitable[Values | None]:
            return _value(info, Read(field.name, value, self._selected(info)))

        return self._field(resolve, self._row_type | None, f"The {self.word} with this {field.camel}; null if there is none.")

    def _field(self, resolve: Callable[..., Awaitable[object]], answer: object, description: str) -> StrawberryField:
        field: StrawberryField = strawberry.field(resolver=resolve, graphql_type=answer, description=description)
        return field

    def _canonical(self, text: str) -> str:
        try:
            return layout.canonical(self.definition.key_type, text)
        except layout.InvalidKey as error:
            raise limits.refused("INVALID_ID", f"No {self.word} can have this id: {error}.") from error

    def _selected(self, info: _Info) -> tuple[str, ...]:
        """The view fields under a root field, in the definition's order, so that equal selections make equal Reads."""
        selected = _selection(info)
        return tuple(name for camel, name in self._names.items() if camel in selected)


def _query_type(queries: _Queries) -> type:
    return strawberry.type(type("Query", (), queries.fields()), description=f"What can be asked of the {queries.word} view.")


def _row_type(definition: Definition) -> type:
    hints: dict[str, Any] = {"id": strawberry.ID} | {f.name: _type(f) for f in definition.fields}
    fields = {f.name: strawberry.field(name=f.camel, description=f.description) for f in definition.fields}
    fields["id"] = strawberry.field(description=f"What identifies the {definition.name}; it never changes.")
    return strawberry.type(type(definition.name, (), {"__annotations__": hints, **fields}), description=definition.description)


def _type(field: Field) -> object:
    """Only a Count is an Int, which ends at 2³¹; other integers may be larger."""
    large = field.type is int and not isinstance(field.kind, Count)
    scalar: Any = BigInt if large else field.type
    return scalar | None if field.nullable else scalar


def _selection(info: _Info) -> set[str]:
    """Names in GraphQL of the fields selected under this one, through fragments, without what is skipped."""
    raw = info._raw_info
    row_type = get_named_type(raw.return_type)
    assert isinstance(row_type, GraphQLObjectType)  # noqa: S101 - every root field returns the row type
    collected = collect_subfields(
        raw.schema,
        {name: FragmentDetails(fragment) for name, fragment in raw.fragments.items()},
        # Strawberry hands on only the coerced half of graphql-core's pair, which is all that directives look at
        VariableValues({}, info.variable_values),
        raw.operation,
        row_type,
        [FieldDetails(node, None) for node in raw.field_nodes],
    )
    return {details[0].node.name.value for details in collected.grouped_field_set.values()}


def _value(info: _Info, read: Read) -> Awaitable[Values | None]:
    # asked for now and not when awaited, so that all fields of the request are in one load
    return _decoded(read, info.context.read(read))


def _values(info: _Info, reads: list[Read]) -> Awaitable[list[Values | None]]:
    return asyncio.gather(*[_value(info, read) for read in reads])


async def _decoded(read: Read, reading: Awaitable[Row | None]) -> Values | None:
    row = await reading
    return None if row is None else dict(zip(read.fields, map(msgspec.json.decode, row), strict=True))
