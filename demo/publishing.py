"""The two ways in which a demo's changes come into Kafka: by single-write with a sink, and by change data capture."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import asyncpg
import msgspec
from rich.console import Console

from demo import capture
from demo.publish import Publisher, publish_all
from demo.scenario import Seed
from demo.servers import connect, debezium
from demo.servers.process import Process, ServerError, until
from demo.servers.stack import Stack
from demo.services import check_alive, service
from demo.sink import end_offsets, sunk
from demo.tables import create_tables
from projectors.records.envelope import decoder
from schema.definition import Definition
from schema.fields import Row

LEVEL_SECONDS = 300
# a first snapshot of a million rows takes a minute or two, and several on a machine that is busy
SNAPSHOT_SECONDS = 900
COPIED_AT_ONCE = 20_000
Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a demo runs. environment: of its processes. folder: of its logs."""

    servers: Stack
    definition: Definition
    environment: Mapping[str, str]
    folder: Path
    cache: Path


class Publishing(Protocol):
    """One of the ways."""

    async def start(self, opened: AsyncExitStack, seed: Seed | None, console: Console) -> Sequence[Process]:
        """Start what brings changes from where services write them to where they are read. seed: unless it is there. Raises ServerError."""
        ...

    async def fill(self, seed: Seed, console: Console) -> None:
        """Write of the seed what can be written only while a projector runs, or as well."""
        ...

    async def published(self, check: Check) -> float:
        """Wait until PostgreSQL and Kafka both have all that was written; since when Kafka has it, in Unix seconds.

        Raises TimeoutError, ServerError, and as `check` does.
        """
        ...

    def traffic(self, seed: Seed) -> tuple[str, ...]:
        """The words after `python -m` of the live changes; none where there are none."""
        ...

    def writes(self, seed: Seed) -> tuple[str, ...]:
        """The same of the service behind the button of /compare."""
        ...


class SingleWrite:
    """Services write Kafka alone; a sink brings it into PostgreSQL."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def start(self, opened: AsyncExitStack, seed: Seed | None, console: Console) -> Sequence[Process]:
        sink = service("sink", ("demo.sink",), self._place.folder, self._place.environment)
        await started(opened, sink)
        return [sink]

    async def fill(self, seed: Seed, console: Console) -> None:
        await publish_all(Publisher(self._place.servers.kafka.address), seed.records(), seed.rows, console)

    async def published(self, check: Check) -> float:
        moment = time.time()
        ends = await end_offsets(self._place.servers.kafka.address, self._place.definition.topics)
        connection = await asyncpg.connect(self._place.servers.postgres.address)

        async def reached() -> None:
            check()
            await sunk(connection, ends)

        try:
            await until(reached, LEVEL_SECONDS)
        finally:
            await connection.close()
        return moment

    def traffic(self, seed: Seed) -> tuple[str, ...]:
        return seed.traffic

    def writes(self, seed: Seed) -> tuple[str, ...]:
        return seed.writes


class Captured:
    """Services write PostgreSQL alone; Debezium publishes what was committed."""

    def __init__(self, place: Place) -> None:
        self._place, self._postgres = place, place.servers.postgres.address

    async def start(self, opened: AsyncExitStack, seed: Seed | None, console: Console) -> Sequence[Process]:
        """With the snapshot: a projector that begins before it has an empty view, which it is never added to."""
        place = self._place
        async with asyncpg.create_pool(self._postgres, min_size=1, max_size=1) as pool:
            await _check_wal(pool)
            await create_tables(pool, place.definition)
            if seed:
                await self._copy(pool, seed, console)
        worker = await opened.enter_async_context(connect.start(place.servers.kafka.address, place.folder, place.cache, say=console.print))
        # told anew at each start, for ports change; what has been captured is not captured again
        await worker.capture(capture.connector(capture.NAME, self._postgres, place.definition))
        with console.status("Waiting until Debezium has published it all …"):
            await self.published(partial(check_alive, [worker.process]))
        return [worker.process]

    async def fill(self, seed: Seed, console: Console) -> None:
        """Nothing: the snapshot has it all."""

    async def published(self, check: Check) -> float:
        connection = await asyncpg.connect(self._postgres)
        try:
            await debezium.captured(connection, capture.NAME, SNAPSHOT_SECONDS, check)
        except TimeoutError as late:
            raise ServerError(f"Debezium has not published everything after {SNAPSHOT_SECONDS} s ({late}): see connect.log") from late
        finally:
            await connection.close()
        return time.time()

    def traffic(self, seed: Seed) -> tuple[str, ...]:
        return seed.written

    def writes(self, seed: Seed) -> tuple[str, ...]:
        return seed.writes_sql

    async def _copy(self, pool: asyncpg.Pool, seed: Seed, console: Console) -> None:
        console.print(f"Writing {seed.rows:,} rows into PostgreSQL")
        await copy(pool, self._place.definition, seed)


async def started(opened: AsyncExitStack, process: Process) -> None:
    """Start it; it is stopped at the end."""
    opened.push_async_callback(process.stop)
    await process.start()


async def copy(pool: asyncpg.Pool, definition: Definition, seed: Seed) -> None:
    """A seed's rows into their tables, which are empty."""
    rows = {row.source.topic: row for row in definition.rows}
    decoders = {topic: decoder(row) for topic, row in rows.items()}
    waiting: dict[str, list[Row]] = defaultdict(list)
    for topic, _, value in seed.records():
        after = decoders[topic](value).after
        if after is not None:
            waiting[topic].append(after)
        if len(waiting[topic]) == COPIED_AT_ONCE:
            await copy_rows(pool, rows[topic], waiting.pop(topic))
    for topic, left in waiting.items():
        await copy_rows(pool, rows[topic], left)


async def copy_rows(pool: asyncpg.Pool | asyncpg.Connection, row: type[Row], rows: Sequence[Row]) -> None:
    """Rows of one table, by COPY."""
    columns = [column.name for column in msgspec.structs.fields(row)]
    await pool.copy_records_to_table(row.source.table, records=map(msgspec.structs.astuple, rows), columns=columns)


async def _check_wal(pool: asyncpg.Pool) -> None:
    level = await pool.fetchval("SHOW wal_level")
    if level != "logical":
        raise ServerError(f"PostgreSQL runs with wal_level={level}: set it to logical in its configuration and start it again")
