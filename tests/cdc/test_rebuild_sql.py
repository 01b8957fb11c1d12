"""`viewgate rebuild --from sql` under change data capture, while eight services write on: exact, and so is what Redis loses of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from app.auditing import audited
from app.clients import open_clients
from demo.servers import connect
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from projectors.generations import Generations
from schema import layout
from schema.generation import Generation
from tests.cdc import paired
from tests.cdc.captured import SINCE, Captured, open_captured
from tests.cdc.writers import USERS, WRITERS, Writer
from tests.commands.running import run
from tests.demos import CACHE
from tests.road import variables

# that are over before something else happens
TRANSACTIONS = 300
PAUSE_SECONDS = 0.03


@dataclass(slots=True)
class Services:
    """Eight writers. Meanwhile rows that many follow cannot be compared with SQL: they are never the same at two looks."""

    pool: asyncpg.Pool
    writers: list[Writer]
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _running: list[asyncio.Task[None]] = field(default_factory=list)

    async def begin(self) -> None:
        """Return when they are well under way."""
        self._stop.clear()
        self._running = [asyncio.create_task(writer.run(self._stop)) for writer in self.writers]
        await self.wrote()

    async def wrote(self) -> None:
        """Return when so many more transactions are over."""
        wanted = sum(writer.transactions for writer in self.writers) + TRANSACTIONS

        async def done() -> None:
            if (now := sum(writer.transactions for writer in self.writers)) < wanted:
                raise NotReadyError(f"{now} of {wanted} transactions")

        await until(done, 60)

    async def end(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._running)


@asynccontextmanager
async def services(road: Captured) -> AsyncIterator[Services]:
    """Users, captured and projected, and those who write them until the context ends; then all of it is in Kafka."""
    users = [(number, f"user{number}", SINCE) for number in range(USERS)]
    await road.pool.copy_records_to_table("users", records=users, columns=["user_id", "username", "joined_at"])
    await road.capture()
    await road.project()
    async with asyncpg.create_pool(road.settings.postgres_url, min_size=WRITERS, max_size=WRITERS) as pool:
        writing = Services(pool, [Writer(pool, number, PAUSE_SECONDS) for number in range(WRITERS)])
        try:
            await writing.begin()
            yield writing
        finally:
            await writing.end()
    await road.captured()


async def said(road: Captured, sentence: str) -> None:
    if sentence not in road.said.read_text():
        raise NotReadyError(road.said.read_text())


async def ended(rebuild: asyncio.subprocess.Process, road: Captured) -> None:
    """Well, within a minute or two."""

    async def done() -> None:
        if rebuild.returncode is None:
            raise NotReadyError(road.said.read_text())

    await until(done, 120)
    assert rebuild.returncode == 0, road.said.read_text()


async def told(road: Captured, *arguments: str, code: int | None = 0) -> str:
    """What a command says. code: which it must end with, None for any."""
    found, out, err = await run(*arguments, **variables(road.settings))
    assert code in {None, found}, out + err
    return out


async def live(road: Captured) -> Generation:
    generations = Generations(road.redis, road.definition)
    record = await generations.read(await generations.live() or "")
    assert record is not None
    return record


async def lose(road: Captured, record: Generation) -> None:
    """Every third shard."""
    keys = layout.Layout(road.definition.name, record.name, record.shards)
    for shard in range(0, record.shards, 3):
        tag = "{" + layout.tags(record.shards)[shard] + "}"
        found = [key async for key in road.redis.scan_iter(f"user:{record.name}.*:{tag}*", count=5000)]
        await road.redis.delete(keys.headers[shard], *found)


async def whole(road: Captured, name: str) -> None:
    keys = layout.Layout(road.definition.name, name, layout.SHARDS)
    states = [await road.redis.hget(header, "state") for header in keys.headers]
    if set(states) != {b"live"}:
        raise NotReadyError(f"{sum(state != b'live' for state in states)} shards are not live")


async def mends(road: Captured, row_id: str, name: str) -> None:
    """Somebody has written a number into a row, which is then put right from SQL, and the log after it."""
    async with open_clients(road.settings) as clients:
        found = await audited(road.settings, road.definition, clients, None)
        shard = found.keys.shard(row_id)
        build = (await found.store.headers())[shard].build or ""
        await road.redis.hset(found.keys.rows_prefix(shard, build) + row_id, found.record.codes[name], "123456789")
        async with found.tail() as tail:
            repair = found.repair(await found.base(), tail, lambda _: None)
            await repair.run([row_id])
    assert [one.field for one in repair.mended] == [name]


@asynccontextmanager
async def elder(road: Captured) -> AsyncIterator["asyncio.subprocess.Process"]:
    """A rebuild from SQL that waits, as long as the context lasts, for a transaction that began to write before it."""
    connection = await asyncpg.connect(road.settings.postgres_url)
    try:
        async with connection.transaction():
            await connection.execute("INSERT INTO follows VALUES (1000001, 1, 2, $1)", SINCE)
            await connection.execute("SAVEPOINT inner_one; INSERT INTO follows VALUES (1000002, 1, 3, now()); RELEASE inner_one")
            rebuild = await road.start("-m", "app", "rebuild", "--from", "sql", said=road.said)
            pid = connection.get_server_pid()
            await until(lambda: said(road, f"Waiting for transactions that began before: process {pid} "), 90)
            yield rebuild
    finally:
        await connection.close()


async def test_rows_from_sql_are_right_while_services_write_and_so_is_what_redis_loses_of_them(road: Captured) -> None:
    async with services(road) as writing:
        async with elder(road) as rebuild:
            await writing.wrote()
        await ended(rebuild, road)
        await writing.wrote()
        await writing.end()
        assert "all equal" in await told(road, "promote", "g2")
        record = await live(road)
        assert (record.name, record.origin, record.slot) == ("g2", "sql", road.name)
        await writing.begin()
        # each of these shards gets rows of a later moment, and the others keep theirs
        await lose(road, record)
        await until(lambda: whole(road, "g2"), 60)
        await writing.wrote()
        await mends(road, "190", "following_count")
    assert await road.agree() == USERS


async def test_what_a_killed_connector_sends_again_is_not_added_to_rows_from_sql(
    apache_kafka_at: Server, redis_at: Server, postgres_at: Server, tmp_path: Path
) -> None:
    with scratch() as folder:
        async with (
            connect.start(apache_kafka_at.address, folder, CACHE, exactly_once=False, say=print) as worker,
            open_captured(worker, apache_kafka_at, redis_at, postgres_at, tmp_path, paired.UserView) as road,
        ):
            async with services(road) as writing:
                async with elder(road) as rebuild:
                    await worker.kill()
                    await worker.restart()
                    await writing.wrote()
                await ended(rebuild, road)
                await worker.kill()
                await worker.restart()
                await writing.wrote()
                await writing.end()
                assert "all equal" in await told(road, "promote", "g2")
            assert await road.agree() == USERS


async def test_a_rebuild_whose_connector_is_away_says_so_and_ends_when_it_is_back(road: Captured) -> None:
    await road.user(1)
    await road.capture()
    await road.connect.kill()
    # what nobody has captured yet
    await road.user(2)
    rebuild = await road.start("-m", "app", "rebuild", "--from", "sql", "--promote", said=road.said)
    await until(lambda: said(road, f"Waiting for the connector of slot {road.name} to be "), 90)
    assert "no connector reads from it: start it" in road.said.read_text()
    await road.connect.restart()
    await ended(rebuild, road)
    await road.project()
    await road.follow(1, 1, 2)
    await road.captured()
    assert await road.agree() == 2


async def test_a_wait_ends_with_ctrl_c_and_leaves_nothing_that_readers_see(road: Captured) -> None:
    await road.user(1)
    await road.capture()
    async with elder(road) as rebuild:
        rebuild.terminate()
        async with asyncio.timeout(20):
            assert await rebuild.wait() == 0
    assert await Generations(road.redis, road.definition).all() == []
