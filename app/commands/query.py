"""`viewgate query`: one GraphQL query, answered in this process as the gateway would answer it."""

import contextlib
import json
import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import typer
import uvloop
from strawberry.schema.exceptions import CannotGetOperationTypeError

from app import errors
from app.cli import CommandError
from app.clients import open_clients
from app.console import age, console
from app.server import loaders
from app.settings import Settings, read_settings
from app.telemetry import GatewayMetrics, set_up_logs
from app.views import definition_of
from schema import graphql
from schema.loader import LoadError, Mode, Rows, SourceUnavailable, ViewNotReady

AWAY = (SourceUnavailable.code, ViewNotReady.code)
Document = Annotated[str, typer.Argument(help="The query; - reads it from standard input.")]
Variables = Annotated[
    list[str] | None, typer.Option("--variable", "-v", metavar="NAME=VALUE", help="A variable; its value is JSON, or else a text.")
]
Operation = Annotated[str | None, typer.Option("--operation", help="Which operation of the document it is.")]


@dataclass(frozen=True, slots=True)
class Answer:
    """body: the GraphQL response. rows: what was read for it, None if nothing was. seconds: from the query to the body."""

    body: dict[str, Any]
    rows: Rows | None
    seconds: float


def query(
    document: Document,
    variable: Variables = None,
    operation: Operation = None,
    mode: Annotated[Mode | None, typer.Option(help="The mode that answers, instead of VIEWGATE_MODE.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only the response, on one line.")] = False,
) -> None:
    """Answer one GraphQL query, without a gateway: from Redis and PostgreSQL as the settings name them.

    The response goes to the output; its mode, generation, age and time to stderr. Exits with 1 if the response has errors.

    \b
    Examples:
      viewgate query '{ user(id: "1") { username tweetCount } }'
      viewgate query -v id=1 'query ($id: ID!) { user(id: $id) { name } }' --mode sql
      viewgate query --json - < query.graphql
    """
    settings = read_settings()
    set_up_logs(settings.log_level)
    text = read_document(document)
    answer = uvloop.run(ask(settings, text, variables(variable), operation, mode or settings.mode))
    if as_json:
        typer.echo(msgspec.json.encode(answer.body).decode())
    else:
        console().print_json(data=answer.body, ensure_ascii=False)
        notes = console(stderr=True)
        notes.print(_facts(answer, mode or settings.mode), style="dim")
        if errors.code_of(answer.body.get("errors", ())) in AWAY:
            notes.print("`viewgate doctor` says what is wrong with the servers, and how to mend it.")
    if "errors" in answer.body:
        sys.exit(1)


async def ask(settings: Settings, document: str, variables: dict[str, Any], operation: str | None, mode: Mode) -> Answer:
    """Execute a document over the loader of a mode. Raises CommandError where it has no such operation."""
    definition = definition_of(settings)
    schema = graphql.build(definition, settings.limits)
    async with open_clients(settings) as clients:
        loader = loaders(settings, definition, clients, GatewayMetrics())[mode]
        # connected first, so that the time is the query's; what fails will fail again, in the response
        with contextlib.suppress(LoadError):
            await loader.ready()
        reading = graphql.Reading(loader)
        began = time.perf_counter()
        try:
            planned = await schema.planned(document, variables, reading, operation)
            result = planned or await schema.executed(document, variables, reading, operation)
        except CannotGetOperationTypeError as unknown:
            raise CommandError(f"The document has no operation {operation}: name one of its own with --operation.") from unknown
        seconds = time.perf_counter() - began
    failed = errors.formatted(result)
    # of a plan, data is bytes that are encoded already
    data = msgspec.json.decode(result.data) if isinstance(result.data, msgspec.Raw) else result.data
    body: dict[str, Any] = {"data": data, "errors": failed} if failed else {"data": data}
    return Answer(body, reading.rows, seconds)


def read_document(document: str) -> str:
    """Raises typer.BadParameter."""
    text = sys.stdin.read() if document == "-" else document
    if not text.strip():
        raise typer.BadParameter("there is no query in it.", param_hint="document")
    return text


def variables(given: list[str] | None) -> dict[str, Any]:
    """Of NAME=VALUE, each value JSON or else a text. Raises typer.BadParameter."""
    return dict(_variable(text) for text in given or ())


def _variable(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"{text!r}: write --variable name=value.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _facts(answer: Answer, asked: Mode) -> str:
    rows, ms = answer.rows, f"{answer.seconds * 1000:.1f} ms"
    if rows is None:
        return f"mode {asked} · nothing was read · {ms}"
    generation = f" · generation {rows.generation}" if rows.generation else ""
    fallback = f", in place of {asked}: {rows.fallback}" if rows.fallback else ""
    return f"mode {rows.mode}{fallback}{generation} · as of {age(rows.as_of_ms)} ago · {ms}"
