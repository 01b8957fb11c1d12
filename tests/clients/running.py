"""A program in a folder of its own, run to its end or followed line by line; and an ASGI app on a port."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from app.short_road import protocol
from demo.servers.process import NotReadyError, free_port, until

PIPE = asyncio.subprocess.PIPE


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended. out: what it printed. said: that, and after it what it complained of."""

    code: int | None
    out: str
    said: str


async def run(*argv: str, folder: Path, seconds: float = 120) -> Ran:
    """Its end; it is killed, with what it started, if that takes longer."""
    child = await _start(argv, folder)
    try:
        out, err = await asyncio.wait_for(child.communicate(), seconds)
    finally:
        _end(child)
    return Ran(child.returncode, out.decode(), (out + err).decode())


@asynccontextmanager
async def followed(*argv: str, folder: Path) -> AsyncIterator[asyncio.StreamReader]:
    """What a program prints while it runs; it is killed at the end."""
    child = await _start(argv, folder)
    assert child.stdout is not None
    try:
        yield child.stdout
    finally:
        _end(child)
        await child.communicate()


@asynccontextmanager
async def served(app: Starlette, head_bytes: int = 16_384, seconds: float = 30.0) -> AsyncIterator[str]:
    """The URL of a gateway's /graphql, on a free port and with the short road, until the end. seconds: that a head may take."""
    port = free_port()
    http = protocol(app.state.short, head_bytes, seconds)
    server = _Server(uvicorn.Config(app, port=port, http=http, lifespan="off", log_config=None, access_log=False))
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: _answers(port), 10)
        yield f"http://127.0.0.1:{port}/graphql"
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """Leaves the signals to pytest."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _answers(port: int) -> None:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as refused:
        raise NotReadyError(str(refused)) from refused
    writer.close()
    await writer.wait_closed()


async def _start(argv: tuple[str, ...], folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(*argv, cwd=folder, stdout=PIPE, stderr=PIPE, start_new_session=True)


def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        os.killpg(child.pid, signal.SIGKILL)
