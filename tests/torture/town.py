"""What is tortured: all servers, a projector and a gateway twice, the sink, a connector for each captured table. Kills nothing."""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from app.settings import Settings
from demo.drift.outbox import create_outbox
from demo.publish import Publisher
from demo.servers import connect, debezium
from demo.servers.account import scratch
from demo.servers.connect import Connect
from demo.servers.kafka import create_topics
from demo.servers.process import Process, free_port, last_lines, until
from demo.servers.stack import Stack, stack
from demo.services import answers, service
from demo.sink import end_offsets, sunk
from demo.tables import create_tables
from schema.definition import read_definition
from tests.chaos.history import History
from tests.conftest import CACHE
from tests.road import Road, variables
from tests.torture.schedule import Schedule
from tests.torture.view import UserView, written_once
from tests.torture.writers import Writers

NAME = "torture"
PREFIX = f"{NAME}.public."
PARTITIONS = 6
COMPACTED = {"cleanup.policy": "compact", "segment.ms": "60000", "min.cleanable.dirty.ratio": "0.1"}
# what each is told beside the table that it captures
UNWRAPPED = {"transforms": "unwrap", "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState", "skipped.operations": "t"}
OUTBOX = {"message.key.columns": "public.outbox_tweets:aggregate_id", "skipped.operations": "u,d,t", "snapshot.mode": "no_data"}
CONNECTORS = {"users": ("users", UNWRAPPED), "follows": ("follows", {}), "outbox": ("outbox_tweets", OUTBOX)}


@dataclass(slots=True)
class Town:
    """ours: the processes that are no servers. urls: of the gateways."""

    road: Road
    connect: Connect
    history: History
    writers: Writers
    schedule: Schedule
    ours: Sequence[Process]
    urls: list[str]

    def ended(self) -> list[str]:
        """Which processes have ended by themselves, and what they said last."""
        return [f"{process.command.log.name}: {last_lines(process.command.log.read_bytes())}" for process in self.ours if not process.alive]

    async def sunk(self) -> None:
        """Raises NotReadyError until PostgreSQL has all that was written once."""
        topics = written_once(self.road.definition).topics
        await sunk(self.road.pool, await end_offsets(self.road.settings.kafka_bootstrap, topics))


@asynccontextmanager
async def open_town(logs: Path, users: int, changes: int, seed: int) -> AsyncIterator[Town]:
    """Everything runs, every user is there, the view is live. All of it ends with the block."""
    definition = read_definition(UserView, PREFIX)
    async with AsyncExitStack() as opened:
        folder = opened.enter_context(scratch())
        opened.callback(_keep_logs, folder, logs)
        servers = await opened.enter_async_context(stack(folder, CACHE, prefer="installed", say=print))
        worker = await opened.enter_async_context(connect.start(servers.kafka.address, folder, CACHE, say=print))
        settings = _settings(servers)
        pool = await opened.enter_async_context(asyncpg.create_pool(settings.postgres_url, min_size=0, max_size=8, command_timeout=5))
        redis = await opened.enter_async_context(Redis.from_url(settings.redis_url))
        await create_tables(pool, definition)
        await create_outbox(pool, definition)
        await create_topics(settings.kafka_bootstrap, {f"{PREFIX}users": PARTITIONS}, COMPACTED)
        await create_topics(settings.kafka_bootstrap, dict.fromkeys(list(definition.topics)[1:], PARTITIONS))
        road = Road(definition, settings, Publisher(settings.kafka_bootstrap, PREFIX), redis, pool)
        history = History(definition)
        writers = Writers(pool, road.publisher, history, users, changes, seed)
        await writers.begin()
        for name, (table, told) in CONNECTORS.items():
            await worker.capture(debezium.connector(name, settings.postgres_url, [table], NAME, told))
        for name in CONNECTORS:
            # one that is killed in its first snapshot takes another, which a live view refuses
            await debezium.captured(pool, name, 120)
        projectors, gateways, sink = await _start(opened, settings, logs)
        await until(gateways[0].command.ready, 120)
        urls = [f"http://127.0.0.1:{_port(gateway)}/graphql" for gateway in gateways]
        schedule = Schedule(servers, worker, projectors, gateways, sink)
        yield Town(road, worker, history, writers, schedule, (*projectors, *gateways, sink), urls)


def _keep_logs(folder: Path, logs: Path) -> None:
    for log in folder.glob("*.log"):
        shutil.copy(log, logs)


def _settings(servers: Stack) -> Settings:
    return Settings(
        view=f"{UserView.__module__}:{UserView.__name__}",
        kafka_bootstrap=servers.kafka.address,
        redis_url=servers.redis.address,
        postgres_url=servers.postgres.address,
        topic_prefix=PREFIX,
        consumer_group=NAME,
    )


async def _start(opened: AsyncExitStack, settings: Settings, logs: Path) -> tuple[list[Process], list[Process], Process]:
    environment = variables(settings)
    projectors = [service(f"projector{number}", ("app", "project"), logs, environment) for number in (1, 2)]
    ports = [free_port() for _ in range(2)]
    gateways = [
        service(f"gateway{port}", ("app", "serve", "--port", str(port)), logs, environment, answers(f"http://127.0.0.1:{port}/livez"))
        for port in ports
    ]
    sink = service("sink", ("tests.torture.sink",), logs, environment)
    for process in (*projectors, *gateways, sink):
        opened.push_async_callback(process.stop)
        await process.start()
    return projectors, gateways, sink


def _port(gateway: Process) -> int:
    return int(gateway.command.argv[-1])
