"""Clients that mean no good, or are merely slow: what they do to a gateway while others read. On loopback, bounded in number and time."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from bench.bodies import BODIES
from bench.closed_loop import body, is_whole, request

DRIPPING, UNREAD = 150, 20
# the bodies that cost most at their first time (bench/attacks.py), each in a text that the gateway has never seen
WORST = ("introspection", "one user, its field often", "operations", "fragments", "near names", "directives", "inline fragments")
EVERYTHING = "query ($ids: [ID!]!) { users(ids: $ids) { id username name description location webPageUrl joinedAt profileImageUrl } }"


@asynccontextmanager
async def slow(port: int) -> AsyncIterator[None]:
    """Some send a request byte by byte, and some ask for much and read nothing of it."""
    whole = request(body("{ __typename }"))
    large = request(body(EVERYTHING, {"ids": [str(number) for number in range(1, 101)]})) * 20

    async def drip(at: int) -> None:
        while True:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            with suppress(ConnectionError):
                for byte in itertools.islice(whole, at, len(whole) - 1):
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.5)
            writer.close()

    async def leave_unread() -> None:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", port))
            await asyncio.get_running_loop().sock_sendall(one, large)
            await asyncio.sleep(3600)

    async with _running([*[lambda: drip(0)] * DRIPPING, *[leave_unread] * UNREAD]):
        yield


@asynccontextmanager
async def hostile(port: int, clients: int = 1) -> AsyncIterator[None]:
    """Each sends the worst bodies one after another, as fast as they are answered."""
    numbers = itertools.count()

    async def attack() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for name in itertools.cycle(WORST):
            # a comment makes it another text
            text = BODIES[name].replace(b'"query":"', b'"query":"#%d\\n' % next(numbers), 1)
            writer.write(request(text))
            got = b""
            while not is_whole(got):
                got += await reader.read(65536)

    async with _running([attack] * clients):
        yield


@asynccontextmanager
async def _running(clients: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(client()) for client in clients]
    # all of them are at it, and stuck where they are to be
    await asyncio.sleep(3)
    try:
        yield
    finally:
        failed = [task.exception() for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if failed:
            raise failed[0] or RuntimeError("a client has ended")
