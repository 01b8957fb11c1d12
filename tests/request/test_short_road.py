"""The short road: answers that are those of the whole road, and whatever makes a request leave it, byte by byte over a connection."""

import asyncio
import gc
import hashlib
import math
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette

from app.endpoint.endpoint import Endpoint
from app.endpoint.short import Short
from app.server import application
from app.settings import Settings
from app.short_road import ShortRoadProtocol
from app.telemetry import GatewayMetrics
from loaders.live import Live
from loaders.view import ViewLoader
from schema.loader import Read, Rows
from tests.clients.running import served
from tests.request.arranged import ADA, ADAS, DEFINITION, MemoryLoader, View

MOST_STEPS = 1_200
HASH = hashlib.sha256(ADA.encode()).hexdigest()
EVERYTHING = "{ users(ids: %s) { id username name joinedAt profileImageUrl tweetCount } }"


@dataclass(slots=True)
class Held(MemoryLoader):
    """Answers on the short road when it is told to, or at once once it is free."""

    asked: list[Callable[[], object]] = field(default_factory=list)
    free: bool = False

    def begin(self, reads: Sequence[Read], done: Callable[[Rows | None], None]) -> bool:
        if self.free:
            return super(Held, self).begin(reads, done)
        self.asked.append(lambda: super(Held, self).begin(reads, done))
        return True


def gateway(loader: Any, **given: Any) -> Starlette:
    return application(Settings(**given), DEFINITION, {"view": loader}, GatewayMetrics())


