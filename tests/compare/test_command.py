"""`viewgate compare` from its beginning to its report, on a stack of its own and on a gateway that runs."""

import asyncio
import contextlib
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from app.server import gateway
from app.settings import Settings
from bench.compare.generators import Apart
from bench.compare.reading import Found, Task
from bench.compare.results import Results
from bench.compare.results import read as read_results
from demo.servers.server import Server
from tests.clients.running import served
from tests.commands.running import run, start
from tests.request.arranged import DEFINITION, View, user, write_tables
from tests.road import make_database

SHORT = """
about = "As short as can be."
users = 50
skew = 1.0
reads_per_write = 4.0
publishing = "single-write"
rates = [60.0]
fractions = [0.1]
ttl_seconds = 1.0
hit_skews = []
hit_ttls = []
hit_seconds = 1.0
faults = ["cold cache"]
seconds = 1.0
repeats = 1
"""
USERS = [user(number, f"user_{number}", (number % 7, 1, 2, 3)) for number in range(1, 51)]


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "short.toml"
    file.write_text(SHORT)
    return file


def results(folder: Path) -> Results:
    assert (folder / "index.html").read_text().startswith("<!doctype html>")
    return read_results(folder / "results.json")


async def test_a_run_measures_every_mode_and_goes_on_where_it_was_broken_off(scenario: Path, tmp_path: Path, redis_at: Server) -> None:
    if redis_at.kind == "embedded":
        pytest.skip("needs an installed redis-server")
    folder = tmp_path / "report"
    child = await start("compare", str(scenario), "--report", str(folder))
    try:
        assert child.stderr is not None
        async with asyncio.timeout(200):
            while b"effort 0 view" not in (line := await child.stderr.readline()):
                assert line, "it ended"
        child.terminate()
        assert await asyncio.wait_for(child.wait(), 60) == 130
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    child = await start("compare", str(scenario), "--report", str(folder))
    out, err = await asyncio.wait_for(child.communicate(), 280)
    assert child.returncode == 0, err.decode()[-2000:]
    assert b"5 of 15 cells were measured before." in err
    found = results(folder)
    assert [one.mode for one in found.capacities] == found.modes == ["view", "cache-aside", "cache-invalidate", "sql"]
    assert {(one.mode, one.fraction) for one in found.timings} == {(mode, fraction) for mode in found.modes for fraction in (None, 0.1)}
    assert sum(one.errors + one.timeouts for one in found.timings) == 0
    assert [one.mode for one in found.staleness] == found.modes
    assert all(one.answers > 30 for one in found.staleness)
    writes = {one.mode: one for one in found.efforts if one.kind == "writes"}
    assert all(one.changes == 15 for one in writes.values())
    reads = {one.mode: one for one in found.efforts if one.kind == "reads"}
    assert reads["sql"].postgres_queries is not None
    assert reads["view"].postgres_queries is not None
    assert reads["sql"].postgres_queries >= 60 > 30 > reads["view"].postgres_queries
    assert [one.fault for one in found.timelines] == ["cold cache"] * 4
    assert {one.mode for one in found.hits} == {"cache-aside", "cache-invalidate"}
    assert "The report:" in out.decode()


async def test_a_gateway_that_runs_is_asked_by_its_url(
    redis: Redis, redis_at: Server, postgres_at: Server, scenario: Path, tmp_path: Path
) -> None:
    url = await make_database(postgres_at, "compared")
    connection = await asyncpg.connect(url)
    await write_tables(connection, USERS)
    await connection.close()
    await View(redis).write(USERS)
    settings = Settings(redis_url=redis_at.address, postgres_url=url, allow_mode_header=True)
    async with gateway(settings, DEFINITION) as app, served(app) as graphql:
        address = graphql.removesuffix("/graphql")
        child = await start("compare", str(scenario), "--url", address, "--report", str(tmp_path / "report"))
        _, err = await asyncio.wait_for(child.communicate(), 120)
    assert child.returncode == 0, err.decode()[-2000:]
    found = results(tmp_path / "report")
    assert {one.mode for one in found.timings} == set(found.modes)
    assert all(one.errors + one.timeouts == 0 for one in found.timings)
    assert (found.efforts, found.memory, found.timelines, found.publishing) == ([], [], [], "nothing was written")
    assert sum(one.wrong for one in found.staleness) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such",), "There is no scenario 'no-such'"),
        (("even", "--url", "https://127.0.0.1"), "is no http://host:port of a gateway"),
        (("even", "--url", "http://127.0.0.1:1"), "There is no gateway at http://127.0.0.1:1"),
    ],
)
async def test_what_cannot_be_compared_is_told(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    code, out, err = await run("compare", *arguments, "--report", str(tmp_path / "report"))
    assert (code, out) == (1, "")
    assert said in err


async def test_readers_tell_failures_and_time_from_when_a_read_was_due() -> None:
    """Of a server that answers every third request, the others with an error, and one never."""
    count = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"}}"):
                count += 1
                if count == 5:
                    continue
                body = b'{"data":{"user":{"tweetCount":4}}}' if count % 3 == 0 else b'{"errors":[{"message":"no"}]}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    task = Task(
        host="127.0.0.1",
        port=port,
        headers={},
        rate=30,
        seconds=1,
        users=5,
        skew=0,
        celebrity=0,
        page=0,
        seed=1,
        connections=2,
        timeout_seconds=0.5,
    )
    async with server, Apart("bench.compare.reading", task, Found) as readers:
        found = await readers.run(asyncio.get_running_loop().time() + 0.1)
    outcomes = [one.outcome for one in found.reads]
    assert (len(outcomes), outcomes.count("timeout"), outcomes.count("ok")) == (30, 1, 10)
    assert {one.count for one in found.reads if one.outcome == "ok"} == {4}
    assert max(one.us for one in found.reads) >= 500_000
