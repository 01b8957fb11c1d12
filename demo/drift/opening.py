"""Makes one way's road on servers that run: database, topics, processes, seeded rows. What happens on it is not known here."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from app.settings import Settings
from app.views import definition_of
from demo.drift.capture import capturing
from demo.drift.course import Course
from demo.drift.outbox import create_outbox
from demo.drift.plan import WRITERS
from demo.drift.road import Road, Traffic
from demo.drift.writer import Task
from demo.drift.writers import Writers
from demo.servers.connect import Connect
from demo.servers.kafka import create_topics
from demo.servers.process import Process
from demo.servers.stack import Stack
from demo.services import service, settings
from demo.tables import create_tables

PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Site:
    """Where roads are made. folder: of logs and boards."""

    servers: Stack
    folder: Path
    traffic: Traffic


@asynccontextmanager
async def open_road(site: Site, course: Course, number: int, captures: Connect | None) -> AsyncIterator[Road]:
    """A road with its seeded rows in database and view, its writers waiting. Ends all that it started.

    number: of its Redis database. captures: where the course is captured.
    """
    address = await _database(site.servers.postgres.address, course.database)
    environment = _environment(site.servers, course, number, address)
    definition = definition_of(Settings(view=course.view, topic_prefix=course.prefix))
    async with AsyncExitStack() as opened:
        pool = await opened.enter_async_context(asyncpg.create_pool(address, min_size=1, max_size=4))
        redis = await opened.enter_async_context(Redis.from_url(environment["VIEWGATE_REDIS_URL"]))
        await create_tables(pool, definition)
        if course.captured == "outbox":
            await create_outbox(pool, definition)
        await create_topics(site.servers.kafka.address, dict.fromkeys(definition.topics, PARTITIONS))
        processes = list(_processes(site, course, environment))
        writers = Writers(list(_tasks(site, course, address)), site.folder, environment)
        for process in processes:
            opened.push_async_callback(process.stop)
            await process.start()
        opened.push_async_callback(writers.stop)
        await writers.start()
        if captures:
            await opened.enter_async_context(capturing(captures, course, address, definition))
        road = Road(course, site.servers.kafka.address, definition, pool, redis, writers, processes)
        await road.fill(site.traffic.users)
        await road.settle(site.traffic.users)
        yield road


async def _database(postgres: str, name: str) -> str:
    connection = await asyncpg.connect(postgres)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return f"{postgres.rpartition('/')[0]}/{name}"


def _environment(servers: Stack, course: Course, number: int, address: str) -> Mapping[str, str]:
    """Of projector and sink: all roads share the servers."""
    return {
        **settings(servers, course.view, 0),
        "VIEWGATE_REDIS_URL": f"{servers.redis.address.rpartition('/')[0]}/{number}",
        "VIEWGATE_POSTGRES_URL": address,
        "VIEWGATE_TOPIC_PREFIX": course.prefix,
        "VIEWGATE_CONSUMER_GROUP": course.way,
        "VIEWGATE_CHECKPOINT_SECONDS": "1",
    }


def _processes(site: Site, course: Course, environment: Mapping[str, str]) -> Iterator[Process]:
    yield service(f"{course.way}-projector", ("app", "project"), site.folder, environment)
    if course.sink:
        yield service(f"{course.way}-sink", ("demo.sink",), site.folder, environment)


def _tasks(site: Site, course: Course, address: str) -> Iterator[Task]:
    traffic = site.traffic
    for writer in range(WRITERS):
        yield Task(
            way=course.way,
            writer=writer,
            users=traffic.users,
            seed=traffic.seed,
            acts=traffic.rounds * traffic.burst,
            burst=traffic.burst,
            rate=traffic.rate,
            kafka=site.servers.kafka.address,
            prefix=course.prefix,
            postgres=address,
            board=str(site.folder / f"{course.way}-writer{writer}.board"),
        )
