"""One address before a server that may change, as a Service of Kubernetes or a virtual IP is; and a link that falls behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast


@dataclass(slots=True)
class Service:
    """target: the port of loopback where connections go from now on. port: its own. open: whether bytes go on; they wait meanwhile."""

    target: int
    port: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    def cut(self) -> None:
        """End every connection; what waits in them is gone."""
        for task in self._tasks:
            task.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.CancelledError):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
            with contextlib.closing(up_writer):
                ways = [asyncio.create_task(self._carry(reader, up_writer)), asyncio.create_task(self._carry(up_reader, writer))]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.wait(ways)
        self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self.open.wait()
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def before(target: int) -> AsyncIterator[Service]:
    """A service on a port of its own; its connections end with it."""
    service = Service(target)
    service.open.set()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield service
    finally:
        server.close()
        left = list(service._tasks)
        service.cut()
        await asyncio.gather(*left, return_exceptions=True)
