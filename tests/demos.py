"""`viewgate demo` in a folder of its own: started, read from, looked for what it leaves behind. Asserts nothing about the view."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from demo.servers import kafka, postgres
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, ServerError, free_port

HOUSE = Path(__file__).parents[1]
CACHE = HOUSE / ".cache"
GOES_ON = "Ctrl-C stops everything"
MODES = ["view", "cache-aside", "cache-invalidate", "sql"]


@contextmanager
def place() -> Iterator[Path]:
    """A folder to run a demo in, with the downloads of this checkout."""
    with scratch() as made:
        (CACHE / "kafka").mkdir(parents=True, exist_ok=True)
        (made / ".cache").mkdir()
        (made / ".cache" / "kafka").symlink_to(CACHE / "kafka")
        yield made


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


async def once(folder: Path, *options: str) -> str:
    """The output of a demo that ends after its answers: four of them alike, and no process left."""
    async with running(folder, "--once", *options) as (process, log):
        assert await asyncio.wait_for(process.wait(), 180) == 0, log.read_text()
        output = log.read_text()
    alike(output)
    assert processes(folder) == []
    return output


def alike(output: str) -> str:
    """The one answer that every mode has given."""
    answers = re.findall(r"^ *(view|cache-aside|cache-invalidate|sql) +[0-9.]+ ms +(\{.*\})$", output, re.MULTILINE)
    assert [mode for mode, _ in answers] == MODES, output
    assert len({answer for _, answer in answers}) == 1
    return str(answers[0][1])


async def told(folder: Path, name: str = "demo") -> dict[str, str]:
    """The environment of a shell that has read the file of the running demo."""
    file = folder / ".cache" / name / "env"
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", '. "$0" && env -0', str(file), env=clean(folder), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return dict(line.split("=", 1) for line in output.decode().split("\0") if line)


async def viewgate(folder: Path, environment: dict[str, str], *words: str) -> tuple[int | None, str]:
    """Exit code and output of a command, by the `viewgate` that is first on PATH."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", 'viewgate "$@"', "sh", *words, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


def clean(folder: Path) -> dict[str, str]:
    """This environment without settings of ours, and with a mark that every child inherits; lines as wide as they come."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("VIEWGATE_", "_VIEWGATE_"))}
    return own | {"STARTED_IN": str(folder), "COLUMNS": "400", "PYTHONPATH": str(HOUSE)}


async def says(log: Path, words: str) -> None:
    """Raises NotReadyError until the output has these words."""
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


async def need_real_servers() -> None:
    """Skips on a laptop that lacks one; fails under CI=true."""
    try:
        for server in (kafka, redis_server, postgres):
            await server.find(CACHE, "installed", print)
    except ServerError as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
