"""A TCP proxy before Redis that lets scripts through and loses their answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, cast

Way = Literal["cut", "swallow"]


@dataclass(slots=True)
class Proxy:
    """losses: how many more connections lose the answer to a script that Redis has run. way: cut the connection, or say nothing more."""

    port: int
    way: Way = "cut"
    losses: int = 0
    scripts: int = 0
    address: str = ""
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # a connection is closed by its own task, which `before` waits for: nothing else holds it
        self._tasks.add(cast("asyncio.Task[None]", asyncio.current_task()))
        losing = asyncio.Event()
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        with contextlib.closing(writer), contextlib.closing(up_writer), contextlib.suppress(ConnectionError, asyncio.CancelledError):
            up = asyncio.create_task(self._forward(reader, up_writer, losing))
            try:
                await self._answer(up_reader, writer, losing)
            finally:
                up.cancel()
                await asyncio.wait([up])

    async def close(self) -> None:
        """End every connection that is left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, up: asyncio.StreamWriter, losing: asyncio.Event) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                scripts = data.count(b"EVALSHA")
                self.scripts += scripts
                if scripts and self.losses > 0:
                    self.losses -= 1
                    losing.set()
                up.write(data)
                await up.drain()
            up.write_eof()

    async def _answer(self, up: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event) -> None:
        while data := await up.read(1 << 16):
            if not losing.is_set():
                writer.write(data)
                await writer.drain()
            elif self.way == "cut":
                # the answer is here, so the script has run
                return


@asynccontextmanager
async def before(port: int, way: Way) -> AsyncIterator[Proxy]:
    """A proxy before the Redis at this port of loopback."""
    proxy = Proxy(port, way)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.address = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
