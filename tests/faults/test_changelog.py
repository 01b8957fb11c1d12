"""Changelogs on real servers: stages that are killed, one that comes back too late, and what Kafka's cleaner leaves of a topic."""

import asyncio
import random
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import ProducerFenced

from app.settings import Settings
from app.stages import FreshReader, RowTopics
from demo.publish import Publisher
from demo.servers import kafka
from demo.servers.account import scratch
from demo.servers.kafka import create_topics
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from demo.sink import end_offsets
from projectors.log import Record
from projectors.reading import SourceChanged
from projectors.rows import Reached, Written
from schema.definition import read_definition
from schema.fields import Row
from schema.loader import Read
from schema.positions import Partition
from tests.conftest import CACHE, running
from tests.faults.arranged import follow, like, tweet
from tests.faults.changelog_view import Users, UserView
from tests.faults.memory import Tally
from tests.message.histories import write_tables
from tests.road import Road, open_road

MS = 1_767_323_045_000
PARTITIONS = 2
# small enough that a tombstone goes while a test waits
COMPACTED = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "100"}
POINTS = (("taken", 1), ("half", 1), ("sent", 3), ("committed", 4), ("fetched", 5))


@dataclass(slots=True)
class Changelog:
    """A changelog of users, and its rows topic kept by this process. newest: what was published last of each."""

    settings: Settings
    publisher: Publisher
    newest: dict[int, Users] = field(default_factory=dict)

    @property
    def rows(self) -> RowTopics:
        return RowTopics(self.settings, read_definition(UserView, self.settings.topic_prefix), Tally())

    def put(self, user_id: int, username: str) -> None:
        self.newest[user_id] = Users(user_id, username, None)
        self.publisher.send("users", b"%d" % user_id, msgspec.json.encode(self.newest[user_id]))

    def delete(self, user_id: int) -> None:
        del self.newest[user_id]
        self.publisher.send("users", b"%d" % user_id, None)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """By a process like this one, which is level at first and ends in good order."""
        self.publisher.flush()
        stop, rows = asyncio.Event(), self.rows
        running = asyncio.create_task(rows.run(stop))
        try:
            await until(lambda: _level(rows, running), 60)
            yield
        finally:
            stop.set()
            await running

    async def read(self, topic: str) -> list[Record]:
        """All that a topic holds, each partition in its order."""
        reader = FreshReader(self.settings, self.settings.topic_prefix + topic)
        bounds = await reader.bounds()
        return [record for partition, (first, end) in bounds.items() async for record in reader.records(partition, first, end)]

    async def changed(self) -> tuple[dict[int, Any], list[dict[str, Any]]]:
        """The rows that the changes make, and the changes. Fails where one does not undo what was there."""
        rows: dict[int, Any] = {}
        changes = [msgspec.json.decode(record.value) for record in await self.read("user.users.rows") if record.value]
        for change in changes:
            if change["before"]:
                assert rows.pop(change["before"]["user_id"]) == change["before"]
            if change["after"]:
                assert rows.setdefault(change["after"]["user_id"], change["after"]) is change["after"]
        return rows, changes

    async def agrees(self) -> list[dict[str, Any]]:
        """That they make what was published last; all changes."""
        rows, changes = await self.changed()
        assert rows == {key: msgspec.to_builtins(row) for key, row in self.newest.items()}
        return changes


async def _level(rows: RowTopics, running: "asyncio.Task[None]") -> None:
    if running.done():
        running.result()
    if not await rows.level():
        raise NotReadyError("the stages are not level")


async def changelog_at(kafka: Server, **config: str) -> Changelog:
    prefix = f"c{uuid.uuid4().hex[:8]}."
    await create_topics(kafka.address, {f"{prefix}users": PARTITIONS}, COMPACTED | config)
    return Changelog(Settings(kafka_bootstrap=kafka.address, topic_prefix=prefix), Publisher(kafka.address, prefix))


async def configure(kafka: Server, kind: ConfigResourceType, name: str, **config: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.address)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(kind, name, {key.replace("_", "."): value for key, value in config.items()})])
    finally:
        await admin.close()


