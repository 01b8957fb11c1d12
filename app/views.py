"""Which view is served: the definition that VIEWGATE_VIEW names. Defines none itself."""

import importlib
import sys
from typing import Any

from app.settings import Settings, SettingsError
from schema.definition import Definition, DefinitionError, read_definition


class NotFound(Exception):
    """Nothing is named so, or its module cannot be imported; the message says which."""


def definition_of(settings: Settings) -> Definition:
    """Import the view and read it, its topics with the settings' prefix.

    Raises SettingsError, which names VIEWGATE_VIEW, where there is no such class or it defines no view.
    """
    try:
        return read_definition(named(settings.view), settings.topic_prefix)
    except (NotFound, DefinitionError) as error:
        raise SettingsError(f"VIEWGATE_VIEW: {settings.view} is no view that can be read: {error}") from error


def named(text: str) -> Any:
    """What module:name names; modules are looked for in the current folder too. Raises NotFound."""
    module, _, name = text.partition(":")
    if not module or not name:
        raise NotFound("it must be module:name")
    if "" not in sys.path:
        sys.path.append("")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise NotFound(str(error)) from error
