"""A link between two processes: a TCP proxy that can be slow, cut, or lose its way back. Counts what it has carried and what it has not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, cast

Way = Literal["open", "slow", "cut", "one-way"]
SLOW_SECONDS = 0.2


@dataclass(slots=True)
class Link:
    """way: as it is now; set by `turn`. slow: pieces that were late, by 0.2 s each way. cut: connections ended or not let in.
    held: bytes of answers that came while there was no way back; they arrive when there is one again, as TCP has it."""

    port: int
    target: int
    way: Way = "open"
    slow: int = 0
    cut: int = 0
    held: int = 0
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    def turn(self, way: Way) -> None:
        """From now on it is like this. Cut: what is connected is reset."""
        self.way = way
        if way == "one-way":
            self._open.clear()
        else:
            self._open.set()
        if way == "cut":
            self.cut += len(self._tasks)
            self._end()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.way == "cut":
            self.cut += 1
            writer.transport.abort()
            return
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
            there = asyncio.create_task(self._carry(reader, up_writer))
            try:
                await self._carry(up_reader, writer, back=True)
            finally:
                there.cancel()
                await asyncio.wait([there])
                up_writer.transport.abort()
        writer.transport.abort()
        self._tasks.discard(task)

    async def close(self) -> None:
        """End every connection that is left."""
        tasks = list(self._tasks)
        self._end()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool = False) -> None:
        with contextlib.suppress(OSError):
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
