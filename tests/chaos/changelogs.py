"""A scene whose users come as a changelog: the newest row by its key, tombstones, really compacted by the broker."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from aiokafka.admin.config_resource import ConfigResourceType

from demo.publish import Publisher
from demo.servers.kafka import create_topics
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from schema.fields import Row
from schema.user import Users
from tests.chaos.history import History
from tests.chaos.readers import Readers
from tests.chaos.records import Outcome
from tests.chaos.scene import RATE, USERS, Scene, played
from tests.chaos.writer import Writer
from tests.faults.changelog_view import UserView
from tests.faults.test_changelog import COMPACTED, configure
from tests.road import open_road

PARTITIONS = 6


class Newest:
    """Takes what a Publisher takes, and tells of a user what the row is now. Nobody hears when it is there: a stage is between."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def publish(self, op: str, before: Row | None, after: Row | None, ts_ms: int, arrived: Callable[[], None] | None = None) -> None:
        row = after if after is not None else before
        if isinstance(row, Users):
            self._publisher.send("users", b"%d" % row.user_id, None if after is None else msgspec.json.encode(after))
        else:
            self._publisher.publish(op, before, after, ts_ms, arrived)

    def poll(self) -> None:
        self._publisher.poll()

    def flush(self, seconds: float = 60) -> None:
        self._publisher.flush(seconds)


class ChangelogScene(Scene):
    """What is published last of each user is what SQL must have: the sink too comes after the stage."""

    async def arrived(self, seconds: float = 120) -> None:
        await self.writer.flush()
        await until(self._is_newest, seconds)
        await Scene.arrived(self, seconds)

    async def _is_newest(self) -> None:
        found = {(row["user_id"], row["username"], row["name"]) for row in await self.road.pool.fetch("SELECT * FROM users")}
        newest = {(row.user_id, row.username, row.name) for row in self.writer.rows(Users) if isinstance(row, Users)}
        if found != newest:
            raise NotReadyError(f"{len(found ^ newest)} users differ between SQL and what was published")


@asynccontextmanager
async def open_changelog_scene(
    outcome: Outcome, kafka: Server, redis: Server, postgres: Server, folder: Path
) -> AsyncIterator[ChangelogScene]:
    """As `open_scene`."""
    async with open_road(kafka, redis, postgres, UserView, PARTITIONS) as road:
        road.settings = road.settings.model_copy(update={"view": f"{UserView.__module__}:{UserView.__name__}"})
        await create_topics(kafka.address, {f"{road.settings.topic_prefix}users": PARTITIONS}, COMPACTED)
        # its cleaner looks every 15 s if nothing else is said
        await configure(kafka, ConfigResourceType.BROKER, "1", log_cleaner_backoff_ms="200")
        history = History(road.definition)
        writer = Writer(Newest(road.publisher), history, USERS, RATE, seed=sum(outcome.name.encode()))
        scene = ChangelogScene(road, outcome, kafka, redis, postgres, folder, history, writer, Readers([], history, USERS, outcome.seen))
        try:
            async with played(scene):
                yield scene
        finally:
            await configure(kafka, ConfigResourceType.BROKER, "1")
