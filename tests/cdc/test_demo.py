"""`viewgate demo --cdc`: the same answers with Debezium in between, live changes written to PostgreSQL, and on again after an end."""

import asyncio
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from app.cli import CommandError
from demo import command
from demo.seed import sized, user
from demo.servers.process import NotReadyError, until
from demo.writing import written
from schema.user import Follows
from tests.cdc.captured import SINCE, Captured
from tests.demos import GOES_ON, alike, need_real_servers, place, processes, running, says, told, viewgate

FOLLOWS = sized(200).follows
FEW = ("--cdc", "--scenario", "tests.cdc.few:FEW")


@pytest.fixture
def folder() -> Iterator[Path]:
    with place() as made:
        yield made


@pytest.mark.servers
async def test_the_demo_goes_on_by_change_data_capture_where_it_ended_and_its_view_equals_sql(folder: Path) -> None:
    await need_real_servers()
    first, second = await _seen(folder, FOLLOWS), await _seen(folder, FOLLOWS + 50)
    assert "Writing 5,000 rows into PostgreSQL" in first
    assert "Writing" not in second
    assert re.search(r'"followerCount": [1-9]', alike(first))


async def _seen(folder: Path, follows: int) -> str:
    """The output of a demo that was audited under live changes, when there were more than so many follows, then ended by Ctrl-C."""
    async with running(folder, *FEW) as (process, log):
        await until(lambda: says(log, GOES_ON), 200)
        environment = await told(folder, "demo-few-cdc")
        await until(lambda: _moves(environment["VIEWGATE_POSTGRES_URL"], follows), 60)
        code, output = await viewgate(folder, environment, "audit")
        assert (code, "0 mismatches" in output) == (0, True), output
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    assert processes(folder) == []
    return log.read_text()


async def _moves(postgres: str, rows: int) -> None:
    """Raises NotReadyError until services have written so many follows."""
    connection = await asyncpg.connect(postgres)
    try:
        if (found := await connection.fetchval("SELECT count(*) FROM follows")) <= rows:
            raise NotReadyError(f"{found} follows")
    finally:
        await connection.close()


def test_without_java_it_is_told_what_is_missing_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandError, match=r"needs Kafka Connect: no java on PATH; install Java 17 .*leave --cdc \(CDC=1\) out"):
        asyncio.run(command._check_connect())


def test_embedded_servers_are_refused() -> None:
    with pytest.raises(CommandError, match="leave --embedded out"):
        command.demo(port=19_999, embedded=True, cdc=True)


async def test_a_service_that_writes_rows_inserts_updates_and_deletes_them(road: Captured) -> None:
    ada = user(7)
    follow = Follows(1, 7, 8, SINCE)
    for before, after in ((None, ada), (None, follow), (ada, user(8)), (follow, None)):
        statement, values = written(before, after)
        await road.pool.execute(statement, *values)
    assert [tuple(row) for row in await road.pool.fetch("SELECT user_id, username FROM users")] == [(8, user(8).username)]
    assert await road.pool.fetchval("SELECT count(*) FROM follows") == 0


def test_a_change_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a before or an after"):
        written(None, None)
