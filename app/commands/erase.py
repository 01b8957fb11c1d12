"""`viewgate erase`: a person, or whatever the view is of, out of every place that is ours, with a report."""

import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import asyncpg
import typer
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from redis.exceptions import ResponseError

from app.cached import Cached
from app.cli import FAILED, CommandError
from app.clients import Clients, open_clients
from app.console import console, table
from app.settings import Settings, read_settings
from app.telemetry import set_up_logs
from app.topics import dead_letters
from app.views import definition_of
from loaders.sql import AWAY
from projectors.apply import StoreUnavailable
from projectors.clock import SystemClock
from projectors.dead_letters import CannotDelete, Owner, find_letters, remove_letters
from projectors.erasure import Erasure, NotSettled, Traces, left_in_sql
from projectors.generations import Generations
from projectors.log import end
from projectors.topic_reader import KafkaReader
from schema import layout
from schema.definition import Definition
from schema.positions import Partition

SQL_SECONDS = 60.0
NOTHING = "nothing"


class Line(NamedTuple):
    """Of the report."""

    place: str
    found: str
    done: str


class Asked(NamedTuple):
    """What the command was told."""

    id: str
    names: Sequence[str]
    scan: bool
    dry_run: bool
    force: bool
    wait_seconds: float


def erase(
    id: Annotated[str, typer.Argument(help="The id of a row of the view, such as 1.")],
    username: Annotated[
        list[str] | None, typer.Option("--username", metavar="NAME", help="A name that they bear or have borne; may be repeated.")
    ] = None,
    scan: Annotated[bool, typer.Option("--scan", help="Look at every key for names that nobody knows any more. Slow.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what there is.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Do it though the source still has them, or cannot be asked.")] = False,
    wait: Annotated[float, typer.Option(help="Seconds that the projector may take to be level with Kafka.", min=0)] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list: place, found, done.")] = False,
) -> None:
    """Erase a user (or whatever the view is of) from every generation, the cache and the dead letters, and report it.

    Delete them in the source first: what SQL still has is refused. May be run at any hour, under load, and again. Exits with 1
    if anything could not be erased. docs/erasing.md says what remains, and why.

    \b
    Examples:
      viewgate erase 1 --dry-run
      viewgate erase 1
      viewgate erase 1 --username ada --username ada_1999
    """
    settings = read_settings()
    set_up_logs("error" if settings.log_level == "info" else settings.log_level)
    definition = definition_of(settings)
    try:
        asked = Asked(layout.canonical(definition.key_type, id), username or [], scan, dry_run, force, wait)
    except layout.InvalidKey as error:
        raise CommandError(f"No {definition.name} can have the id {id!r}: {error}.") from error
    try:
        erasing = uvloop.run(_erase(settings, definition, asked))
    except (KafkaError, StoreUnavailable, ResponseError) as error:
        told = f"{definition.name} {id} may not be erased everywhere: {error!r}. See `viewgate doctor`, and run it again."
        raise CommandError(told) from error
    _show(erasing.lines, as_json=as_json)
    if erasing.failures:
        typer.echo("\n".join(erasing.failures), err=True)
        sys.exit(FAILED)


async def _erase(settings: Settings, definition: Definition, asked: Asked) -> "Erasing":
    async with open_clients(settings) as clients, _kafka(settings) as (consumer, admin):
        erasing = Erasing(settings, definition, asked, clients, consumer, admin)
        await erasing.run()
        return erasing


