"""What `viewgate audit` looks at and mends: one generation, against SQL or the log. Prints nothing."""

import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from app.clients import Clients
from app.feeds import open_consumer, rows_source
from app.settings import Settings
from loaders.sql import SqlLoader, count, keys
from loaders.view import ViewLoader
from projectors.apply import RedisStore
from projectors.audit import Audit, Mismatch, Report, ids_in_view
from projectors.calls import Packing
from projectors.clock import SystemClock
from projectors.generations import Generations
from projectors.log import end
from projectors.log_audit import LogAudit, Sample
from projectors.repair import LATE_SECONDS, Base, LogBase, Repair, RepairStuck, SqlBase, start_of
from projectors.replay import KafkaTail, ReplayImpossible
from projectors.rows_at import NoOffsets, rows_at, some_keys
from projectors.stored import RedisShards
from projectors.sweeping import size
from projectors.topic_ids import topic_ids
from schema.definition import Definition
from schema.generation import Generation
from schema.layout import Layout

PAGE = 1000
Pages = AsyncIterator[Sequence[str]]


class Page(NamedTuple):
    """looked: how many ids were looked at. report: what was found."""

    looked: int
    report: Report


class NothingToAudit(Exception):
    """There is no such generation; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Audited:
    """One generation with what it is held against. named: it was asked for by its name, so that it need not be live."""

    settings: Settings
    definition: Definition
    clients: Clients
    record: Generation
    named: bool

    @property
    def keys(self) -> Layout:
        return Layout(self.definition.name, self.record.name, self.record.shards)

    @property
    def store(self) -> RedisStore:
        return RedisStore.of(self.clients.redis, self.definition, self.record)

    @property
    def shards(self) -> RedisShards:
        return RedisShards(self.clients.redis, Packing(self.definition, self.record))

    async def by_sql(self, sample: int | None, page: int, told: Callable[[int], None]) -> AsyncIterator[Page]:
        """A round against SQL: all rows and lookups of it, or so many; then what the view has too many. told: how many rows there are.

        Raises AuditStuck, LoadError, StoreUnavailable, asyncpg's errors.
        """
        view = ViewLoader(self.clients.redis, self.definition, generation=self.record.name if self.named else None)
        audit = Audit(self.definition, view, SqlLoader(self.clients.postgres, self.definition), SystemClock(), lambda _: None)
        rows, pages = await self.in_sql(sample, page)
        told(rows)
        async for ids in pages:
            yield Page(len(ids), await audit.run(_pages(ids, page), _pages((), page)))
        async for ids in self.in_view(await self.share(sample), page):
            yield Page(len(ids), await audit.run(_pages((), page), _pages(ids, page)))

    def by_log(self, share: Sample, tail: KafkaTail, told: Callable[[int], None]) -> LogAudit:
        """Rounds against a fold of the log. told: how many records were just read."""
        base = LogBase(self.record)
        return LogAudit(self.definition, self.record, self.store, self.shards, base, tail, SystemClock(), share, told)

    async def in_sql(self, sample: int | None, page: int = PAGE) -> tuple[int, Pages]:
        """How many rows, and pages of their ids: all, or so many at random. Raises LoadError, and asyncpg's errors."""
        rows = await count(self.clients.postgres, self.definition)
        if sample is None or sample >= rows:
            return rows, keys(self.clients.postgres, self.definition, page)
        some = await some_keys(self.clients.postgres, self.definition, sample)
        return len(some), _pages(some, page)

    async def in_view(self, share: Sample, page: int = PAGE) -> Pages:
        async for ids in ids_in_view(self.clients.redis, self.definition.name, self.record, page):
            yield [row_id for row_id in ids if row_id in share]

    async def share(self, sample: int | None) -> Sample:
        """Of the keys, so many by a guess at how many there are. Raises StoreUnavailable."""
        if sample is None:
            return Sample(1.0, "")
        rows = (await size(self.clients.redis, self.keys)).rows
        return Sample(min(1.0, sample / max(rows, 1)), secrets.token_hex(4))

    async def base(self) -> Base:
        """SQL where it is known where the log goes on after it, else the beginning of the log. Raises asyncpg's errors."""
        if self.record.slot:
            return self.sql_base()
        try:
            async with rows_at(self.clients.postgres, self.definition):
                return self.sql_base()
        except NoOffsets:
            return LogBase(self.record)

    def sql_base(self) -> Base:
        source = rows_source(self.settings, self.definition, self.clients.postgres, self.record.slot, _not_for_ever)
        return SqlBase(source, self.record)

    @asynccontextmanager
    async def tail(self) -> AsyncIterator[KafkaTail]:
        """The log, by a consumer of its own in no group. Raises KafkaError, ReplayImpossible where a topic was made anew."""
        consumer = open_consumer(self.settings, None)
        await consumer.start()
        try:
            ids = await topic_ids(consumer._client, self.definition.topics)  # aiokafka shows no other way to its connections
            anew = [topic for topic, known in self.record.topic_ids.items() if ids.get(topic, known) != known]
            if anew:
                raise ReplayImpossible(f"topic {', '.join(anew)} was deleted and made anew. Run `viewgate rebuild`.")
            yield KafkaTail(consumer, self.definition.topics)
        finally:
            await end(consumer.stop())

    async def behind(self, tail: KafkaTail) -> int:
        """How many records lie between where the generation began and Kafka's end."""
        start = start_of(self.record)
        return sum(last - start.get(partition, 0) for partition, (_, last) in (await tail.bounds()).items())

    def repair(self, base: Base, tail: KafkaTail, told: Callable[[int], None]) -> Repair:
        return Repair(self.definition, self.record, self.store, self.shards, base, tail, SystemClock(), told)


def _not_for_ever(what: str, seconds: float) -> None:
    """Raises RepairStuck."""
    if seconds > LATE_SECONDS:
        raise RepairStuck(f"{what} It took {seconds:.0f} s already: try again when that is over.")


async def audited(settings: Settings, definition: Definition, clients: Clients, name: str | None) -> Audited:
    """The live generation, or the one of this name. Raises NothingToAudit, StoreUnavailable."""
    generations = Generations(clients.redis, definition)
    wanted = name or await generations.live()
    record = await generations.read(wanted) if wanted else None
    if record is None and name:
        there = ", ".join(record.name for record in await generations.all()) or "none"
        raise NothingToAudit(f"There is no generation {name} (there is {there}): `viewgate generations` lists them.")
    if record is None:
        raise NothingToAudit("No generation of the view is live: nothing to audit. Start `viewgate project` and let it build one.")
    if record.definition != definition.fingerprint:
        raise NothingToAudit(
            f"Generation {record.name} was built with another definition: run the version that built it, or `viewgate rebuild`."
        )
    return Audited(settings, definition, clients, record, name is not None)


def ids_of(mismatches: Iterable[Mismatch]) -> set[str]:
    """The rows that they are about; of a lookup, those that it found and those that it should find."""
    ids = set()
    for mismatch in mismatches:
        if not mismatch.field.startswith("by "):
            ids.add(mismatch.id)
            continue
        for side in (mismatch.in_view, mismatch.in_sql):
            # what is told of a claim begins with the id, or with no JSON
            if side is not None and side.startswith(b'"'):
                ids.add(msgspec.json.decode(side.partition(b" at ")[0], type=str))
    return ids


async def _pages(ids: Sequence[str], page: int) -> Pages:
    for at in range(0, len(ids), page):
        yield ids[at : at + page]