def posted(body: Any, *lines: str, version: str = "1.1") -> bytes:
    text = body if isinstance(body, bytes) else msgspec.json.encode(body)
    head = [f"POST /graphql HTTP/{version}", "host: gateway", "content-type: application/json", f"content-length: {len(text)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + text


class Connection:
    """To a gateway, by a URL."""

    def __init__(self, url: str) -> None:
        self._port = int(url.split(":")[2].split("/", maxsplit=1)[0])

    async def __aenter__(self) -> "Connection":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def answer(self) -> tuple[bytes, Sequence[bytes], bytes]:
        """Its status line; the lines of its head but for the date, sorted; its body."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
            length = next(int(line.partition(b":")[2]) for line in head if line.startswith(b"content-length"))
            body = await self.reader.readexactly(length)
        return head[0], sorted(line for line in head[1:] if not line.startswith(b"date:")), body

    async def ended(self) -> bool:
        async with asyncio.timeout(10):
            return await self.reader.read() == b""


async def asked(url: str, *requests: bytes) -> list[tuple[bytes, Sequence[bytes], bytes]]:
    async with Connection(url) as connection:
        found = []
        for request in requests:
            connection.writer.write(request)
            found.append(await connection.answer())
        return found


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with served(gateway(MemoryLoader())) as url:
        yield url


REQUESTS = {
    "plain": [posted({"query": ADA})],
    "a newer type": [posted({"query": ADA}, "accept: application/graphql-response+json")],
    "long": [posted({"query": EVERYTHING % str(["1", "2"] * 20).replace("'", '"')})],
    "packed": [posted({"query": EVERYTHING % str(["1", "2"] * 20).replace("'", '"')}, "accept-encoding: gzip, br;q=0.5")],
    "variables": [
        posted({"query": "query A($id: ID!) { user(id: $id) { id } }", "variables": {"id": 3}, "operationName": "A", "extensions": {}})
    ],
    "a persisted query": [
        posted({"query": ADA, "extensions": {"persistedQuery": {"version": 1, "sha256Hash": HASH}}}),
        posted({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": HASH}}}),
    ],
    "of another site": [posted({"query": ADA}, "cookie: a=1", "user-agent: x", "sec-fetch-site: cross-site")],
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_an_answer_is_that_of_the_whole_road(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Short, "begin", lambda *_: False)
        whole = await asked(url, *REQUESTS[name])

    async def closed(*_: Any) -> None:
        raise AssertionError("it went the whole road")

    monkeypatch.setattr(Endpoint, "__call__", closed)
    async with served(gateway(MemoryLoader())) as fresh:
        assert await asked(fresh, *REQUESTS[name]) == whole
    assert [status for status, *_ in whole] == [b"HTTP/1.1 200 OK"] * len(whole)


@pytest.mark.parametrize("origins", ["", "*", "https://a.example, https://b.example"])
@pytest.mark.parametrize("line", ["x: y", "origin: https://a.example", "origin: https://c.example", "origin: null"])
async def test_a_page_of_another_site_is_told_what_the_whole_road_tells_it(
    origins: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = posted({"query": ADA}, line)
    async with served(gateway(MemoryLoader(), cors_origins=origins)) as url:
        found = await asked(url, request)
        monkeypatch.setattr(Short, "begin", lambda *_: False)
        assert await asked(url, request) == found
    assert any(one.startswith(b"access-control-allow-origin") for one in found[0][1]) == (
        (line.startswith("origin") and origins == "*") or ("a.example" in line and "a.example" in origins)
    )


UNUSUAL = {
    "an unknown user": (posted({"query": '{ user(id: "99") { id } }'}), b'{"data":{"user":null}}'),
    "an error": (posted({"query": "{ nothing }"}), b"GRAPHQL_VALIDATION_FAILED"),
    "no JSON": (posted(b"{"), b"BAD_REQUEST"),
    "an array": (posted([{"query": ADA}]), b"BAD_BATCH"),
    "its plan": (posted({"query": ADA}, "viewgate-extensions: plan"), b'"plan":{"rows":1'),
    "a mode": (posted({"query": ADA}, "viewgate-mode: view"), b"BAD_MODE"),
    "nothing to be read": (posted({"query": "{ __typename }"}), b'{"data":{"__typename":"Query"}}'),
    "too large": (posted({"query": ADA, "operationName": " " * 300}), b"TOO_LARGE"),
    "in chunks": (
        b"POST /graphql HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        b'd\r\n{"query": "{ \r\n10\r\n__typename }" } \r\n0\r\n\r\n',
        b'{"data":{"__typename":"Query"}}',
    ),
}


@pytest.mark.parametrize("name", UNUSUAL)
async def test_what_is_unusual_goes_the_whole_road_and_the_next_one_does_not(name: str) -> None:
    request, said = UNUSUAL[name]
    async with served(gateway(MemoryLoader(), limit_body_bytes=200)) as url:
        found = await asked(url, request, posted({"query": ADA}), request)
    assert said in found[0][2]
    assert found[1][2] == msgspec.json.encode(ADAS)
    assert found[2][:2] == found[0][:2]


async def test_a_request_in_pieces_is_answered(url: str) -> None:
    whole = posted({"query": ADA})
    async with Connection(url) as connection:
        for at in (1, 20, len(whole) - 10, len(whole) - 1):
            for part in (whole[:at], whole[at:]):
                connection.writer.write(part)
                await asyncio.sleep(0.02)
            assert (await connection.answer())[2] == msgspec.json.encode(ADAS)


async def test_requests_in_one_piece_are_answered_in_their_order() -> None:
    held = Held()
    ids = ["1", "99", "2", "3"]
    async with served(gateway(held)) as url, Connection(url) as connection:
        connection.writer.write(b"".join([posted({"query": f'{{ user(id: "{one}") {{ id }} }}'}) for one in ids]))
        await asyncio.sleep(0.1)
        # the others wait for it
        assert len(held.asked) == 1
        held.asked[0]()
        for one in ids:
            known = b"null" if one == "99" else b'{"id":"%b"}' % one.encode()
            assert (await connection.answer())[2] == b'{"data":{"user":%b}}' % known


async def test_nothing_is_read_while_what_was_read_waits() -> None:
    """Or what comes behind would be too much, though the client did nothing but ask often."""
    held = Held()
    async with served(gateway(held)) as url, Connection(url) as connection:
        for count in (10, 60):
            connection.writer.write(posted({"query": ADA}) * count)
            await asyncio.sleep(0.1)
        held.free = True
        held.asked[0]()
        for _ in range(70):
            assert (await connection.answer())[2] == msgspec.json.encode(ADAS)


async def test_one_that_leaves_the_road_late_is_answered_before_those_behind_it() -> None:
    held = Held()
    async with served(gateway(held)) as url, Connection(url) as connection:
        connection.writer.write(posted({"query": '{ user(id: "99") { id } }'}) + posted({"query": ADA}))
        await asyncio.sleep(0.1)
        held.asked[0]()
        assert (await connection.answer())[2] == b'{"data":{"user":null}}'
        assert (await connection.answer())[2] == msgspec.json.encode(ADAS)


@pytest.mark.parametrize("request_", [posted({"query": ADA}, "connection: close"), posted({"query": ADA}, version="1.0")])
async def test_a_connection_that_is_to_end_ends(url: str, request_: bytes) -> None:
    async with Connection(url) as connection:
        connection.writer.write(request_)
        status, lines, body = await connection.answer()
        assert (status, body) == (b"HTTP/1.1 200 OK", msgspec.json.encode(ADAS))
        assert b"connection: close" in lines
        assert await connection.ended()


async def test_a_client_that_leaves_before_its_answer_harms_nobody() -> None:
    held = Held()
    async with served(gateway(held)) as url:
        async with Connection(url) as connection:
            connection.writer.write(posted({"query": ADA}))
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)
        held.asked[0]()
        async with Connection(url) as other:
            other.writer.write(posted({"query": ADA}))
            await asyncio.sleep(0.1)
            held.asked[1]()
            assert (await other.answer())[2] == msgspec.json.encode(ADAS)


async def test_a_server_that_ends_tells_so_in_the_answer_it_still_owes() -> None:
    held = Held()
    async with served(gateway(held)) as url, Connection(url) as connection:
        connection.writer.write(posted({"query": ADA}))
        await asyncio.sleep(0.1)
        for one in gc.get_objects():
            if isinstance(one, ShortRoadProtocol) and one.cycle is not None and not one.cycle.response_complete:
                one.shutdown()
        held.asked[0]()
        status, lines, body = await connection.answer()
        assert (status, body) == (b"HTTP/1.1 200 OK", msgspec.json.encode(ADAS))
        assert b"connection: close" in lines
        assert await connection.ended()


async def test_a_mistake_of_the_short_road_alone_costs_nobody_an_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> None:
        raise ZeroDivisionError("secret of ours")

    for name in ("_answer", "_head"):
        with monkeypatch.context() as patch:
            patch.setattr(Short, name, crash)
            ((status, _, body),) = await asked(url, posted({"query": ADA}))
            assert (status, body) == (b"HTTP/1.1 200 OK", msgspec.json.encode(ADAS))


async def test_a_mistake_of_ours_on_the_short_road_is_one_of_the_whole_road(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> None:
        raise ZeroDivisionError("secret of ours")

    monkeypatch.setattr("schema.plan.Bound.render", crash)
    ((status, _, body),) = await asked(url, posted({"query": ADA}))
    assert status == b"HTTP/1.1 500 Internal Server Error"
    assert b"secret" not in body
    monkeypatch.undo()
    assert (await asked(url, posted({"query": ADA})))[0][2] == msgspec.json.encode(ADAS)


def test_a_read_costs_so_many_steps_of_python() -> None:
    """A count and not a time: from the body to the lines and the body of the answer, Redis left out."""
    replies: list[Callable[[list[Any]], None]] = []

    def begin(packed: bytes, count: int, done: Callable[[Any], None]) -> bool:
        replies.append(done)
        return True

    loader = ViewLoader(Redis(), DEFINITION, begin=begin)
    record = View(Redis()).record
    loader._live, loader._watch_at = Live.of(DEFINITION, record, (b"live",)), math.inf
    short = gateway(loader).state.short
    body = msgspec.json.encode(
        {"query": "query ($id: ID!) { user(id: $id) { id username name tweetCount likeCount } }", "variables": {"id": "5"}}
    )
    answers: list[Any] = []

    def read() -> None:
        assert short.begin({b"content-type": b"application/json", b"accept": b"*/*"}, body, answers.append)
        replies.pop()([[b"code_5", b"code_5", b"Five", b"12", b"3"]])

    read()
    steps = opcodes(read)
    answer = b'{"data":{"user":{"id":"5","username":"code_5","name":"Five","tweetCount":12,"likeCount":3}}}'
    assert [told[1] for told in answers] == [answer] * 2
    # 900 to 1,000 by Python's version
    assert steps < MOST_STEPS, f"a read takes {steps} steps"


def opcodes(run: Callable[[], None]) -> int:
    """How many instructions of Python it takes."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count
