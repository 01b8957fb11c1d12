"""The demo as a newcomer runs it: one command, three answers alike, nothing left behind."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from demo.servers import kafka, postgres
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, ServerError, free_port, until

CACHE = Path(__file__).parents[1] / ".cache"
pytestmark = pytest.mark.servers


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder to run the demo in, with the downloads of this checkout."""
    with scratch() as made:
        (CACHE / "kafka").mkdir(parents=True, exist_ok=True)
        (made / ".cache").mkdir()
        (made / ".cache" / "kafka").symlink_to(CACHE / "kafka")
        yield made


async def test_the_demo_answers_one_query_alike_in_three_modes_with_everything_embedded(folder: Path) -> None:
    await check_once(folder, "--embedded")


async def test_the_demo_answers_one_query_alike_in_three_modes_with_real_servers(folder: Path) -> None:
    try:
        for server in (kafka, redis_server, postgres):
            await server.find(CACHE, "installed", print)
    except ServerError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    await check_once(folder)
    # what the first run stored is there again
    output = await check_once(folder)
    assert "Publishing" not in output


async def test_ctrl_c_ends_a_demo_that_was_audited_under_live_changes_and_leaves_no_process(folder: Path) -> None:
    async with running(folder, "--embedded") as (process, log):
        await until(lambda: says(log, "Ctrl-C stops everything"), 120)
        environment = addresses(log.read_text())
        assert "0 mismatches" in await audited(folder, environment, 0)
        redis = Redis.from_url(environment["VIEWGATE_REDIS_URL"])
        (key,) = [key async for key in redis.scan_iter("user:g1.*:{*}:4999")]
        await redis.hset(key, "1", '"Mallory"')
        await redis.aclose()
        assert '4999: name is "Mallory" in the view' in await audited(folder, environment, 1)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    assert processes(folder) == []


async def test_a_projector_that_dies_ends_the_demo_with_the_name_of_its_log(folder: Path) -> None:
    async with running(folder, "--embedded") as (process, log):
        await until(lambda: says(log, "Ctrl-C stops everything"), 120)
        assert len(processes(folder)) >= 7
        (projector,) = [pid for pid, words in processes(folder) if "project" in words]
        os.kill(projector, signal.SIGKILL)
        assert await asyncio.wait_for(process.wait(), 30) == 1
        assert re.search(r"projector has ended by itself.*projector\.log", log.read_text().replace("\n", " "))
    assert processes(folder) == []


async def test_a_taken_port_is_told_before_anything_is_started(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(folder, "--embedded", "--port", str(port)) as (process, log):
            assert await asyncio.wait_for(process.wait(), 30) == 1
            assert f"Port {port} is taken" in log.read_text()


async def check_once(folder: Path, *options: str) -> str:
    async with running(folder, "--once", *options) as (process, log):
        assert await asyncio.wait_for(process.wait(), 180) == 0, log.read_text()
        output = log.read_text()
    answers = re.findall(r"^ *(view|cache-aside|sql) +[0-9.]+ ms +(\{.*\})$", output, re.MULTILINE)
    assert [mode for mode, _ in answers] == ["view", "cache-aside", "sql"], output
    assert len({answer for _, answer in answers}) == 1
    assert re.search(r'"followerCount": [1-9]', answers[0][1])
    assert processes(folder) == []
    return output


@asynccontextmanager
async def running(folder: Path, *options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    """`viewgate demo` in a folder, and the file that it prints to."""
    log = folder / "output"
    where = () if "--port" in options else ("--port", str(free_port()))
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "demo", *options, *where, cwd=folder, stdout=output, stderr=output, env=clean(folder)
        )
    try:
        yield process, log
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def audited(folder: Path, environment: dict[str, str], code: int) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "audit", cwd=folder, env=clean(folder) | environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == code, output
    return output.decode()


def clean(folder: Path) -> dict[str, str]:
    """This environment without settings of ours, and with a mark that every child inherits; lines as wide as they come."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("VIEWGATE_")}
    return own | {"STARTED_IN": str(folder), "COLUMNS": "400", "PYTHONPATH": str(Path(__file__).parents[1])}


def addresses(output: str) -> dict[str, str]:
    found = dict(re.findall(r"^(kafka|redis|postgres): .*, \w+, at (\S+)$", output, re.MULTILINE))
    return {
        "VIEWGATE_KAFKA_BOOTSTRAP": found["kafka"],
        "VIEWGATE_REDIS_URL": found["redis"],
        "VIEWGATE_POSTGRES_URL": found["postgres"],
    }


async def says(log: Path, words: str) -> None:
    output = log.read_text()  # noqa: ASYNC240  # a small file
    if words not in output:
        raise NotReadyError(output[-2000:])


def processes(folder: Path) -> list[tuple[int, list[str]]]:
    """The processes that a demo in this folder has started, and their words."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"STARTED_IN={folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append((int(entry.name), (entry / "cmdline").read_text().split("\0")))
        except OSError:
            continue
    return found
