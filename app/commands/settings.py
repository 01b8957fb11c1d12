"""`viewgate settings`: every setting, its value, and where it comes from."""

import json
from typing import Annotated

import typer

from app.console import console, table
from app.settings import Settings, given, hidden, key_of, read_settings

DEFAULT = "default"


def settings(as_json: Annotated[bool, typer.Option("--json", help="One JSON object: value and source by key.")] = False) -> None:
    """Show every setting with its value and where it comes from; passwords in URLs are hidden.

    \b
    Examples:
      viewgate settings
      VIEWGATE_MODE=sql viewgate settings --json
    """
    read, sources = read_settings(), given()
    if as_json:
        found = {key_of(name): {"value": hidden(getattr(read, name)), "from": sources.get(name, DEFAULT)} for name in Settings.model_fields}
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    shown = table("setting", "value", "from", "what it is")
    for name, field in Settings.model_fields.items():
        source = sources.get(name, DEFAULT)
        value = hidden(getattr(read, name))
        shown.add_row(key_of(name), as_text(value), source, field.description, style="dim" if source == DEFAULT else None)
    console().print(shown)


def as_text(value: object) -> str:
    """A setting's value as docs and tables show it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "not set" if value is None else str(value) or "empty"