@pytest.fixture(scope="module")
async def quick_cleaner() -> AsyncIterator[Server]:
    """A Kafka whose cleaner has nothing else to clean, and looks five times a second: it looks every 15 s if nothing else is said."""
    with scratch() as folder:
        async with running(kafka.start(folder, CACHE, prefer="installed", say=print)) as server:
            await configure(server, ConfigResourceType.BROKER, "1", log_cleaner_backoff_ms="200")
            yield server


async def cleaned(log: Changelog) -> None:
    """Raises NotReadyError until no tombstone is left but that of fillers, which are written so that segments end."""
    for number in range(8):
        log.publisher.send("users", b"filler%d" % number, None)
    log.publisher.flush()
    left = [record for record in await log.read("users") if record.value is None and not (record.key or b"").startswith(b"filler")]
    if left:
        raise NotReadyError(f"{len(left)} tombstones are left")


async def test_rows_deleted_while_nobody_looked_and_cleaned_away_are_deleted(quick_cleaner: Server) -> None:
    log = await changelog_at(quick_cleaner)
    for user_id in range(1, 60):
        log.put(user_id, f"user{user_id}")
    async with log.kept():
        pass
    assert {change["op"] for change in await log.agrees()} == {"c"}
    for user_id in range(1, 30):
        log.put(user_id, "on the way")
        log.delete(user_id)
    log.put(40, "renamed")
    await until(lambda: cleaned(log), 90)
    # longer than the stages may be away, for they were level when they ended
    async with log.kept():
        pass
    gone = [change for change in await log.agrees() if change["op"] == "d"]
    # nobody knows any more when
    assert [change["ts_ms"] for change in gone] == [None] * 29
    log.put(1, "again")
    async with log.kept():
        pass
    assert (await log.agrees())[-1]["op"] in "cu"


async def test_a_topic_with_gaps_makes_the_same_rows_from_its_beginning(quick_cleaner: Server) -> None:
    log = await changelog_at(quick_cleaner)
    for turn in range(5):
        for user_id in range(1, 40):
            log.put(user_id, f"user{user_id}x{turn}")
    log.delete(7)
    await until(lambda: cleaned(log), 90)
    assert len(await log.read("users")) < 5 * 39
    async with log.kept():
        pass
    await log.agrees()


async def test_a_zombie_that_wakes_before_its_commit_adds_nothing(apache_kafka_at: Server) -> None:
    log = await changelog_at(apache_kafka_at)
    await create_topics(apache_kafka_at.address, {f"{log.settings.topic_prefix}user.users.rows": PARTITIONS})
    at, record = Partition(f"{log.settings.topic_prefix}users", 0), Written(b"1", b"{}", Reached(1, 1, ""))
    async with AsyncExitStack() as opened:
        # of three processes, which know nothing of each other
        zombie, awake = await log.rows.open_journal(at, opened), asyncio.Event()
        committing = zombie._producer.commit_transaction

        async def sleep_first() -> None:
            await awake.wait()
            await committing()

        zombie._producer.commit_transaction = sleep_first
        writing = asyncio.create_task(zombie.write([record]))
        # its record lies in the log, and its transaction is open
        await until(lambda: _holds(log, 1), 20)
        heir = await log.rows.open_journal(at, opened)
        await heir.write([record, record])
        awake.set()
        with pytest.raises(ProducerFenced):
            await writing
        late = await log.rows.open_journal(at, opened)
        with pytest.raises(ProducerFenced):
            await heir.write([record])
        assert len([one async for one in late.written()]) == 2


async def _holds(log: Changelog, records: int) -> None:
    """Also what is in no transaction that was committed."""
    topic = f"{log.settings.topic_prefix}user.users.rows"
    ends = await end_offsets(log.settings.kafka_bootstrap, [topic])
    if ends[topic, 0] < records:
        raise NotReadyError(f"the log ends at {ends}")


async def test_a_topic_that_loses_rows_by_retention_is_refused(apache_kafka_at: Server) -> None:
    log = await changelog_at(apache_kafka_at, **{"cleanup.policy": "delete", "retention.ms": "3600000"})
    with pytest.raises(SourceChanged, match=r"loses rows by retention.*cleanup.policy=compact"):
        await log.rows.run(asyncio.Event())


