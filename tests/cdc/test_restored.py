"""A database that is restored to an older state: its LSNs go back. A connector leaves out what is written until they are there again."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from demo.servers import postgres
from demo.servers.account import scratch
from demo.servers.connect import Connect
from demo.servers.process import Process
from demo.servers.server import Server
from tests.cdc.captured import Captured, open_captured
from tests.cdc.test_snapshots import USERS, filled
from tests.demos import CACHE


@pytest.fixture
async def restorable(
    connect_at: Connect, apache_kafka_at: Server, redis_at: Server, tmp_path: Path
) -> AsyncIterator[tuple[Captured, Process, Path]]:
    """A road on a PostgreSQL of its own; its process, and where its data is."""
    with scratch() as folder:
        async with (
            postgres.start(folder, CACHE, say=print) as server,
            open_captured(connect_at, apache_kafka_at, redis_at, server, tmp_path) as road,
        ):
            assert server.process is not None
            yield road, server.process, (folder / "postgres").resolve() / "data"


async def test_a_restored_database_is_found_by_the_audit_and_a_new_slot_stops_the_projector(
    restorable: tuple[Captured, Process, Path],
) -> None:
    road, server, data = restorable
    await filled(road)
    await road.capture()
    projector = await road.start("-m", "app", "project", said=road.said)
    assert await road.agree() == USERS
    await _saved(server, data)
    await road.follow(1000, 1, 2)
    await road.captured()
    assert await road.agree() == USERS
    await _restored(server, data)
    await road.pool.expire_connections()
    # at LSNs that the connector has sent before: it leaves it out, and says nothing
    await road.follow(2000, 3, 4)
    await road.pool.execute("INSERT INTO tweets SELECT 1000 + n, 5, repeat('x', 1000), now() FROM generate_series(1, 5000) n")
    await road.captured()
    audit = await road.start("-m", "app", "audit", said=road.said)
    assert await audit.wait() == 1
    # as it is to be done after a restore
    await road.connect.forget(road.name)
    await road.drop_slot()
    await road.capture()
    async with asyncio.timeout(30):
        assert await projector.wait() == 1
    assert "Run `viewgate rebuild" in road.said.read_text().splitlines()[-1]  # the process that wrote it has ended
    # only a change that comes after a snapshot shows that it is not one on a running slot
    await road.pool.execute("UPDATE follows SET followee_id = 1 WHERE follow_id < 10")
    await road.captured()
    await road.rebuilt("--from", "snapshot", said=road.said)
    assert await road.agree() == USERS


async def _saved(server: Process, data: Path) -> None:
    await server.stop()
    await _copied(data, data.with_name("saved"))
    await server.start()


async def _restored(server: Process, data: Path) -> None:
    await server.stop()
    shutil.rmtree(data)
    await _copied(data.with_name("saved"), data)
    await server.start()


async def _copied(data: Path, to: Path) -> None:
    """With its owner, without whom PostgreSQL does not start."""
    await asyncio.to_thread(subprocess.run, ("cp", "-a", data, to), check=True)
