"""Which view is served: the definition that VIEWGATE_VIEW names. Defines none itself."""

import importlib
import sys

from app.settings import Settings, SettingsError
from schema.definition import Definition, DefinitionError, read_definition


def definition_of(settings: Settings) -> Definition:
    """Import the view and read it, its topics with the settings' prefix. Modules are looked for in the current folder too.

    Raises SettingsError, which names VIEWGATE_VIEW, where there is no such class or it defines no view.
    """
    module_name, _, class_name = settings.view.partition(":")
    if not module_name or not class_name:
        raise SettingsError(f"VIEWGATE_VIEW: {settings.view!r} must be module:class, such as schema.user:UserView.")
    if "" not in sys.path:
        sys.path.append("")
    try:
        view = getattr(importlib.import_module(module_name), class_name)
        return read_definition(view, settings.topic_prefix)
    except (ImportError, AttributeError, SyntaxError, DefinitionError) as error:
        raise SettingsError(f"VIEWGATE_VIEW: {settings.view} is no view that can be read: {error}") from error