async def test_a_topic_that_got_more_partitions_is_refused(apache_kafka_at: Server) -> None:
    log = await changelog_at(apache_kafka_at)
    await create_topics(apache_kafka_at.address, {f"{log.settings.topic_prefix}user.users.rows": PARTITIONS + 1})
    with pytest.raises(SourceChanged, match=r"keys have moved between them. Delete .*user.users.rows"):
        await log.rows.run(asyncio.Event())


class Crowd:
    """Users as a changelog, and what they do as envelopes, at random; and the tables that they make."""

    def __init__(self, road: Road, seed: int) -> None:
        self.road, self.tables, self._rng = road, dict[type[Row], dict[Any, Row]](), random.Random(seed)

    def publish(self, changes: int) -> None:
        for _ in range(changes):
            self._publish(self._row())
        self.road.publisher.flush()

    def _row(self) -> Row:
        rng = self._rng
        someone, other, key = rng.randrange(150), rng.randrange(150), rng.randrange(900)
        if rng.random() < 0.5:
            return Users(someone, f"user{someone}x{rng.randrange(4)}", None)
        return rng.choice((follow(key, someone, other), like(key, someone), tweet(key, someone)))

    def _publish(self, row: Row) -> None:
        source = type(row).source
        rows, key = self.tables.setdefault(type(row), {}), getattr(row, source.key)
        before, after = rows.pop(key, None), row
        gone = before is not None and self._rng.random() < 0.3
        if not gone:
            rows[key] = after
        if source.form == "changelog":
            self.road.publisher.send(source.topic, b"%d" % key, None if gone else msgspec.json.encode(after))
        else:
            self.road.publisher.publish("d" if gone else "u" if before else "c", before, None if gone else after, MS)


async def test_kills_of_a_stage_at_each_of_its_steps_leave_the_view_as_sql_has_it(
    apache_kafka_at: Server, redis_at: Server, postgres_at: Server
) -> None:
    async with open_road(apache_kafka_at, redis_at, postgres_at, UserView, PARTITIONS) as road:
        await create_topics(apache_kafka_at.address, {f"{road.settings.topic_prefix}users": PARTITIONS}, COMPACTED)
        crowd = Crowd(road, seed=6)
        for run, (point, times) in enumerate((*POINTS, ("never", 1))):
            process = await road.start(
                *("-m", "tests.faults.crashing_stage", point, str(times)),
                VIEWGATE_VIEW="tests.faults.changelog_view:UserView",
                VIEWGATE_CONSUMER_GROUP=f"{road.settings.consumer_group}-{run}",
                ROWS_GROUP=f"{road.settings.consumer_group}-rows-{run}",
                VIEWGATE_LOG_LEVEL="error",
            )
            if point == "never":
                break
            async with asyncio.timeout(60):
                await _until_dead(process, crowd)
        crowd.publish(300)
        await write_tables(road.pool, road.definition, crowd.tables)
        assert await road.agree() > 50
        await _names_are_released(road, crowd)
        assert process.returncode is None


async def _until_dead(process: asyncio.subprocess.Process, crowd: Crowd) -> None:
    """Changes go on until it comes to its point."""
    dying = asyncio.ensure_future(process.wait())
    while not dying.done():
        crowd.publish(60)
        await asyncio.wait({dying}, timeout=0.3)
    assert dying.result() == -signal.SIGKILL


async def _names_are_released(road: Road, crowd: Crowd) -> None:
    """Each of all names that anybody ever had leads to whoever has it now, and to nobody if nobody has."""
    users = [row for row in crowd.tables[Users].values() if isinstance(row, Users)]
    names = [f"user{number}x{turn}" for number in range(150) for turn in range(4)]
    borne = {row.username: b'"%d"' % row.user_id for row in users}
    rows = (await road.view.load([Read("username", name, ("id",)) for name in names])).rows
    assert {name: row[0] for name, row in zip(names, rows, strict=True) if row} == borne
    claims = {key async for key in road.redis.scan_iter("*@username:*", count=5000) if await road.redis.hlen(key.decode())}
    assert len(claims) == len(borne)
