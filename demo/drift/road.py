"""One way's road from its writers to its view: filled, and brought to rest. Starts nothing (opening.py) and compares nothing."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg
from redis.asyncio import Redis

from demo import seed as seeds
from demo.drift.course import Course
from demo.drift.outbox import TABLE, message
from demo.drift.plan import mark, size_of
from demo.drift.rows import Changed, insert_all, now_ms
from demo.drift.ways import WAYS
from demo.drift.writers import Writers
from demo.publish import Publisher
from demo.servers.process import NotReadyError, Process, ServerError, until
from demo.services import check_alive
from demo.sink import end_offsets, sunk
from loaders.view import ViewLoader
from projectors.apply import RedisStore
from projectors.generations import Generations, level
from schema.definition import Definition
from schema.fields import Row
from schema.generation import Generation
from schema.loader import LoadError, Read

LEVEL_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is written, in every way alike. rounds: bursts of `burst` acts of each writer, `rate` a second; a kill in each but the first."""

    users: int
    seed: int
    rounds: int
    burst: int
    rate: float


class Road:
    """writers: running, and idle until they are driven. processes: what else must live as long as the road."""

    def __init__(
        self,
        course: Course,
        kafka: str,
        definition: Definition,
        pool: asyncpg.Pool,
        redis: Redis,
        writers: Writers,
        processes: Sequence[Process],
    ) -> None:
        self.course, self.definition, self.pool, self.redis = course, definition, pool, redis
        self.writers, self._kept, self._kafka = writers, processes, kafka
        self._publisher = Publisher(kafka, course.prefix)
        self._way = WAYS[course.way](pool, self._publisher)
        self._view = ViewLoader(redis, definition)
        self._generations = Generations(redis, definition)
        self._marks = 0

    def check(self) -> None:
        """Raises ServerError, with the name of its log, when a process of the road has ended by itself."""
        check_alive([*self._kept, *self.writers.processes])

    async def fill(self, users: int) -> None:
        """What is there before the first act. Nobody is killed meanwhile."""
        tables: dict[type[Row], list[Changed]] = defaultdict(list)
        for row in seeds.rows(size_of(users)):
            tables[type(row)].append(Changed("c", None, row, now_ms()))
        if not self.course.sink:
            await self._insert(tables)
        if self.course.captured is None:
            for changed in (one for rows in tables.values() for one in rows):
                self._publisher.publish(*changed)
            await asyncio.to_thread(self._publisher.flush)
        if self.course.sink:
            await self._sunk(await end_offsets(self._kafka, self.definition.topics))

    async def settle(self, users: int) -> Generation:
        """Return when view and database have everything that was written; the live generation. Raises ServerError."""
        self._marks += 1
        edit = mark(size_of(users), self._marks)
        await self._way.do(edit)
        try:
            await until(lambda: self._shows(edit.user_id, edit.columns["name"]), LEVEL_SECONDS)
            ends = await end_offsets(self._kafka, self.definition.topics)
            if self.course.sink:
                await self._sunk(ends)
            await until(lambda: self._reached(ends), LEVEL_SECONDS)
        except TimeoutError as late:
            raise ServerError(f"{self.course.way}: not level after {LEVEL_SECONDS} s ({late}): see the logs in .cache/drift") from late
        return await self._live()

    async def _insert(self, tables: Mapping[type[Row], list[Changed]]) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            for rows in tables.values():
                await insert_all(connection, [changed.row for changed in rows])
                if self.course.captured == "outbox":
                    columns = ("aggregate", "aggregate_id", "payload")
                    await connection.copy_records_to_table(TABLE, records=map(message, rows), columns=columns)

    async def _sunk(self, ends: Mapping[tuple[str, int], int]) -> None:
        try:
            await until(lambda: self._has(ends), LEVEL_SECONDS)
        except TimeoutError as late:
            raise ServerError(f"{self.course.way}: not in PostgreSQL after {LEVEL_SECONDS} s ({late}): see the log of its sink") from late

    async def _has(self, ends: Mapping[tuple[str, int], int]) -> None:
        self.check()
        await sunk(self.pool, ends)

    async def _shows(self, user_id: int, name: str) -> None:
        self.check()
        try:
            (row,) = (await self._view.load([Read("id", str(user_id), ("name",))])).rows
        except LoadError as not_yet:
            raise NotReadyError(str(not_yet)) from not_yet
        if row is None or row[0] != f'"{name}"'.encode():
            raise NotReadyError(f"user {user_id} is {row} in the view, and not yet {name!r}")

    async def _reached(self, ends: Mapping[tuple[str, int], int]) -> None:
        self.check()
        record = await self._live()
        headers = await RedisStore.of(self.redis, self.definition, record).headers()
        if not level(record, headers, {f"{topic}:{number}": end for (topic, number), end in ends.items()}):
            raise NotReadyError(f"the view has not reached {ends}")

    async def _live(self) -> Generation:
        name = await self._generations.live()
        record = await self._generations.read(name) if name else None
        if record is None:
            raise NotReadyError("no generation is live yet")
        return record
