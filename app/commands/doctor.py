"""`viewgate doctor`: each server and setting: what was checked, what is wrong, how to mend it."""

import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.console import console
from app.doctor.checks import Result, Verdict
from app.doctor.examination import examine
from app.settings import read_settings
from app.views import definition_of

MARKS: dict[Verdict, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "wrong": ("✗", "bold red"),
    "skipped": ("-", "dim"),
}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON list: an object for each check.")] = False) -> None:
    """Check Redis, the view in it, PostgreSQL, Kafka, the settings and the gateway; say how to mend what is wrong.

    Changes nothing. Ends within 15 s, whatever hangs. Exits with 0 if nothing is wrong (warnings are only told), with 1 if
    something is, with 2 if a setting is malformed. docs/doctor.md lists all checks.

    \b
    Examples:
      viewgate doctor
      viewgate doctor --json
      VIEWGATE_REDIS_URL=redis://cache:6379/0 viewgate doctor
    """
    settings = read_settings()
    definition = definition_of(settings)
    # whatever it would log is told as a finding
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL + 1)
    results = uvloop.run(examine(settings, definition))
    shown = console()
    if as_json:
        typer.echo(json.dumps([result._asdict() for result in results], ensure_ascii=False))
    elif shown.is_terminal:
        _show(shown, results)
    else:
        _list(results)
    if any(result.verdict == "wrong" for result in results):
        sys.exit(1)


def _list(results: Sequence[Result]) -> None:
    """A line for each check, for grep."""
    for result in _joined(results):
        mend = f" To mend: {result.mend}" if result.mend else ""
        typer.echo(f"{result.verdict:7}  {result.server}: {result.check}: {_sentence(result.found)}{mend}")
    typer.echo(summary(results))


def _sentence(found: str) -> str:
    return found if found.endswith((".", "?")) else f"{found}."


def _show(shown: Console, results: Sequence[Result]) -> None:
    for server, found in groupby(results, key=lambda result: result.server):
        shown.print(Text(server, "bold"))
        shown.print(_table(_joined(list(found))))
    shown.print(Text(summary(results), "bold"))


def _table(results: Sequence[Result]) -> Table:
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    # as wide in each table, so that they stand below each other
    made.add_column(no_wrap=True, min_width=16)
    made.add_column(overflow="fold")
    for result in results:
        mark, style = MARKS[result.verdict]
        told = Text(result.found, "dim" if result.verdict == "skipped" else "")
        if result.mend:
            told.append(f"\n→ {result.mend}", "cyan")
        made.add_row(Text(f"  {mark}", style), Text(result.check), told)
    return made


def _joined(results: Sequence[Result]) -> list[Result]:
    """What was skipped for one reason as one."""
    joined: list[Result] = []
    for (server, verdict, found), group in groupby(results, key=lambda result: (result.server, result.verdict, result.found)):
        alike = list(group)
        if verdict == "skipped" and len(alike) > 1:
            joined.append(Result(server, f"{len(alike)} checks", verdict, found, ""))
        else:
            joined += alike
    return joined


def summary(results: Sequence[Result]) -> str:
    """How many checks there were of each verdict, in one line."""
    counts = Counter(result.verdict for result in results)
    warnings = f"{counts['warning']} warning{'' if counts['warning'] == 1 else 's'}"
    return f"{counts['ok']} ok, {warnings}, {counts['wrong']} wrong, {counts['skipped']} skipped"
