"""`viewgate lag`: how far the view is behind Kafka, by partition, in records and in seconds; live, or once."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import typer
import uvloop
from rich.console import Console
from rich.live import Live
from rich.table import Table

from app.cli import CommandError
from app.clients import open_clients
from app.commands.generations import tried
from app.console import console, table
from app.feeds import open_log
from app.settings import Settings, read_settings
from app.stopping import pause, told_to_stop
from app.switching import Switch, SwitchRefused
from app.telemetry import set_up_logs
from app.views import definition_of
from projectors.apply import Header, reached
from projectors.log import KafkaLog
from schema import layout
from schema.generation import Generation
from schema.positions import Partition
from schema.progress import times_ms

EVERY_SECONDS = 1.0
LATE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Lag:
    """Of one partition. lowest: everything below it is on every shard that tells a watermark; None: none does. end: Kafka's end offset.

    age_seconds: how long ago everything was that the view has of it, by what the projector reports once a second.
    newest_seconds: how long ago the newest change was that is applied, by its source's time. None: not known.
    """

    partition: Partition
    lowest: int | None
    end: int
    age_seconds: float | None
    newest_seconds: float | None

    @property
    def records(self) -> int:
        """Offsets that some shard has still to pass."""
        return max(0, self.end - (self.lowest or 0))


@dataclass(frozen=True, slots=True)
class Look:
    """All of a generation at one moment. absent: shards that are lost or being built again; the lowest is also that of the latter."""

    generation: str
    state: str
    absent: int
    shards: int
    lags: Sequence[Lag]

    @property
    def records(self) -> int:
        return sum(lag.records for lag in self.lags)

    @property
    def age_seconds(self) -> float | None:
        """Of the oldest partition, as the header viewgate-as-of tells; None where one is not known."""
        ages = [lag.age_seconds for lag in self.lags]
        return None if None in ages else max((age for age in ages if age is not None), default=None)


def lag(
    generation: Annotated[str | None, typer.Option(help="Such as g2; without it the live one, whichever it is by then.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each look, on a line.")] = False,
) -> None:
    """Show how far the view is behind Kafka, by partition, each second until Ctrl-C. A table on a terminal, a line elsewhere.

    Behind: records that some shard has still to pass. Age: how long ago everything was that the view has, as the projector reports it
    once a second. Newest: how long ago the newest change was that is applied; it grows while nothing happens.

    \b
    Examples:
      viewgate lag
      viewgate lag --once
      viewgate lag --generation g2 --json
    """
    settings = read_settings()
    set_up_logs("critical")
    uvloop.run(_run(settings, generation, once=once, as_json=as_json))


async def _run(settings: Settings, name: str | None, *, once: bool, as_json: bool) -> None:
    stop = told_to_stop()
    definition = definition_of(settings)
    async with tried(), open_clients(settings) as clients:
        switch = Switch(settings, definition, clients)
        # before Kafka is asked: who has no generation should hear so
        record = await _record(switch, name)
        async with open_log(settings, None) as log_:
            await log_.start({partition.topic for partition in _partitions(record)})
            shown = _Shown(console(), once=once, as_json=as_json)
            with shown.live:
                while not stop.is_set():
                    shown.show(await _looked(switch, log_, name))
                    if once:
                        return
                    await pause(stop, EVERY_SECONDS)


class _Shown:
    """Where looks go: JSON lines, a table in its place, a table once, or lines."""

    def __init__(self, out: Console, *, once: bool, as_json: bool) -> None:
        self._out, self._once, self._as_json = out, once, as_json
        self._table = Live(console=out, auto_refresh=False) if out.is_terminal and not once and not as_json else None

    @property
    def live(self) -> AbstractContextManager[object]:
        """To be entered around all looks."""
        return self._table or nullcontext()

    def show(self, look: Look) -> None:
        if self._as_json:
            typer.echo(msgspec.json.encode(_object(look)).decode())
        elif self._table:
            self._table.update(_table(look), refresh=True)
        elif self._once:
            self._out.print(_table(look))
        else:
            self._out.print(_line(look))


async def _looked(switch: Switch, log_: KafkaLog, name: str | None) -> Look:
    try:
        async with asyncio.timeout(LATE_SECONDS):
            return await _look(switch, log_, await _record(switch, name))
    except TimeoutError as late:
        raise CommandError(
            f"Kafka did not answer within {LATE_SECONDS:g} s: see VIEWGATE_KAFKA_BOOTSTRAP, and `viewgate doctor`."
        ) from late


async def _look(switch: Switch, log_: KafkaLog, record: Generation) -> Look:
    # the view before the end of the log: what comes meanwhile shows as behind, never as ahead
    headers = await switch.store(record).headers()
    keys = layout.Layout(switch.definition.name, record.name, record.shards)
    times: Any = await reached(switch.clients.redis.hgetall(keys.progress))
    partitions = _partitions(record)
    ends = {partition: end for partition, (_, end) in (await log_.bounds(partitions)).items()}
    told = times_ms(times)
    readable = [header for header in headers if header.state == layout.LIVE or (header.state and record.state == "building")]
    lags = [_lag(partition, headers, told.get(str(partition)), ends[partition]) for partition in partitions]
    return Look(record.name, record.state, len(headers) - len(readable), record.shards, lags)


def _lag(partition: Partition, headers: Sequence[Header], told_ms: int | None, end: int) -> Lag:
    watermarks = [stored for header in headers if (stored := header.watermarks.get(str(partition)))]
    lowest = min((stored.offset for stored in watermarks), default=None)
    newest_ms = max((stored.ts_ms for stored in watermarks), default=0)
    return Lag(partition, lowest, end, _ago(told_ms), _ago(newest_ms or None))


def _ago(unix_ms: int | None) -> float | None:
    return None if unix_ms is None else round(max(0.0, time.time() - unix_ms / 1000), 3)


async def _record(switch: Switch, name: str | None) -> Generation:
    found = name or await switch.generations.live()
    if found is None:
        raise SwitchRefused(
            "No generation is live: start `viewgate project`, which builds one; --generation shows one that is being built."
        )
    return await switch.named(found)


def _partitions(record: Generation) -> Sequence[Partition]:
    parts = (text.rpartition(":") for text in record.start)
    return sorted(Partition(topic, int(number)) for topic, _, number in parts)


def _table(look: Look) -> Table:
    made = table("partition", "reached", "end", "behind", "age", "newest")
    for column in made.columns[1:]:
        column.justify = "right"
    for lag in look.lags:
        reached_ = "-" if lag.lowest is None else f"{lag.lowest:,}"
        row = (str(lag.partition), reached_, f"{lag.end:,}", f"{lag.records:,}", _seconds(lag.age_seconds), _seconds(lag.newest_seconds))
        made.add_row(*row, style="yellow" if lag.records else None)
    made.add_section()
    made.add_row(_title(look), "", "", f"{look.records:,}", _seconds(look.age_seconds), "", style="bold")
    return made


def _line(look: Look) -> str:
    worst = max(look.lags, key=lambda lag: lag.records, default=None)
    of = f", {worst.partition} {worst.records:,} of them" if worst and worst.records else ""
    return f"{_title(look)}: {look.records:,} records behind{of}; age {_seconds(look.age_seconds)}"


def _title(look: Look) -> str:
    absent = f", {look.absent} of {look.shards} shards cannot be read" if look.absent else ""
    return f"{look.generation} ({look.state}{absent})"


def _seconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds:,.1f} s"


def _object(look: Look) -> Mapping[str, object]:
    partitions = [
        {
            "topic": lag.partition.topic,
            "partition": lag.partition.number,
            "reached": lag.lowest,
            "end": lag.end,
            "lagRecords": lag.records,
            "ageSeconds": lag.age_seconds,
            "newestSeconds": lag.newest_seconds,
        }
        for lag in look.lags
    ]
    total = {"lagRecords": look.records, "ageSeconds": look.age_seconds, "shardsAbsent": look.absent}
    return {"generation": look.generation, "state": look.state, "partitions": partitions, "total": total}
