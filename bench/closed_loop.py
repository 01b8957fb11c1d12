"""A client that costs little: some connections, each of which sends the next request when the last one is answered."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

CONNECTIONS = 16
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
OK = b"HTTP/1.1 200"
Next = Callable[[], bytes]


class NotAnswered(Exception):
    """A status other than 200, or a connection that was closed."""


@dataclass(slots=True)
class Load:
    """What came of it. latencies: in seconds, of each request."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds


def body(query: str, variables: Mapping[str, object] | None = None) -> bytes:
    return msgspec.json.encode({"query": query, "variables": variables})


def request(asked: bytes) -> bytes:
    head = "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(asked)}\r\n\r\n".encode() + asked


async def load(port: int, next_: Next, seconds: float, connections: int = CONNECTIONS) -> Load:
    """next_: the bytes of the next request. Raises NotAnswered."""
    found = Load()
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    clients = [_Client(next_, began + seconds, found, loop.create_future()) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]  # mypy infers no default
    await asyncio.gather(*[client.done for client in clients])
    found.seconds = time.perf_counter() - began
    return found


async def answer(port: int, asked: bytes) -> bytes:
    """Of one request; its body alone. Raises NotAnswered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(asked).replace(b"host:", b"connection: close\r\nhost:"))
        whole = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    head, _, rest = whole.partition(b"\r\n\r\n")
    if b" 200 " not in head[:20]:
        raise NotAnswered(whole[:500].decode(errors="replace"))
    return _unchunked(rest) if _CHUNKED.search(head + b"\r\n") else rest


def is_whole(got: bytes) -> bool:
    """Whether an answer is all there."""
    head, end, _ = got.partition(b"\r\n\r\n")
    if not end:
        return False
    length = _LENGTH.search(head + b"\r\n")
    return len(got) >= len(head) + 4 + int(length[1]) if length else got.endswith(b"0\r\n\r\n")


def _unchunked(chunks: bytes) -> bytes:
    whole = b""
    while True:
        size, _, chunks = chunks.partition(b"\r\n")
        if not int(size, 16):
            return whole
        whole, chunks = whole + chunks[: int(size, 16)], chunks[int(size, 16) + 2 :]


class _Client(asyncio.Protocol):
    def __init__(self, next_: Next, until: float, found: Load, done: "asyncio.Future[None]") -> None:
        self._next, self._until, self._found, self.done = next_, until, found, done
        self._got, self._sent = b"", 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._next())

    def data_received(self, data: bytes) -> None:
        self._got = self._got + data if self._got else data
        if not is_whole(self._got):
            return
        if not self._got.startswith(OK):
            self._end(NotAnswered(self._got[:300].decode(errors="replace")))
            return
        now = time.perf_counter()
        self._found.latencies.append(now - self._sent)
        self._got = b""
        if now < self._until:
            self._send()
        else:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(NotAnswered(f"the connection was closed: {exc}"))

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error) if error else self.done.set_result(None)
            self._transport.close()