@dataclass(slots=True)
class Erasing:
    """One run of the command. lines: its report so far. failures: what could not be erased, a sentence each."""

    settings: Settings
    definition: Definition
    asked: Asked
    clients: Clients
    consumer: AIOKafkaConsumer
    admin: AIOKafkaAdminClient
    lines: list[Line] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def cached(self) -> Cached:
        """What caches keep of the row."""
        return Cached(self.clients.cache, self.definition, self.asked.id)

    async def run(self) -> None:
        """Look everywhere, then ask the source, then erase. Raises CommandError where the source still has them."""
        erasure = Erasure(self.clients.redis, self.definition, self.asked.id, [*self.asked.names, *await self.cached.names()])
        records = await Generations(self.clients.redis, self.definition).all()
        for record in records:
            if self.asked.scan:
                await erasure.scan(record)
            await erasure.find(record)
        # again: a name that a later one bears is looked for in the earlier ones too
        found = [await erasure.find(record) for record in records]
        left = await self._source()
        live, until = await Generations(self.clients.redis, self.definition).live(), time.monotonic() + self.asked.wait_seconds
        for traces in found:
            await self._generation(erasure, traces, until, is_live=traces.record.name == live, left=left)
        await self._cache(erasure.values)
        await self._letters()
        topics = ", ".join([*self.definition.changelogs, *self.definition.topics])
        self.lines.append(Line(f"topics {topics}", "their changes, old and new", "remain: by retention or compaction of your own"))
        self.lines.append(Line("backups of Kafka, Redis, PostgreSQL", "not looked at", "remain: by their own end"))

    async def _source(self) -> Mapping[str, int]:
        """What SQL still has of them."""
        try:
            left = await left_in_sql(self.clients.postgres, self.definition, self.asked.id, SQL_SECONDS)
        except (*AWAY, asyncpg.PostgresError) as error:
            self._refuse(f"PostgreSQL cannot be asked whether it still has them ({error!r}).")
            self.lines.append(Line("PostgreSQL", "cannot be asked", "not looked at"))
            return {}
        told = ", ".join(f"{count:,} in {name}" for name, count in left.items())
        if left:
            self._refuse(f"PostgreSQL still has them: {told}. Delete these rows there first: the next rebuild would bring them back.")
        self.lines.append(Line("PostgreSQL", told or NOTHING, "yours to delete" if left else "-"))
        return left

    def _refuse(self, reason: str) -> None:
        if not (self.asked.force or self.asked.dry_run):
            raise CommandError(f"{self.definition.name} {self.asked.id} was not erased: {reason} --force does it all the same.")

    async def _generation(self, erasure: Erasure, traces: Traces, until: float, *, is_live: bool, left: Mapping[str, int]) -> None:
        record = traces.record
        try:
            done = await self._done(erasure, traces, until, is_live=is_live)
        except NotSettled as unsettled:
            done = f"not erased: it {str(unsettled).removeprefix(f'generation {record.name} ')}"
            self.failures.append(
                f"{unsettled}: see that `viewgate project` of its definition runs and that their deletion is in Kafka, and run it again; "
                f"or `viewgate drop {record.name}` if it is not live; --force erases what is there now."
            )
        if traces.counts:
            done += f"; {_stay(traces, left)}"
        self.lines.append(Line(f"generation {record.name} ({'live' if is_live else record.state})", _told(traces), done))

    async def _done(self, erasure: Erasure, traces: Traces, until: float, *, is_live: bool) -> str:
        """Erase what a generation holds, or let its projector do so. Raises NotSettled."""
        record = traces.record
        is_kept = is_live or (record.state == "retired" and record.definition == self.definition.fingerprint)
        if self.asked.dry_run:
            return "would be erased" if traces.is_erasable else "-"
        if is_kept and not self.asked.force:
            known = await erasure.erase_settled(record, self._ends, SystemClock(), until)
            return "erased" if known.is_erasable else "erased by the projector" if traces.is_erasable else "-"
        while not await erasure.erase(traces):
            if time.monotonic() > until:
                raise NotSettled(f"generation {record.name} changes all the time")
            traces = await erasure.find(record)
        return "erased" if traces.is_erasable else "-"

    async def _ends(self) -> Mapping[Partition, int]:
        bounds = await KafkaReader(self.consumer, self.definition.topics).bounds()
        return {partition: end for partition, (_, end) in bounds.items()}

    async def _cache(self, values: set[str]) -> None:
        found = await self.cached.find(values, scan=self.asked.scan)
        if found and not self.asked.dry_run:
            await self.cached.erase(found)
        done = "-" if not found else "would be erased" if self.asked.dry_run else "erased"
        self.lines.append(Line("caches", f"entries: {len(found)}" if found else NOTHING, done))

    async def _letters(self) -> None:
        topic = dead_letters(self.settings, self.definition)
        place = f"dead letters, {topic}"
        # asked for by its name, a topic that is missing might be made
        if topic not in await self.admin.list_topics():
            self.lines.append(Line(place, "no such topic", "-"))
            return
        reader, owner = KafkaReader(self.consumer, [topic]), Owner(self.definition, self.asked.id)
        letters = await find_letters(reader, owner)
        found = f"{letters.own} of {letters.own + letters.others:,}" if letters.own else NOTHING
        if letters.unread:
            found += f"; {len(letters.unread)} that cannot be read: {', '.join(letters.unread[:5])}"
        done = "-"
        if letters.own and self.asked.dry_run:
            done = "would be erased"
        elif letters.own:
            try:
                async with _producer(self.settings) as producer:
                    await remove_letters(reader, owner, letters, producer, self.admin)
                done = f"erased; {letters.others:,} others written again"
            except CannotDelete as refused:
                done = "not erased"
                self.failures.append(f"{topic} still has {letters.own} letters of theirs: {refused}. Delete the topic, or let them expire.")
        self.lines.append(Line(place, found, done))


def _told(traces: Traces) -> str:
    told = ["profile"] if traces.profile else []
    told += [f"{claim.field} {claim.value}" for claim in traces.claims]
    told += [f"{name} {count:,}" for name, count in traces.counts.items()]
    told += [f"{len(traces.stale)} keys of older builds"] if traces.stale else []
    told += ["counts of 0"] if traces.has_row and not told else []
    return ", ".join(told) or NOTHING


def _stay(traces: Traces, left: Mapping[str, int]) -> str:
    """Counts are no data of the person's own, but of rows."""
    if left:
        return "counts stay: the rows that they count exist"
    return f"counts stay, as far as it has come: `viewgate drop {traces.record.name}` removes all"


def _show(lines: Sequence[Line], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([line._asdict() for line in lines], ensure_ascii=False))
        return
    shown = table(*Line._fields)
    for line in lines:
        shown.add_row(*line)
    console().print(shown)


@asynccontextmanager
async def _kafka(settings: Settings) -> AsyncIterator[tuple[AIOKafkaConsumer, AIOKafkaAdminClient]]:
    bootstrap = settings.kafka_bootstrap
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="none", isolation_level="read_committed")
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await consumer.start()
        await admin.start()
        yield consumer, admin
    finally:
        await admin.close()
        await end(consumer.stop())


@asynccontextmanager
async def _producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        yield producer
    finally:
        await end(producer.stop())
