"""`viewgate doctor` on settings, this Python, and what listens where the gateway should; no server is needed."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.doctor.checks import Result, address
from app.doctor.gateway import GATEWAY, SETTINGS, Asked
from app.settings import Settings
from demo.servers.process import free_port
from tests.request.arranged import DEFINITION


async def _found(**settings: object) -> dict[str, Result]:
    asked = Asked(Settings(**settings), DEFINITION)  # type: ignore[arg-type]  # each test knows what its setting is
    ends_at = asyncio.get_running_loop().time() + 10
    results = [*await SETTINGS.run(asked, 1, ends_at), *await GATEWAY.run(asked, 1, ends_at)]
    return {result.check: result for result in results}


@asynccontextmanager
async def _listening(answer: bytes) -> AsyncIterator[int]:
    """Something that answers whatever it is sent with these bytes."""

    async def told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(told, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("allowed", "host", "verdict"),
    [
        (False, "0.0.0.0", "ok"),
        (True, "127.0.0.1", "ok"),
        (True, "::1", "ok"),
        (True, "localhost", "ok"),
        (True, "0.0.0.0", "warning"),
        (True, "10.1.2.3", "warning"),
    ],
)
async def test_a_mode_header_that_others_can_send_is_a_warning(allowed: bool, host: str, verdict: str) -> None:
    found = await _found(allow_mode_header=allowed, host=host, port=0)
    assert found["mode header"].verdict == verdict


async def test_a_part_in_c_that_cannot_be_loaded_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await _found(port=0))["python"].verdict == "ok"
    monkeypatch.setitem(sys.modules, "httptools", None)
    found = (await _found(port=0))["python"]
    assert found[2:] == ("wrong", "cannot be loaded: httptools", "Install viewgate again, with all that it needs.")


async def test_a_port_where_nothing_listens_is_skipped() -> None:
    assert (await _found(port=free_port()))["ready"].verdict == "skipped"
    assert (await _found(port=0))["ready"].verdict == "skipped"


@pytest.mark.parametrize(
    ("answer", "verdict", "told"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nready\n", "ok", "is ready"),
        (b"HTTP/1.1 503 x\r\n\r\nNOT_READY: No generation is live.\n", "wrong", "is not ready: NOT_READY: No generation is live"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "warning", "is no viewgate: it answers /readyz with 200"),
        (b"HTTP/1.1 404 x\r\n\r\n", "warning", "is no viewgate: it answers /readyz with 404"),
        (b"+PONG\r\n", "warning", "is no viewgate: it answers /readyz with no HTTP"),
        (b"", "warning", "is no viewgate: it answers /readyz with no HTTP"),
    ],
)
async def test_what_listens_there_is_told(answer: bytes, verdict: str, told: str) -> None:
    async with _listening(answer) as port:
        found = (await _found(host="0.0.0.0", port=port))["ready"]
    assert found.verdict == verdict
    assert told in found.found


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@cache:6379/0", "redis://cache:6379/0"),
        ("rediss://:se@cret@cache/1?ssl_ca_certs=x", "rediss://cache/1"),
        ("redis://cache:6379/0?password=sec@ret", "redis://cache:6379/0"),
        ("postgresql://u:p/ss@db:5432/app", "postgresql://…"),
        ("unix:///run/redis.sock?db=1&password=secret", "unix:///run/redis.sock"),
        ("postgresql://[::1]:5432/app", "postgresql://[::1]:5432/app"),
        ("redis+cluster://user:secret@one:7001,two,[::1]:7003?password=x", "redis+cluster://one:7001,two,[::1]:7003"),
        ("redis+cluster://user:sec/ret@one:7001,two:7002", "redis+cluster://…"),
        ("redis+cluster://:se@cret@one:7001,two:7002", "redis+cluster://one:7001,two:7002"),
    ],
)
def test_an_address_is_shown_without_who_logs_in(url: str, shown: str) -> None:
    assert address(url) == shown


async def test_a_check_for_which_no_time_is_left_is_skipped_and_says_so() -> None:
    asked = Asked(Settings(port=0), DEFINITION)
    results = await SETTINGS.run(asked, 1, asyncio.get_running_loop().time())
    assert {(result.verdict, result.found) for result in results} == {("skipped", "no time was left for it")}
