"""A whole road for one test on the shared servers: topics of its own, a database of its own, a Redis emptied for it.

Publish through `publisher`, run projectors (as processes, so that they can be killed) and the sink, and compare the view with SQL.
"""

import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from app.clients import open_redis
from app.cluster.url import names_cluster
from app.settings import Settings, key_of
from demo.publish import Publisher
from demo.servers.kafka import create_topics
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from demo.sink import end_offsets, sink, sunk
from demo.tables import create_tables
from loaders.sql import SqlLoader
from loaders.view import ViewLoader
from schema.definition import Definition, read_definition
from schema.loader import Read, ViewNotReady
from schema.user import UserView

_numbers = itertools.count()
# where there are as many brokers
REPLICAS = 3
Fields = dict[str, bytes]


@dataclass(slots=True)
class Road:
    """settings: those of the projector, also for a process (`environment`). pool: the source database."""

    definition: Definition
    settings: Settings
    publisher: Publisher
    redis: Redis
    pool: asyncpg.Pool
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **variables(self.settings)}

    @property
    def view(self) -> ViewLoader:
        return ViewLoader(self.redis, self.definition)

    @property
    def sql(self) -> SqlLoader:
        return SqlLoader(self.pool, self.definition)

    async def start(self, *command: str, said: Path | None = None, **environment: str) -> asyncio.subprocess.Process:
        """Run `python …` with the road's settings; ended with the road, if it has not ended by then. said: where its stderr goes."""
        with said.open("ab") if said else contextlib.nullcontext() as stderr:
            environ = {**self.environment, **environment}
            process = await asyncio.create_subprocess_exec(sys.executable, *command, env=environ, stderr=stderr)
        self.processes.append(process)
        return process

    async def project(self) -> asyncio.subprocess.Process:
        """`viewgate project`, in a process of its own."""
        return await self.start("-m", "app", "project")

    async def rebuilt(self, *words: str, said: Path, seconds: float = 60) -> None:
        """`viewgate rebuild` and its promotion, by a process that must end well."""
        process = await self.start("-m", "app", "rebuild", *words, "--promote", said=said)
        async with asyncio.timeout(seconds):
            assert await process.wait() == 0, said.read_text()[-2000:]  # noqa: ASYNC240  # the process that wrote it has ended

    async def sunk(self, seconds: float = 120) -> None:
        """Bring everything published into PostgreSQL."""
        self.publisher.flush()
        ends = await end_offsets(self.settings.kafka_bootstrap, self.definition.topics)
        stop = asyncio.Event()
        running = asyncio.create_task(sink(self.definition, self.settings.kafka_bootstrap, self.settings.postgres_url, stop))
        try:
            await until(lambda: sunk(self.pool, ends), seconds)
        finally:
            stop.set()
            await running

    async def agree(self, seconds: float = 60) -> int:
        """Return when every field of every row in SQL is the same in the view, and the view has no other rows; how many rows."""
        rows = 0

        async def same() -> None:
            nonlocal rows
            in_sql, in_view = await self.in_sql(), await self.in_view()
            differing = [key for key in in_sql.keys() | in_view.keys() if in_sql.get(key) != in_view.get(key)]
            if differing:
                one = differing[0]
                raise NotReadyError(f"{len(differing)} rows differ, {one}: SQL has {in_sql.get(one)}, the view {in_view.get(one)}")
            rows = len(in_sql)

        await until(same, seconds)
        return rows

    async def in_sql(self) -> dict[str, Fields]:
        """Every row by id, its fields as JSON fragments."""
        source = self.definition.base.source
        keys = [str(key) for (key,) in await self.pool.fetch(f'SELECT "{source.key}" FROM "{source.table}"')]
        names = tuple(f.name for f in self.definition.fields)
        rows = (await self.sql.load([Read("id", key, names) for key in keys])).rows
        return {key: dict(zip(names, row, strict=True)) for key, row in zip(keys, rows, strict=True) if row is not None}

    async def in_view(self) -> dict[str, Fields]:
        """Every row of the live generation by id, its fields as JSON fragments; rows without a profile are none."""
        pattern = f"{self.definition.name.lower()}:g*.*:{{*}}:*"
        keys = [key.decode().split("}:", 1)[1] async for key in self.redis.scan_iter(pattern, count=5000) if b"}:" in key]
        names = tuple(f.name for f in self.definition.fields)
        try:
            rows = (await self.view.load([Read("id", key, names) for key in keys])).rows
        except ViewNotReady as not_ready:
            raise NotReadyError(str(not_ready)) from not_ready
        return {key: dict(zip(names, row, strict=True)) for key, row in zip(keys, rows, strict=True) if row is not None}


@asynccontextmanager
async def open_road(kafka: Server, redis: Server, postgres: Server, view: type = UserView, partitions: int = 6) -> AsyncIterator[Road]:
    """A road for one view definition. Everything it started is stopped at its end."""
    name = f"road{next(_numbers)}"
    definition = read_definition(view, f"{name}.")
    url = await make_database(postgres, name)
    await create_topics(kafka.address, dict.fromkeys(definition.topics, partitions), replicas=REPLICAS)
    settings = Settings(
        kafka_bootstrap=kafka.address, redis_url=redis.address, postgres_url=url, topic_prefix=f"{name}.", consumer_group=name
    )
    client = client_of(redis.address)
    await client.flushall()
    async with asyncpg.create_pool(url, min_size=1, max_size=4) as pool:
        await create_tables(pool, definition)
        road = Road(definition, settings, Publisher(kafka.address, f"{name}."), client, pool)
        try:
            yield road
        finally:
            await _end(road.processes)
            await client.aclose()


def client_of(address: str) -> Redis:
    """A client of a Redis, or of a Redis Cluster."""
    return open_redis(Settings(redis_timeout_seconds=5), address) if names_cluster(address) else Redis.from_url(address)


def variables(settings: Settings) -> dict[str, str]:
    """The settings that were given, as a process is told of them."""
    return {key_of(name): str(value) for name, value in settings.model_dump(exclude_unset=True).items()}


async def make_database(postgres: Server, name: str) -> str:
    """An empty database of this name; its address."""
    connection = await asyncpg.connect(postgres.address)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return f"{postgres.address.rpartition('/')[0]}/{name}"


async def _end(processes: list[asyncio.subprocess.Process]) -> None:
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()
