"""`viewgate schema`: the GraphQL schema, as text."""

import typer

from app.settings import read_settings
from app.views import definition_of
from schema import graphql


def schema() -> None:
    """Print the GraphQL schema in its definition language.

    \b
    Example:
      viewgate schema > schema.graphql
    """
    typer.echo(graphql.sdl(definition_of(read_settings())), nl=False)
