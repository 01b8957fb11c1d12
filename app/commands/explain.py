"""`viewgate explain`: what a query reads, without reading it."""

from typing import Annotated

import msgspec
import typer

from app.cli import CommandError
from app.commands.query import Document, Operation, Variables, read_document, variables
from app.console import console, table
from app.settings import read_settings
from app.views import definition_of
from schema import graphql

NO_PLAN = (
    "No plan answers it, so Strawberry's executor does: it asks for what is not in the view, or has a variable, an id or a number of rows "
    "that are refused, or not plainly of their types. `viewgate query` says which."
)


def explain(
    document: Document,
    variable: Variables = None,
    operation: Operation = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Tell what a query would read, and what that costs. Needs no server.

    Every row costs one HMGET of the fields told, all of a request in one round trip; by a lookup, one HGETALL before it. Exits with 1
    if the query is wrong.

    \b
    Examples:
      viewgate explain '{ user(id: "1") { username tweetCount } }'
      viewgate explain -v ids='["1", "2"]' 'query ($ids: [ID!]!) { users(ids: $ids) { name } }'
    """
    text, given = read_document(document), variables(variable)
    settings = read_settings()
    schema = graphql.build(definition_of(settings), settings.limits)
    for wrong in schema.documents.errors(text):
        raise CommandError(f"The query is wrong: {wrong}") from wrong
    if schema.plans.find(text, operation) is None:
        raise CommandError("Name one of the document's own operations with --operation.")
    told = schema.explained(text, given, operation)
    if as_json:
        typer.echo(msgspec.json.encode({"plan": told}).decode())
    elif told is None:
        typer.echo(NO_PLAN)
    else:
        shown = table("rows", "found by", "fields read")
        for read in told["reads"]:
            shown.add_row(str(read["rows"]), read["by"], ", ".join(read["fields"]) or "none: only whether there is one")
        console().print(shown)
        typer.echo(f"{told['rows']} of at most {settings.limit_rows:,} rows.")
