"""`viewgate rebuild`: the next generation, built beside the live one, which readers go on reading."""

import asyncio
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Annotated, NamedTuple

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
from app.sql_rows import source_of
from app.stopping import told_to_stop
from app.switching import Switch, behind_by
from app.telemetry import ProjectorMetrics, set_up_logs
from app.views import definition_of
from app.worker import Beside
from loaders.sql import AWAY, count
from projectors.apply import Header, RedisStore, StoreUnavailable
from projectors.captured import NotCaptured
from projectors.filling import Filling, start_of
from projectors.generations import Bounds, GenerationRefused, reached_offsets
from projectors.log import end
from projectors.rows_at import NoOffsets
from projectors.snapshot import SnapshotUnsound, last_snapshot
from projectors.sweeping import sweep
from projectors.topic_reader import KafkaReader
from schema import layout
from schema.definition import Definition
from schema.generation import Generation
from schema.positions import Partition
from schema.seen import Seen

LOOK_SECONDS = 0.5


class Origin(StrEnum):
    """Where a build may begin."""

    BEGINNING = "beginning"
    SNAPSHOT = "snapshot"
    SQL = "sql"


class Asked(NamedTuple):
    """What the command was told."""

    origin: Origin
    rate: int | None
    slot: str | None
    new: bool


def rebuild(
    origin: Annotated[
        Origin, typer.Option("--from", help="Kafka's beginning, the last snapshot of a connector in the topics, or rows from SQL.")
    ] = Origin.BEGINNING,
    rate: Annotated[int | None, typer.Option(help="Most changes a second that are read; without it as many as can be.", min=1)] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Put it live at the end, if it compares well.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Begin another one, though one is unfinished.")] = False,
    slot: Annotated[
        str | None, typer.Option(help="With --from sql: the connector's replication slot, where the database has several.")
    ] = None,
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
        uvloop.run(_rebuild(settings, definition_of(settings), Asked(origin, rate, slot, new), promote=promote))
    except STOPS as error:
        raise CommandError(f"Nothing was put live: {error}") from error
    except AWAY as away:
        raise CommandError(f"PostgreSQL cannot be reached ({away}): see VIEWGATE_POSTGRES_URL.") from away


async def _rebuild(settings: Settings, definition: Definition, asked: Asked, *, promote: bool) -> None:
    stop = told_to_stop()
    async with open_clients(settings) as clients, tried():
        switch = Switch(settings, definition, clients)
        opening = asyncio.create_task(_opened(switch, asked))
        if not await _ended(opening, stop):
            typer.echo("Nothing was opened, or its rows are not all written: `viewgate rebuild` begins them again.")
            return
        record = opening.result()
        feed = Feed(settings, definition, clients.redis, Beside(ProjectorMetrics()), Part(record.name, record.build))
        ended = asyncio.Event()
        running = asyncio.create_task(feed.run(ended))
        try:
            if not await _built(switch, record, running, stop):
                typer.echo(f"{record.name} is unfinished: `viewgate rebuild` goes on with it, `viewgate drop {record.name}` removes it.")
                return
            if await switch.generations.live() == record.name:
                typer.echo(f"{record.name} is level, and live: no other was.")
            elif promote:
                await switched(switch, record.name, force=False)
            else:
                typer.echo(f"{record.name} is level. `viewgate promote {record.name}` compares it and lets readers see it.")
        finally:
            ended.set()
            await asyncio.wait({running}, timeout=10)


async def _ended(task: "asyncio.Task[Generation]", stop: asyncio.Event) -> bool:
    """Whether it ended before it was told to stop, which cancels it."""
    told = asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    return not task.cancelled()


async def _opened(switch: Switch, asked: Asked) -> Generation:
    """The unfinished one, or a new one."""
    ours = [r for r in await switch.generations.all() if r.definition == switch.definition.fingerprint and not r.by_itself]
    unfinished = [record for record in ours if record.state in {"filling", "opening", "building"}]
    if unfinished and not asked.new:
        record = unfinished[-1]
        typer.echo(f"Going on with {record.name}, from {_origin(record)}, opened {shown(record.opened_ms)} ago.")
        return await _filled(switch, asked, record) if record.state == "filling" else record
    return await (_filled(switch, asked, None) if asked.origin is Origin.SQL else _added(switch, asked))


async def _filled(switch: Switch, asked: Asked, again: Generation | None) -> Generation:
    """With its rows from SQL, in a new generation or once more in one that was cut off."""
    definition, clients = switch.definition, switch.clients
    async with open_log(switch.settings, None) as log_:
        await log_.start(definition.topics)
        bounds, ids = await sources(log_, definition)
    out = console(stderr=True)
    try:
        source = await source_of(switch.settings, definition, clients.postgres, asked.slot or (again.slot if again else "") or None, _waits)
        async with source.open() as rows:
            start, has = start_of(rows, bounds), (source.slot, rows.seen)
            record = await (switch.generations.refill(again, start, *has) if again else _register(switch, bounds, ids, start, asked, *has))
            if again:
                keys = layout.Layout(definition.name, record.name, record.shards)
                await sweep(clients.redis, keys.all_pattern(), lambda name: name.startswith(keys.rows_start()), lambda _: None)
            with Progress(console=out, disable=not out.is_terminal) as progress:
                bar = progress.add_task("Rows from SQL", total=await count(clients.postgres, definition))
                filling = Filling(clients.redis, definition, lambda written: progress.advance(bar, written))
                await filling.fill(rows, record, dict.fromkeys(range(record.shards), record.build))
        level = await source.level(rows)
    except (NoOffsets, NotCaptured) as reason:
        raise GenerationRefused(str(reason)) from reason
    return await switch.generations.filled(record, level)


def _waits(what: str, _: float) -> None:
    typer.echo(what, err=True)


async def _added(switch: Switch, asked: Asked) -> Generation:
    definition = switch.definition
    async with open_log(switch.settings, None) as log_:
        await log_.start(definition.topics)
        bounds, ids = await sources(log_, definition)
        start = dict.fromkeys(bounds, 0) if asked.origin is Origin.BEGINNING else await _snapshot(switch)
    return await _register(switch, bounds, ids, start, asked)


async def _register(
    switch: Switch,
    bounds: Bounds,
    ids: Mapping[str, str],
    start: Mapping[Partition, int],
    asked: Asked,
    slot: str = "",
    seen: Seen | None = None,
) -> Generation:
    stores = partial(RedisStore.of, switch.clients.redis, switch.definition)
    record = await switch.generations.add(stores, bounds, ids, start, asked.origin.value, asked.rate, slot=slot, seen=seen)
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
                # with no other beside it, what builds it puts it live
                is_settled = not record.by_itself or await switch.generations.live() is not None
            except StoreUnavailable:
                # what builds it waits, and goes on
                await asyncio.wait({running}, timeout=LOOK_SECONDS)
                continue
            for topic, bar in bars.items():
                done = _done(record, headers, topic)
                progress.update(bar, completed=done, left=f"{max(0, _total(record, topic) - done):,} left")
            if is_settled and not behind_by(record, headers, record.level) and all(header.state for header in headers):
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
