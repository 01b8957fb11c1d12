"""`viewgate generations`, `promote`, `rollback`, `drop`: which builds of the view there are, and which one readers see."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import typer
import uvloop
from aiokafka.errors import KafkaError
from rich.progress import Progress

from app.cli import CommandError
from app.clients import open_clients
from app.console import console, table
from app.settings import read_settings
from app.switching import Switch, SwitchRefused, behind_by
from app.telemetry import set_up_logs
from app.views import definition_of
from projectors.apply import StoreUnavailable
from projectors.audit import AuditStuck, Mismatch
from projectors.durability import NotDurable
from projectors.generations import GenerationRefused, ShardLost
from projectors.sweeping import size
from schema import layout
from schema.generation import Generation
from schema.loader import LoadError

SHOWN = 10
LEVEL_SECONDS = 30.0
Force = Annotated[bool, typer.Option("--force", help="Also if it is not level, or differs.")]


def generations() -> None:
    """List the generations: state, users, lag, definition, size. Users and size are of a sample where Redis is large (≈).

    \b
    Example:
      viewgate generations
    """

    async def run(switch: Switch) -> None:
        records = await switch.generations.all()
        live = await switch.generations.live()
        if not records:
            raise SwitchRefused("There is no generation: start `viewgate project`, which builds the first.")
        found = table("generation", "state", "users", "records behind", "definition", "size", "from", "opened")
        for record in records:
            found.add_row(*await _row(switch, record, live))
        console().print(found)

    _run(run)


def promote(
    name: Annotated[str | None, typer.Argument(help="Such as g2; without it the newest one that is not live.")] = None, force: Force = False
) -> None:
    """Let readers see a generation, once it is level and a sample of it equals SQL, or the live one where there is no SQL.

    The one that was live stays, and is kept up to date until it is dropped.

    \b
    Examples:
      viewgate promote
      viewgate promote g2
    """

    async def run(switch: Switch) -> None:
        await switched(switch, name or await _newest(switch), force=force)

    _run(run)


def rollback(force: Force = False) -> None:
    """Let readers see again the generation that was live before; it is checked as `promote` checks.

    \b
    Example:
      viewgate rollback
    """

    async def run(switch: Switch) -> None:
        retired = [record for record in await switch.generations.all() if record.state == "retired"]
        if not retired:
            raise SwitchRefused("There is nothing to go back to: no generation was live before and is still there.")
        await switched(switch, max(retired, key=lambda record: record.retired_ms).name, force=force)

    _run(run)


def drop(
    name: Annotated[str, typer.Argument(help="Such as g1.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a generation that is not live: its headers at once, its rows slowly. Its name is never used again.

    \b
    Example:
      viewgate drop g1
    """
    if not yes:
        typer.confirm(f"Remove generation {name} for good?", abort=True)

    async def run(switch: Switch) -> None:
        record = await switch.named(name)
        out = console(stderr=True)
        with Progress(console=out, disable=not out.is_terminal) as progress:
            bar = progress.add_task(f"Dropping {name}", total=None)
            swept = await switch.drop(record, lambda keys: progress.advance(bar, keys))
        typer.echo(f"{name} is gone: {swept:,} keys.")

    _run(run)


async def switched(switch: Switch, name: str, *, force: bool) -> None:
    """Check, compare, promote. Raises SwitchRefused."""
    record = await switch.named(name)
    if await switch.generations.live() == name:
        raise SwitchRefused(f"{name} is live already.")
    if record.state == "dropping":
        raise SwitchRefused(f"{name} is being dropped.")
    if force:
        headers = await switch.store(record).headers()
    else:
        if record.definition != switch.definition.fingerprint:
            raise SwitchRefused(
                f"{name} was built with another definition ({record.definition}, here it is {switch.definition.fingerprint}), "
                "so it cannot be compared: run the version that built it, or use --force."
            )
        headers = await switch.level(record, await switch.ends(record), LEVEL_SECONDS)
        await _compare(switch, record)
    old = await switch.generations.live()
    await switch.promote(record, headers)
    typer.echo(
        f"{name} is live."
        + (f" {old} is kept up to date: `viewgate rollback` goes back to it, `viewgate drop {old}` removes it." if old else "")
    )


async def _compare(switch: Switch, record: Generation) -> None:
    against, source = await switch.other(record)
    out = console(stderr=True)
    with Progress(console=out, disable=not out.is_terminal) as progress:
        bar = progress.add_task(f"Comparing with {source}", total=None)
        report = await switch.compared(record, against, switch.sample(record, source), lambda rows: progress.advance(bar, rows))
    if report.mismatches:
        found = "".join(f"\n  {_told(switch.definition.name, mismatch)}" for mismatch in report.mismatches[:SHOWN])
        raise SwitchRefused(
            f"{record.name} differs from {source} in {len(report.mismatches)} of {report.fields:,} fields; --force switches:{found}"
        )
    typer.echo(f"{report.rows:,} rows of {record.name} compared with {source}, {report.fields:,} fields: all equal.")


def _told(view: str, mismatch: Mismatch) -> str:
    mine, theirs = (value.decode() if value is not None else "absent" for value in (mismatch.in_view, mismatch.in_sql))
    return f"{view} {mismatch.id}: {mismatch.field} is {mine}, and there {theirs}"


async def _newest(switch: Switch) -> str:
    live = await switch.generations.live()
    others = [record for record in await switch.generations.all() if record.name != live and record.state == "building"]
    if not others:
        raise SwitchRefused("There is no generation to promote: `viewgate rebuild` builds one.")
    return others[-1].name


async def _row(switch: Switch, record: Generation, live: str | None) -> tuple[str, ...]:
    headers = await switch.store(record).headers()
    behind = behind_by(record, headers, await switch.ends(record))
    keys = layout.Layout(switch.definition.name, record.name, record.shards)
    rows = await size(switch.clients.redis, keys)
    about = "" if rows.exact else "≈ "
    same = " (as here)" if record.definition == switch.definition.fingerprint else ""
    lost = sum(header.state != layout.LIVE for header in headers) if record.state in {"live", "retired"} else 0
    state = ("live" if record.name == live else record.state) + (f", {lost} of {record.shards} shards being rebuilt" if lost else "")
    return (
        record.name,
        state,
        f"{about}{rows.rows:,}",
        f"{behind:,}",
        record.definition + same,
        f"{about}{rows.bytes / 1e6:,.1f} MB",
        record.origin,
        f"{shown(record.opened_ms)} ago" if record.opened_ms else "",
    )


def shown(since_ms: int) -> str:
    """How long ago, in the largest unit that fits."""
    seconds = max(0, int(time.time() - since_ms / 1000))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


@asynccontextmanager
async def tried() -> AsyncIterator[None]:
    """What may go wrong, as the sentence of a command."""
    try:
        yield
    except (SwitchRefused, GenerationRefused, NotDurable, ShardLost) as refused:
        raise CommandError(str(refused)) from refused
    except (AuditStuck, LoadError, StoreUnavailable) as away:
        raise CommandError(f"It could not be finished: {away} `viewgate doctor` says what is wrong.") from away
    except KafkaError as away:
        raise CommandError(f"Kafka cannot be reached ({away!r}): see VIEWGATE_KAFKA_BOOTSTRAP, and `viewgate doctor`.") from away


def _run(what: Callable[[Switch], Awaitable[None]]) -> None:
    settings = read_settings()
    set_up_logs("error" if settings.log_level == "info" else settings.log_level)

    async def run() -> None:
        async with open_clients(settings) as clients, tried():
            await what(Switch(settings, definition_of(settings), clients))

    uvloop.run(run())
