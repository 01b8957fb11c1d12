"""`viewgate audit`: every field of every row of the live view against SQL."""

import sys

import typer
import uvloop
from rich.progress import Progress

from app.cli import CommandError
from app.clients import Clients, open_clients
from app.console import console
from app.settings import Settings, read_settings
from app.views import definition_of
from loaders.sql import SqlLoader, count, keys
from loaders.view import ViewLoader
from projectors.apply import StoreUnavailable
from projectors.audit import Audit, AuditStuck, Report, ids_in_view
from projectors.clock import SystemClock
from projectors.generations import Generations
from schema.definition import Definition
from schema.generation import Generation
from schema.loader import LoadError

SHOWN = 20


def audit() -> None:
    """Compare every field of every user, every lookup and every stray hash with SQL. Exits with 1 if anything differs.

    A difference counts only if it is still there after the projector has passed the moment it was seen, so that it can run
    at any hour, under load.

    \b
    Example:
      viewgate audit
    """
    settings = read_settings()
    definition = definition_of(settings)
    try:
        report = uvloop.run(_audit(settings, definition))
    except (AuditStuck, LoadError, StoreUnavailable) as error:
        raise CommandError(f"The audit could not be finished: {error} `viewgate doctor` says what is wrong.") from error
    for mismatch in report.mismatches[:SHOWN]:
        in_view, in_sql = _shown(mismatch.in_view), _shown(mismatch.in_sql)
        typer.echo(f"{definition.name} {mismatch.id}: {mismatch.field} is {in_view} in the view, {in_sql} in SQL")
    typer.echo(f"{report.rows} rows checked, {report.fields} fields compared, {len(report.mismatches)} mismatches")
    if report.mismatches:
        sys.exit(1)


async def _audit(settings: Settings, definition: Definition) -> Report:
    async with open_clients(settings) as clients:
        record = await _live(clients, definition)
        shown = console(stderr=True)
        with Progress(console=shown, disable=not shown.is_terminal) as progress:
            bar = progress.add_task("Comparing", total=await count(clients.postgres, definition))
            view, sql = ViewLoader(clients.redis, definition), SqlLoader(clients.postgres, definition)
            running = Audit(definition, view, sql, SystemClock(), lambda rows: progress.advance(bar, rows))
            return await running.run(keys(clients.postgres, definition), ids_in_view(clients.redis, definition.name, record))


async def _live(clients: Clients, definition: Definition) -> Generation:
    generations = Generations(clients.redis, definition)
    name = await generations.live()
    record = await generations.read(name) if name else None
    if record is None:
        raise CommandError("No generation of the view is live: nothing to audit. Start `viewgate project` and let it build one.")
    return record


def _shown(fragment: bytes | None) -> str:
    return "absent" if fragment is None else fragment.decode()
