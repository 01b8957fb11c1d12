"""A stack for `viewgate doctor`: topics, a database and a live view of one test's own, on the shared servers; and what is found of it."""

import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from redis.asyncio import Redis

from app.doctor.checks import Result, Verdict
from app.doctor.examination import examine
from app.settings import Settings
from app.views import definition_of
from demo.servers.kafka import create_topics
from demo.servers.server import Server
from demo.tables import create_tables
from schema.definition import Definition, read_definition
from schema.user import UserView
from tests.request.arranged import USERS, View
from tests.road import client_of, make_database, variables

# as many as librdkafka's mock broker has of every topic
PARTITIONS = 4
UNTOLD = (("Kafka", "cleanup"), ("Kafka", "retention"), ("Kafka", "timestamps"))
_numbers = itertools.count()
Found = dict[tuple[str, str], Result]


@dataclass(frozen=True, slots=True)
class Stack:
    """Healthy until a test breaks it. settings: those of the command, also for a process (`environment`)."""

    kafka: Server
    settings: Settings
    definition: Definition
    redis: Redis
    view: View
    connection: "asyncpg.Connection[asyncpg.Record]"

    @property
    def environment(self) -> dict[str, str]:
        return variables(self.settings)

    def topic(self, name: str) -> str:
        return self.settings.topic_prefix + name

    async def examine(self, **changed: object) -> Found:
        """What the doctor finds, without what librdkafka's mock broker does not tell. changed: settings of this time."""
        settings = self.settings.model_copy(update=changed)
        found = {(result.server, result.check): result for result in await examine(settings, definition_of(settings))}
        untold = UNTOLD if self.kafka.kind == "embedded" else ()
        return {key: result for key, result in found.items() if key not in untold or result.verdict != "skipped"}


@asynccontextmanager
async def open_stack(kafka: Server, redis: Server, postgres: Server, *, topics: bool = True) -> AsyncIterator[Stack]:
    """topics: make the definition's."""
    name = f"doctor{os.getpid()}x{next(_numbers)}"
    definition = read_definition(UserView, f"{name}.")
    url = await make_database(postgres, name)
    if topics:
        await create_topics(kafka.address, dict.fromkeys(definition.topics, PARTITIONS))
    # port 0: whatever listens on this machine is not asked
    settings = Settings(
        kafka_bootstrap=kafka.address, redis_url=redis.address, postgres_url=url, topic_prefix=f"{name}.", consumer_group=name, port=0
    )
    client = client_of(redis.address)
    await client.flushall()
    connection = await asyncpg.connect(url)
    try:
        await create_tables(connection, definition)
        view = View(client, definition=definition)
        await view.write(USERS)
        await tell_as_of(view, seconds=0)
        yield Stack(kafka, settings, definition, client, view, connection)
    finally:
        await connection.close()
        await client.aclose()


async def tell_as_of(view: View, seconds: float) -> None:
    """Say, as a projector would, up to when the view has everything: so long ago."""
    await view.redis.delete(view.keys.progress)
    await view.redis.hset(view.keys.progress, "users:0", str(round((time.time() - seconds) * 1000)))


@asynccontextmanager
async def configured(redis: Redis, **settings: object) -> AsyncIterator[None]:
    """Redis with these settings, hyphens written as underscores; as they were at the end."""
    wanted = {name.replace("_", "-"): str(value) for name, value in settings.items()}
    before = {name: str((await redis.config_get(name))[name]) for name in wanted}
    try:
        for name, value in wanted.items():
            await redis.config_set(name, value)
        yield
    finally:
        for name, value in before.items():
            await redis.config_set(name, value)


def not_ok(found: Found) -> dict[tuple[str, str], Verdict]:
    """What is not as it should be, but for what every stack of these tests has: no limit of memory, and no gateway."""
    usual = {("Redis", "memory limit"), ("gateway", "ready")}
    return {key: result.verdict for key, result in found.items() if result.verdict != "ok" and key not in usual}
