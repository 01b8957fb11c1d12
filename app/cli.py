"""The `viewgate` command. Knows no command by name: they are the entry points of the group viewgate.commands."""

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from app.settings import SettingsError, misspelt

GROUP = "viewgate.commands"
FAILED, MISUSED = 1, 2
HELP = """A GraphQL read gateway over materialized views.

Settings come from VIEWGATE_… in the environment, or from .env in the current folder: `viewgate settings` shows them.

\b
Examples:
  viewgate demo
  viewgate user 1
  viewgate query '{ user(id: "1") { username followerCount } }'
  viewgate doctor
"""
# what keeps an entry point from being found; whatever else its module does is its own affair, and is seen when it is asked for
BROKEN = (ImportError, AttributeError, SyntaxError)


class CommandError(Exception):
    """A command cannot do what it was asked to; the message says why, and what to do."""


class Commands(TyperGroup):
    """Loads a command only when it is asked for, so that one that is broken breaks no other."""

    # ctx: typer's own copy of click, which has the type, is private
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(entry_points(group=GROUP).names)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = entry_points(group=GROUP, name=cmd_name)
        return _command(next(iter(found))) if found else None


def main() -> None:
    """Run a command. Exit code 0: done; 1: it failed; 2: a setting or an argument is wrong; 130: Ctrl-C."""
    try:
        program()()
    except SettingsError as error:
        _end(str(error), MISUSED)
    except CommandError as error:
        _end(str(error), FAILED)


def program() -> typer.Typer:
    """The whole command line, with its help and the completion of bash, zsh and fish."""
    app = typer.Typer(
        cls=Commands,
        name="viewgate",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help=HELP,
        epilog="Exit codes: 0 done, 1 failed, 2 a setting or an argument is wrong, 130 Ctrl-C.",
    )
    app.callback()(_before)
    return app


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"viewgate {version('viewgate')}")
        raise typer.Exit


def _before(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    for sentence in misspelt():
        typer.echo(sentence, err=True)


def _command(entry: EntryPoint) -> Any:
    try:
        return _built(entry.name, entry.load())
    except BROKEN as error:
        return _built(entry.name, _broken(entry, error))


def _built(name: str, function: Callable[..., object] | typer.Typer) -> Any:
    if isinstance(function, typer.Typer):
        # a group of commands, which has its name
        return typer.main.get_command(function)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(function)
    return typer.main.get_command(single)


def _broken(entry: EntryPoint, error: BaseException) -> Callable[[], None]:
    def broken() -> None:
        raise CommandError(f"Command {entry.name} ({entry.value}) cannot be loaded: {error}. Install viewgate again, with what it lacks.")

    broken.__doc__ = f"Cannot be loaded: {error}."
    return broken


def _end(message: str, code: int) -> None:
    typer.echo(message, err=True)
    sys.exit(code)
