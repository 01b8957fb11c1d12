"""`viewgate audit`: every field of a generation against SQL or a fold of the log, once or all the time, and what differs put right."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer
import uvloop
from aiokafka.errors import KafkaError
from prometheus_client import start_http_server
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.audit_metrics import AuditMetrics
from app.audit_watch import Watch
from app.auditing import PAGE, Audited, NothingToAudit, Page, audited, ids_of
from app.cli import CommandError
from app.clients import open_clients
from app.console import console
from app.settings import Settings, read_settings
from app.stopping import told_to_stop
from app.telemetry import set_up_logs
from app.views import definition_of
from loaders.sql import AWAY
from projectors.apply import ShardFailed, StoreUnavailable
from projectors.audit import AuditStuck, Mismatch, Report
from projectors.clock import SystemClock
from projectors.repair import Base, LogBase, RepairStuck
from projectors.replay import ReplayImpossible, WritesLost
from schema.loader import LoadError, SourceUnavailable

SHOWN = 20
SAMPLE = 10_000


class Against(StrEnum):
    """What says what is right."""

    SQL = "sql"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command was told."""

    against: Against
    sample: int | None
    generation: str | None
    repair: bool
    rate: int
    metrics_port: int


def audit(
    against: Annotated[
        Against, typer.Option(help="What says what is right: the source database, or Kafka from its beginning.")
    ] = Against.SQL,
    sample: Annotated[
        int | None, typer.Option(help="So many users at random; without it all against SQL, 10,000 against the log.", min=1)
    ] = None,
    generation: Annotated[str | None, typer.Option(help="Such as g2; without it the live one.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what differs, while projectors write on.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, round after round, until Ctrl-C.")] = False,
    rate: Annotated[int, typer.Option(help="Most users a second that --watch looks at.", min=1)] = 100,
    metrics_port: Annotated[int, typer.Option(help="Where --watch has its /metrics; 0: nowhere.", min=0, max=65535)] = 0,
) -> None:
    """Compare every field of every user, every lookup and every stray hash with SQL or the log. Exits with 1 if anything differs.

    Against SQL a difference counts only if it is still there after the projector has passed the moment it was seen, so that it can run
    at any hour, under load. Against the log each user is held against exactly what its watermarks say.

    \b
    Examples:
      viewgate audit
      viewgate audit --against log --sample 1000
      viewgate audit --repair
      viewgate audit --watch --rate 50 --metrics-port 9200
    """
    settings = read_settings()
    set_up_logs("error" if settings.log_level == "info" else settings.log_level)
    asked = Asked(against, sample, generation, repair, rate, metrics_port)
    if uvloop.run(_run(settings, asked, watch=watch)):
        sys.exit(1)


async def _run(settings: Settings, asked: Asked, *, watch: bool) -> bool:
    """Whether anything differs at the end. What may go wrong becomes the sentence of a command."""
    try:
        async with open_clients(settings) as clients, AsyncExitStack() as opened:
            found = await audited(settings, definition_of(settings), clients, asked.generation)
            source = await (_by_sql if asked.against is Against.SQL else _by_log)(found, asked, opened)
            return await (_watched if watch else _once)(source, asked)
    except NothingToAudit as nothing:
        raise CommandError(str(nothing)) from nothing
    except (SourceUnavailable, *AWAY) as away:
        raise CommandError(
            f"PostgreSQL cannot be reached ({away}): see VIEWGATE_POSTGRES_URL. `viewgate audit --against log` needs none."
        ) from away
    except KafkaError as away:
        raise CommandError(f"Kafka cannot be reached ({away!r}): see VIEWGATE_KAFKA_BOOTSTRAP, and `viewgate doctor`.") from away
    except ReplayImpossible as impossible:
        raise CommandError(f"The log cannot tell what is right: {impossible}") from impossible
    except (AuditStuck, LoadError, RepairStuck, ShardFailed, StoreUnavailable, WritesLost) as error:
        raise CommandError(f"The audit could not be finished: {error} `viewgate doctor` says what is wrong.") from error


