"""Kafka, Redis and PostgreSQL together, started at the same time and stopped at the same time."""

import asyncio
import fcntl
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.servers import kafka, postgres, redis
from demo.servers.process import ServerError
from demo.servers.server import Found, Kind, Say, Server, running


@dataclass(frozen=True, slots=True)
class Stack:
    """The three that a gateway reads; what they keep, they keep in the folder they were started on."""

    kafka: Server
    redis: Server
    postgres: Server

    @property
    def servers(self) -> tuple[Server, Server, Server]:
        """All three, for a loop."""
        return self.kafka, self.redis, self.postgres

    @property
    def persistent(self) -> bool:
        """Whether a later start on the same folder finds all that was written."""
        return all(server.kind == "installed" for server in self.servers)


@asynccontextmanager
async def stack(folder: Path, cache: Path, *, prefer: Kind | None = None, say: Say) -> AsyncIterator[Stack]:
    """All three, answering. When one cannot keep its data none of ours does, for positions and counts belong together."""
    with locked(folder):
        found = [await module.find(cache, prefer, say) for module in (kafka, redis, postgres)]
        async with AsyncExitStack() as opened:
            servers = await _together(opened, found, _home(folder, found), say)
            try:
                yield Stack(*servers)
            finally:
                await asyncio.gather(*(server.process.stop() for server in servers if server.process))


async def _together(opened: AsyncExitStack, found: list[Found], folder: Path, say: Say) -> list[Server]:
    try:
        async with asyncio.TaskGroup() as group:
            starts = [group.create_task(opened.enter_async_context(running(one, folder, say))) for one in found]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [start.result() for start in starts]


def _home(folder: Path, found: list[Found]) -> Path:
    if all(one.kind == "installed" for one in found):
        return folder
    passing = folder / "passing"
    shutil.rmtree(passing, ignore_errors=True)
    return passing


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, or raise ServerError: two Redis servers on one folder would spoil each other's file without a word."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as taken:
            raise ServerError(f"{folder} is in use by another run: stop that one first") from taken
        yield
