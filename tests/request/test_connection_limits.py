"""What one connection may do: heads that are too long or come too slowly, requests without an end, answers that are left unread."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from app.connection_limits import UNWANTED_BYTES
from app.server import application
from app.settings import Settings
from app.telemetry import GatewayMetrics
from tests.clients.running import served
from tests.request.arranged import DEFINITION, MemoryLoader

BODY = b'{"query": "{ __typename }"}'
START = b"POST /graphql HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % len(BODY)
ANSWER = b'{"data":{"__typename":"Query"}}'


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Of a gateway whose heads may have 16,484 bytes and take half a second."""
    app = application(Settings(request_timeout_seconds=0.5), DEFINITION, {"view": MemoryLoader()}, GatewayMetrics())
    async with served(app, 100, 0.5) as url:
        yield int(url.split(":")[2].split("/")[0])


async def told(port: int, *parts: bytes) -> bytes:
    """All that comes back until the connection ends, or an answer has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = b""

    async def heard() -> None:
        nonlocal found
        # a connection that is ended under a part that is still on its way is reset
        with suppress(ConnectionError):
            while ANSWER not in found and (more := await reader.read(65536)):
                found += more

    hearing = asyncio.create_task(heard())
    with suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        await hearing
    writer.close()
    return found


async def test_a_head_in_pieces_is_a_head(port: int) -> None:
    assert (await told(port, *[START[at : at + 20] for at in range(0, len(START), 20)], b"\r\n", BODY)).startswith(b"HTTP/1.1 200")
    assert (await told(port, START + b"\r\n" + BODY)).endswith(ANSWER)


async def test_two_requests_come_over_one_connection_after_a_pause(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for pause in (0.8, 0.0):
        writer.write(START + b"\r\n" + BODY)
        assert (await reader.readuntil(ANSWER)).startswith(b"HTTP/1.1 200")
        # longer than a head may take: between requests a connection is idle, and nobody's head is late
        await asyncio.sleep(pause)
    writer.close()


@pytest.mark.parametrize(
    "parts",
    [
        [START, *[b"x-long: " + b"a" * 1000 + b"\r\n"] * 20],
        [START + b"x: y\r\n" * 120 + b"\r\n" + BODY],
        [b"GET /graphql?query=" + b"a" * 10_000, b"a" * 10_000],
    ],
    ids=["bytes", "headers", "url"],
)
async def test_a_head_that_is_too_long_is_refused(port: int, parts: list[bytes]) -> None:
    assert (await told(port, *parts)).startswith(b"HTTP/1.1 431")


async def test_a_head_that_comes_too_slowly_is_refused(port: int) -> None:
    assert (await told(port, START)).startswith(b"HTTP/1.1 408")
    assert await told(port) == b""


async def test_a_body_that_comes_too_slowly_is_refused(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(START + b"\r\n" + BODY[:5])
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408")
        await reader.readuntil(b"TIMEOUT")
    writer.close()


async def test_a_client_that_sends_on_without_reading_is_cut_off(port: int) -> None:
    """64 requests wait for their answers; then nobody reads on."""
    few, many = START + b"\r\n" + BODY, (START + b"\r\n" + BODY) * 400
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(few * 20)
    async with asyncio.timeout(10):
        for _ in range(20):
            await reader.readuntil(ANSWER)
    writer.write(many)
    answered = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(10):
            while more := await reader.read(65536):
                answered += more
    writer.close()
    assert answered.count(ANSWER) < 100
    # and it is nobody else's business
    assert (await told(port, START + b"\r\n" + BODY)).endswith(ANSWER)


async def test_an_answer_that_is_left_unread_ends_the_connection(port: int) -> None:
    large = b'{"query": "{ ' + b" ".join([b"a%d: __typename" % number for number in range(20)]) + b' }"}'
    head = b"POST /graphql HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(large)
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(one, ("127.0.0.1", port))
        # what it may hold back is more than the system's buffers hold

        async def flood() -> None:
            while True:
                await loop.sock_sendall(one, (head + large) * 30)
                await asyncio.sleep(0.005)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(flood(), 60)


async def test_a_body_that_goes_on_after_its_refusal_is_read_for_a_while(port: int) -> None:
    """Many a client reads its answer when it has sent all."""
    head = START.replace(b"content-length: %d" % len(BODY), b"content-length: 1000000000") + b"\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413")
    sent = 0
    with suppress(ConnectionError):
        async with asyncio.timeout(60):
            while sent < 10 * UNWANTED_BYTES:
                writer.write(b" " * 65536)
                sent += 65536
                await writer.drain()
    assert UNWANTED_BYTES <= sent < 10 * UNWANTED_BYTES
    writer.close()