class Source:
    """Where rounds come from, and how what they find is put right. bars: what shows how far they are."""

    def __init__(self, found: Audited, base: Callable[[], Awaitable[Base]], bars: Progress) -> None:
        self.found, self._base, self.bars = found, base, bars
        self.rows = bars.add_task("Comparing", total=None)
        self.records = bars.add_task("Reading the log", total=None, visible=False)
        self.begin: Callable[[int], AsyncIterator[Page]]
        self.left_out: Callable[[], int] = lambda: 0

    def read(self, records: int) -> None:
        self.bars.update(self.records, advance=records, visible=True)

    async def mend(self, ids: Iterable[str]) -> list[Mismatch]:
        """What was put right. Raises what a repair raises."""
        async with self.found.tail() as tail:
            repair = self.found.repair(await self._base(), tail, self.read)
            try:
                await repair.run(ids)
            except RepairStuck as stuck:
                typer.echo(f"Not all could be mended: {stuck}", err=True)
            return repair.mended


async def _by_sql(found: Audited, asked: Asked, _: AsyncExitStack) -> Source:
    source = Source(found, found.base, _bars())
    source.begin = lambda page: found.by_sql(asked.sample, page, lambda rows: source.bars.update(source.rows, total=rows))
    return source


async def _by_log(found: Audited, asked: Asked, opened: AsyncExitStack) -> Source:
    async def base() -> Base:
        return LogBase(found.record)

    source = Source(found, base, _bars())
    tail = await opened.enter_async_context(found.tail())
    source.bars.update(source.records, total=await found.behind(tail), visible=True)
    share = await found.share(asked.sample or SAMPLE)
    audit_ = found.by_log(share, tail, source.read)

    async def begin(page: int) -> AsyncIterator[Page]:
        async for report in audit_.reports(found.in_view(share, max(page, 1))):
            yield Page(report.rows, report)

    source.begin, source.left_out = begin, lambda: len(audit_.unjudged)
    return source


async def _once(source: Source, asked: Asked) -> bool:
    report = Report()
    with source.bars:
        async for page in source.begin(PAGE):
            report.rows += page.report.rows
            report.fields += page.report.fields
            report.mismatches += page.report.mismatches
            source.bars.advance(source.rows, page.report.rows)
        _tell(source, asked, report.mismatches)
        wrong = ids_of(report.mismatches)
        mended = await source.mend(wrong) if asked.repair and wrong else []
    for mismatch in mended:
        typer.echo(f"{_at(source, mismatch)} mended, from {_shown(mismatch.in_view)} to {_shown(mismatch.in_sql)}")
    left = sorted(wrong - ids_of(mended))
    if asked.repair and left:
        typer.echo(f"Not mended, for by the log nothing was to be mended, or because of what is said above: {', '.join(left[:SHOWN])}")
    told = f", {len(mended)} mended" if asked.repair else ""
    typer.echo(f"{report.rows} rows checked, {report.fields} fields compared, {len(report.mismatches)} mismatches{told}")
    if shards := source.left_out():
        typer.echo(f"{shards} of {source.found.record.shards} shards were left out: they are being rebuilt, or failed.")
    return bool(left)


async def _watched(source: Source, asked: Asked) -> bool:
    """Until told to stop."""
    metrics, stop, out = AuditMetrics(), told_to_stop(), console()
    if asked.metrics_port:
        start_http_server(asked.metrics_port, addr=source.found.settings.host, registry=metrics.registry)
    page = min(PAGE, asked.rate)
    watch = Watch(partial(source.begin, page), source.mend if asked.repair else None, asked.rate, metrics, SystemClock(), out.print)
    with Live(watch.table(), console=out, auto_refresh=False) if out.is_terminal else contextlib.nullcontext() as live:
        running = asyncio.create_task(
            watch.run(lambda w: live.update(w.table(), refresh=True) if live else None, lambda w: None if live else out.print(w.line()))
        )
        told = asyncio.create_task(stop.wait())
        await asyncio.wait({running, told}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if running.done():
            running.result()
        while not running.done():
            # a client may take a cancellation for a server that is away, which the watch would wait for
            running.cancel()
            await asyncio.wait({running}, timeout=1)
    return watch.differs


def _bars() -> Progress:
    out = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=out, disable=not out.is_terminal)


def _tell(source: Source, asked: Asked, mismatches: Sequence[Mismatch]) -> None:
    there = "SQL" if asked.against is Against.SQL else "the log"
    for mismatch in mismatches[:SHOWN]:
        typer.echo(f"{_at(source, mismatch)} is {_shown(mismatch.in_view)} in the view, {_shown(mismatch.in_sql)} in {there}")


def _at(source: Source, mismatch: Mismatch) -> str:
    return f"{source.found.definition.name} {mismatch.id}: {mismatch.field}"


def _shown(fragment: bytes | None) -> str:
    return "absent" if fragment is None else fragment.decode()
