"""`viewgate rebuild`: the next generation, built beside the live one, which readers go on reading."""

import asyncio
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer
import uvloop
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from app.cli import CommandError
from app.clients import open_clients
from app.commands.generations import shown, switched, tried
from app.commands.project import STOPS
from app.console import console
from app.feeds import Feed, Part, collect_less, open_consumer, open_log, sources
from app.settings import Settings, read_settings
from app.stopping import told_to_stop
from app.switching import Switch, behind_by
from app.telemetry import ProjectorMetrics, set_up_logs
from app.views import definition_of
from app.worker import Beside
from loaders.sql import AWAY, count
from projectors.apply import Header, RedisStore, StoreUnavailable
from projectors.filling import Filling, start_of
from projectors.generations import Bounds, GenerationRefused, reached_offsets
from projectors.log import end
from projectors.rows_at import NoOffsets, rows_at
from projectors.snapshot import KafkaReader, SnapshotUnsound, last_snapshot
from projectors.sweeping import sweep
from schema import layout
from schema.definition import Definition
from schema.generation import Generation
from schema.positions import Partition

LOOK_SECONDS = 0.5


class Origin(StrEnum):
    """Where a build may begin."""

    BEGINNING = "beginning"
    SNAPSHOT = "snapshot"
    SQL = "sql"


def rebuild(
    origin: Annotated[
        Origin, typer.Option("--from", help="Kafka's beginning, the last snapshot of a connector in the topics, or rows from SQL.")
    ] = Origin.BEGINNING,
    rate: Annotated[int | None, typer.Option(help="Most changes a second that are read; without it as many as can be.", min=1)] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Put it live at the end, if it compares well.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Begin another one, though one is unfinished.")] = False,
) -> None:
    """Build the view anew, under a name of its own, while readers read the live one; ends when it is level and was compared.

    An unfinished one of this definition is gone on with. Ctrl-C or a crash loses nothing: run it again. Once it is level, `viewgate
    project` of this definition keeps it up to date.

    \b
    Examples:
      viewgate rebuild
      viewgate rebuild --rate 20000 --promote
      viewgate rebuild --from sql
    """
    settings = read_settings()
    collect_less()
    set_up_logs("error" if settings.log_level == "info" else settings.log_level)
    try:
        uvloop.run(_rebuild(settings, definition_of(settings), origin, rate, promote=promote, new=new))
    except STOPS as error:
        raise CommandError(f"Nothing was put live: {error}") from error
    except AWAY as away:
        raise CommandError(f"PostgreSQL cannot be reached ({away}): see VIEWGATE_POSTGRES_URL.") from away


async def _rebuild(settings: Settings, definition: Definition, origin: Origin, rate: int | None, *, promote: bool, new: bool) -> None:
    stop = told_to_stop()
    async with open_clients(settings) as clients, tried():
        switch = Switch(settings, definition, clients)
        record = await _opened(switch, origin, rate, new=new)
        feed = Feed(settings, definition, clients.redis, Beside(ProjectorMetrics()), Part(record.name, record.build))
        ended = asyncio.Event()
        running = asyncio.create_task(feed.run(ended))
        try:
            if not await _built(switch, record, running, stop):
                typer.echo(f"{record.name} is unfinished: `viewgate rebuild` goes on with it, `viewgate drop {record.name}` removes it.")
                return
            if promote:
                await switched(switch, record.name, force=False)
            else:
                typer.echo(f"{record.name} is level. `viewgate promote {record.name}` compares it and lets readers see it.")
        finally:
            ended.set()
            await asyncio.wait({running}, timeout=10)


async def _opened(switch: Switch, origin: Origin, rate: int | None, *, new: bool) -> Generation:
    """The unfinished one, or a new one."""
    ours = [r for r in await switch.generations.all() if r.definition == switch.definition.fingerprint and not r.by_itself]
    unfinished = [record for record in ours if record.state in {"filling", "opening", "building"}]
    if unfinished and not new:
        record = unfinished[-1]
        typer.echo(f"Going on with {record.name}, from {_origin(record)}, opened {shown(record.opened_ms)} ago.")
        return await _filled(switch, rate, record) if record.state == "filling" else record
    return await (_filled(switch, rate, None) if origin is Origin.SQL else _added(switch, origin, rate))


