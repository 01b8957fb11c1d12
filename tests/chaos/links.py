"""A link between two processes: a TCP proxy that can be slow, cut, lose its way back, or lead elsewhere. Counts what it did."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, cast
from urllib.parse import urlsplit

Way = Literal["open", "slow", "cut", "one-way"]
SLOW_SECONDS = 0.2


@dataclass(slots=True)
class Link:
    """target: the port of loopback where connections go from now on. way: as it is now; set by `turn`.
    slow: pieces that were late, by 0.2 s each way. cut: connections ended or not let in.
    held: bytes of answers that came while there was no way back; they arrive when there is one again, as TCP has it, unless it is cut."""

    port: int
    target: int
    way: Way = "open"
    slow: int = 0
    cut: int = 0
    held: int = 0
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    def turn(self, way: Way) -> None:
        """From now on it is like this. Cut: what is connected is reset, and what was held is gone."""
        self.way = way
        if way == "one-way":
            self._open.clear()
        elif way == "cut":
            self.cut += len(self._tasks)
            self._end()
        else:
            self._open.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.way == "cut":
            self.cut += 1
            writer.transport.abort()
            return
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        writers = [writer]
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
            writers.append(up_writer)
            await self._both(self._carry(reader, up_writer), self._carry(up_reader, writer, back=True))
            for one in writers:
                one.close()
        except (OSError, asyncio.CancelledError):
            for one in writers:
                one.transport.abort()
        self._tasks.discard(task)

    async def close(self) -> None:
        """End every connection that is left."""
        tasks = list(self._tasks)
        self._end()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _both(self, *ways: Coroutine[None, None, None]) -> None:
        """Until one of them has ended."""
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool = False) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if self.way == "slow":
                    self.slow += 1
                    await asyncio.sleep(SLOW_SECONDS)
                if back and self.way == "one-way":
                    self.held += len(data)
                    await self._open.wait()
                writer.write(data)
                await writer.drain()

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def link_to(target: int, port: int = 0) -> AsyncIterator[Link]:
    """A link to this port of loopback. port: where it listens; 0: anywhere."""
    link = Link(port, target)
    server = await asyncio.start_server(link.serve, "127.0.0.1", port)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        await link.close()


def port_of(address: str) -> int:
    """Of a URL."""
    port = urlsplit(address).port
    assert port
    return port
