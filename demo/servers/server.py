"""What a running server is, and the choice of one: given, installed, embedded. The only reader of the environment in this package."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from demo.servers.process import Process, ServerError

Kind = Literal["given", "installed", "embedded"]
Say = Callable[[str], None]


class MissingError(ServerError):
    """A server is not on this machine and could not be brought to it."""


@dataclass(frozen=True, slots=True)
class Server:
    """One running server; `process` is None when it was given and is not ours to stop."""

    name: str
    kind: Kind
    what: str
    address: str
    process: Process | None


Open = Callable[[Path], Awaitable[Server]]


@dataclass(frozen=True, slots=True)
class Found:
    """A server that can be started on a folder."""

    name: str
    kind: Kind
    open: Open


@dataclass(frozen=True, slots=True)
class Ways:
    """The three ways to one server; `installed` raises ServerError, `caveat` is what an embedded one cannot do."""

    name: str
    variable: str
    given: Callable[[str], Awaitable[Server]]
    installed: Callable[[], Awaitable[Open]]
    embedded: Callable[[], Open]
    caveat: str


async def choose(ways: Ways, prefer: Kind | None, say: Say) -> Found:
    """The most real server at hand, or the one preferred; under CI=true an embedded one must be asked for."""
    address = os.environ.get(ways.variable, "")
    if prefer == "given" and not address:
        raise MissingError(f"{ways.name}: {ways.variable} is not set")
    if prefer in {None, "given"} and address:
        return Found(ways.name, "given", lambda folder: ways.given(address))
    if prefer != "embedded":
        try:
            return Found(ways.name, "installed", await ways.installed())
        except ServerError as missing:
            if prefer == "installed" or os.environ.get("CI") == "true":
                raise
            say(f"{ways.name}: {missing}")
    say(f"{ways.name} IS EMBEDDED: {ways.caveat}")
    return Found(ways.name, "embedded", ways.embedded())


@asynccontextmanager
async def running(found: Found, folder: Path, say: Say) -> AsyncIterator[Server]:
    """Start it on `folder`, stop it at the end."""
    server = await found.open(_prepared(folder))
    say(f"{server.name}: {server.what}, {server.kind}, " + (f"at {server.address}" if server.process else "not started by us"))
    try:
        yield server
    finally:
        if server.process:
            await server.process.stop()


def _prepared(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


async def begin(name: str, kind: Kind, what: str, address: str, process: Process) -> Server:
    """Start a process and call it a server; its log begins anew with each run of ours."""
    process.command.log.write_bytes(b"")
    await process.start()
    return Server(name, kind, what, address, process)
