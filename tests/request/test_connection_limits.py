"""Heads of requests that are too long, or come too slowly, sent byte by byte over a connection of their own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

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
    app = application(Settings(), DEFINITION, {"view": MemoryLoader()}, GatewayMetrics())
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