async def _filled(switch: Switch, rate: int | None, again: Generation | None) -> Generation:
    """With its rows from SQL, in a new generation or once more in one that was cut off."""
    definition, clients = switch.definition, switch.clients
    async with open_log(switch.settings, None) as log_:
        await log_.start(definition.topics)
        bounds, ids = await sources(log_, definition)
    out = console(stderr=True)
    try:
        async with rows_at(clients.postgres, definition) as rows:
            start = start_of(rows, bounds)
            record = await (switch.generations.refill(again, start) if again else _register(switch, bounds, ids, start, Origin.SQL, rate))
            if again:
                keys = layout.Layout(definition.name, record.name, record.shards)
                await sweep(clients.redis, keys.all_pattern(), lambda name: name.startswith(keys.rows_start()), lambda _: None)
            with Progress(console=out, disable=not out.is_terminal) as progress:
                bar = progress.add_task("Rows from SQL", total=await count(clients.postgres, definition))
                filling = Filling(clients.postgres, clients.redis, definition, lambda written: progress.advance(bar, written))
                await filling.fill(rows, record, dict.fromkeys(range(record.shards), record.build))
    except NoOffsets as reason:
        raise GenerationRefused(str(reason)) from reason
    return await switch.generations.filled(record)


async def _added(switch: Switch, origin: Origin, rate: int | None) -> Generation:
    definition = switch.definition
    async with open_log(switch.settings, None) as log_:
        await log_.start(definition.topics)
        bounds, ids = await sources(log_, definition)
        start = dict.fromkeys(bounds, 0) if origin is Origin.BEGINNING else await _snapshot(switch)
    return await _register(switch, bounds, ids, start, origin, rate)


async def _register(
    switch: Switch, bounds: Bounds, ids: Mapping[str, str], start: Mapping[Partition, int], origin: Origin, rate: int | None
) -> Generation:
    stores = partial(RedisStore.of, switch.clients.redis, switch.definition)
    record = await switch.generations.add(stores, bounds, ids, start, origin.value, rate)
    if record is None:
        raise GenerationRefused("somebody else has opened a generation at the same time: look at `viewgate generations`.")
    typer.echo(f"Building {record.name} from {_origin(record)}.")
    return record


async def _snapshot(switch: Switch) -> Mapping[Partition, int]:
    """Where the last snapshot begins. Raises GenerationRefused where no view may be built from it."""
    typer.echo("Looking for the last snapshot: every record of the topics is read once.")
    consumer = open_consumer(switch.settings, None)
    await consumer.start()
    try:
        return (await last_snapshot(KafkaReader(consumer, switch.definition.topics))).start
    except SnapshotUnsound as unsound:
        raise GenerationRefused(str(unsound)) from unsound
    finally:
        await end(consumer.stop())


async def _built(switch: Switch, record: Generation, running: "asyncio.Task[None]", stop: asyncio.Event) -> bool:
    """Show how far it is until it is level; False when told to stop."""
    out = console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, disable=not out.is_terminal) as progress:
        topics = sorted({partition.rpartition(":")[0] for partition in record.start})
        bars = {topic: progress.add_task(topic, total=_total(record, topic), left="") for topic in topics}
        while not stop.is_set():
            try:
                headers = await switch.store(record).headers()
            except StoreUnavailable:
                # what builds it waits, and goes on
                await asyncio.wait({running}, timeout=LOOK_SECONDS)
                continue
            for topic, bar in bars.items():
                done = _done(record, headers, topic)
                progress.update(bar, completed=done, left=f"{max(0, _total(record, topic) - done):,} left")
            if not behind_by(record, headers, record.level) and all(header.state for header in headers):
                return True
            await asyncio.wait({running}, timeout=LOOK_SECONDS)
            if running.done():
                running.result()
                raise StoreUnavailable(f"generation {record.name} was dropped meanwhile")
    return False


def _total(record: Generation, topic: str) -> int:
    return sum(max(0, end - record.start[p]) for p, end in record.level.items() if p.rpartition(":")[0] == topic)


def _done(record: Generation, headers: Sequence[Header], topic: str) -> int:
    offsets = reached_offsets(record, headers)
    return sum(max(0, min(offsets[p], record.level[p]) - record.start[p]) for p in record.start if p.rpartition(":")[0] == topic)


def _origin(record: Generation) -> str:
    return {"beginning": "Kafka's beginning", "snapshot": "the last snapshot in the topics", "sql": "rows from SQL"}[record.origin]
