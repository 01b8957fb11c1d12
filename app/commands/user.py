"""`viewgate user`: one row of the view, whole, in every mode side by side, with times."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
import uvloop

from app.cli import CommandError
from app.clients import open_clients
from app.console import age, console, table
from app.server import loaders
from app.settings import Settings, read_settings
from app.telemetry import GatewayMetrics, set_up_logs
from app.views import definition_of
from schema import layout
from schema.definition import Definition
from schema.loader import Loader, LoadError, Mode, Read, Row, Rows

UNEQUAL = "≠"


@dataclass(frozen=True, slots=True)
class Told:
    """What one mode answers. rows and seconds (the first read, the second) are those of the answer, error is there in its stead."""

    rows: Rows | None
    seconds: tuple[float, float]
    error: LoadError | None = None

    @property
    def row(self) -> Row | None:
        """The fragments of the row; None if there is no such row, or no answer."""
        return self.rows.rows[0] if self.rows else None


def user(
    id: Annotated[str, typer.Argument(help="The id of a row of the view, such as 1.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, by mode.")] = False,
) -> None:
    """Show all that is known of a user (or whatever the view is of), in every mode side by side, with times.

    Each mode is read twice over open connections: the second time is one of a warm cache. Under live changes a mode may be ahead
    of another; such fields are marked. Exits with 1 if a mode gives no answer, or no mode knows the id.

    \b
    Examples:
      viewgate user 1
      viewgate user 1 --json
    """
    settings = read_settings()
    set_up_logs(settings.log_level)
    definition = definition_of(settings)
    try:
        read = Read("id", layout.canonical(definition.key_type, id), ("id", *(f.name for f in definition.fields)))
    except layout.InvalidKey as error:
        raise CommandError(f"No {definition.name} can have the id {id!r}: {error}.") from error
    told = uvloop.run(_ask(settings, definition, read))
    errors = [f"{mode}: {one.error.code}: {one.error}" for mode, one in told.items() if one.error]
    if not errors and all(one.row is None for one in told.values()):
        raise CommandError(f"There is no {definition.name} {id}.")
    if as_json:
        typer.echo(json.dumps({mode: _object(definition, one) for mode, one in told.items()}, ensure_ascii=False))
    else:
        _show(definition, told)
    if errors:
        raise CommandError("\n".join([*errors, "`viewgate doctor` says what is wrong, and how to mend it."]))


async def _ask(settings: Settings, definition: Definition, read: Read) -> dict[Mode, Told]:
    async with open_clients(settings) as clients:
        return {mode: await _told(loader, read) for mode, loader in loaders(settings, definition, clients, GatewayMetrics()).items()}


async def _told(loader: Loader, read: Read) -> Told:
    try:
        await loader.ready()
        _, first = await _timed(loader, read)
        rows, again = await _timed(loader, read)
    except LoadError as error:
        return Told(None, (0.0, 0.0), error)
    return Told(rows, (first, again))


async def _timed(loader: Loader, read: Read) -> tuple[Rows, float]:
    began = time.perf_counter()
    rows = await loader.load([read])
    return rows, time.perf_counter() - began


def _show(definition: Definition, told: Mapping[Mode, Told]) -> None:
    shown = table("", *told)
    for place, name in enumerate(["id", *(f.camel for f in definition.fields)]):
        values = [_text(one, place) for one in told.values()]
        equal = len({one.row[place] for one in told.values() if one.row}) <= 1
        shown.add_row(name if equal else f"{name} {UNEQUAL}", *values, style=None if equal else "bold yellow")
    for name, values in _facts(told).items():
        shown.add_row(name, *values, style="dim")
    console().print(shown)


def _facts(told: Mapping[Mode, Told]) -> dict[str, list[str]]:
    answered = list(told.values())
    return {
        "first read": [_ms(one, 0) for one in answered],
        "read again": [_ms(one, 1) for one in answered],
        "as of": [f"{age(one.rows.as_of_ms)} ago" if one.rows else "" for one in answered],
        "generation": [one.rows.generation or "" if one.rows else "" for one in answered],
        "answered by": [one.rows.mode if one.rows else one.error.code if one.error else "" for one in answered],
    }


def _text(told: Told, place: int) -> str:
    if told.row is None:
        return "-"
    value = json.loads(told.row[place])
    return "null" if value is None else str(value)


def _ms(told: Told, place: int) -> str:
    return f"{told.seconds[place] * 1000:.2f} ms" if told.rows else ""


def _object(definition: Definition, told: Told) -> dict[str, Any]:
    if told.rows is None:
        return {"error": {"code": told.error.code, "message": str(told.error)}} if told.error else {}
    names = ["id", *(f.camel for f in definition.fields)]
    row = None if told.row is None else dict(zip(names, map(json.loads, told.row), strict=True))
    return {
        definition.name.lower(): row,
        "firstMs": round(told.seconds[0] * 1000, 3),
        "againMs": round(told.seconds[1] * 1000, 3),
        "mode": told.rows.mode,
        "generation": told.rows.generation,
        "asOfMs": told.rows.as_of_ms,
        "fallback": told.rows.fallback,
    }
