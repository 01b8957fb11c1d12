"""`viewgate schema`: the GraphQL schema, as text."""

import typer

from app.settings import read_settings
from schema import graphql
from schema.definition import read_definition
from schema.user import UserView


def schema() -> None:
    """Print the GraphQL schema in its definition language.

    Example: viewgate schema > schema.graphql
    """
    typer.echo(graphql.sdl(read_definition(UserView, read_settings().topic_prefix)), nl=False)
