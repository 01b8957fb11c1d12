"""A road whose changes come by change data capture: a database of its own, its topics, and the connector between them.

Write through `pool`; what Debezium does with it is its own affair. Compare view and SQL by `agree`.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer
from redis.asyncio import Redis

from app.settings import Settings
from app.topics import dead_letters
from demo import capture
from demo.publish import Publisher
from demo.servers import debezium
from demo.servers.connect import Connect
from demo.servers.kafka import create_topics
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from demo.tables import create_tables
from projectors.dead_letters import REASON
from schema.definition import read_definition
from schema.user import UserView
from tests.road import Road, make_database

_numbers = itertools.count()
PARTITIONS = 6
SINCE = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True, kw_only=True)
class Captured(Road):
    """name: of the connector, of its slot, and what its topics begin with. said: what projectors write."""

    connect: Connect
    name: str
    said: Path

    async def capture(self, **settings: str) -> None:
        """Begin, or go on; return when all that was committed by now is in Kafka. Settings are named with underscores for points."""
        made = capture.connector(self.name, self.settings.postgres_url, self.definition)
        changed = {name.replace("_", "."): value for name, value in settings.items()}
        await self.connect.capture(debezium.Connector(made.name, {**made.config, **changed}))
        await self.captured()

    async def drop_slot(self) -> None:
        """Of a connector that has ended; a moment may pass until PostgreSQL knows that it has."""

        async def dropped() -> None:
            try:
                await debezium.drop(self.pool, self.name)
            except asyncpg.ObjectInUseError as used:
                raise NotReadyError(str(used)) from used

        await until(dropped, 30)

    async def captured(self, seconds: float = 60) -> None:
        """Return when all that was committed by now is in Kafka."""
        await debezium.captured(self.pool, self.name, seconds)

    async def user(self, number: int) -> None:
        await self.pool.execute("INSERT INTO users (user_id, username, joined_at) VALUES ($1, $2, $3)", number, f"user{number}", SINCE)

    async def follow(self, number: int, follower: int, followee: int) -> None:
        await self.pool.execute("INSERT INTO follows VALUES ($1, $2, $3, $4)", number, follower, followee, SINCE)

    async def stops(self, sentence: str, seconds: float = 60) -> None:
        """The projector, started anew, ends by itself and says this."""
        process = await self.start("-m", "app", "project", said=self.said)
        async with asyncio.timeout(seconds):
            assert await process.wait() == 1
        assert sentence in self.said.read_text().splitlines()[-1]  # the process that wrote it has ended

    async def buried(self, count: int, seconds: float = 30) -> list[str]:
        """The reasons of the dead letters, once there are so many."""
        topic, reasons = dead_letters(self.settings, self.definition), list[str]()
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.settings.kafka_bootstrap, auto_offset_reset="earliest")
        async with consumer, asyncio.timeout(seconds):
            while len(reasons) < count:
                reasons.append(_reason(await consumer.getone()))
        return reasons


@asynccontextmanager
async def open_captured(
    connect: Connect, kafka: Server, redis: Server, postgres: Server, folder: Path, view: type = UserView
) -> AsyncIterator[Captured]:
    """The view's tables in a database of their own. Connector, slot and all that was started are gone at its end."""
    name = f"cdc{next(_numbers)}"
    prefix = capture.topic_prefix(name)
    definition, url = read_definition(view, prefix), await make_database(postgres, name)
    await create_topics(kafka.address, dict.fromkeys(definition.topics, PARTITIONS))
    settings = Settings(
        kafka_bootstrap=kafka.address,
        redis_url=redis.address,
        postgres_url=url,
        topic_prefix=prefix,
        consumer_group=name,
        view=f"{view.__module__}:{view.__name__}",
    )
    client = Redis.from_url(redis.address)
    await client.flushall()
    async with asyncpg.create_pool(url, min_size=1, max_size=4) as pool:
        await create_tables(pool, definition)
        publisher = Publisher(kafka.address, prefix)
        road = Captured(definition, settings, publisher, client, pool, connect=connect, name=name, said=folder / f"{name}.said")
        try:
            yield road
        finally:
            await _end(road)


async def _end(road: Captured) -> None:
    for process in road.processes:
        if process.returncode is None:
            process.kill()
        await process.wait()
    await road.redis.aclose()
    await road.connect.remove(road.name)
    await road.drop_slot()


def _reason(letter: Any) -> str:
    return str(dict(letter.headers)[REASON], "utf-8")
