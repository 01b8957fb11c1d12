"""The connection that all readers share, against a real Redis that ends, hangs and refuses: nobody ever gets another's reply."""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import hiredis
import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, BusyLoadingError, MasterDownError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app import shared_connection
from app.clients import open_clients, open_redis
from app.pool import Pool
from app.settings import Settings
from app.shared_connection import SharedConnection
from demo.servers import redis as redis_server
from demo.servers.process import Process
from demo.servers.server import Server
from loaders.sending import Command
from tests.request.conftest import CACHE

SECONDS = 1.0
COUNT = 200


class Opened:
    """A shared connection and the client whose pool it is of."""

    def __init__(self, address: str, seconds: float = SECONDS) -> None:
        self.address = address
        self.client = open_redis(Settings(redis_timeout_seconds=seconds), address)
        assert isinstance(self.client.connection_pool, Pool)
        self.pool = self.client.connection_pool
        self.shared = SharedConnection(self.pool, seconds)

    async def write(self) -> None:
        for number in range(COUNT):
            await self.client.set(f"k{number}", f"v{number}")

    async def ask(self, *numbers: int) -> None:
        """Fails where a reply is another's."""
        replies = await self.shared.ask([("GET", f"k{number}") for number in numbers])
        assert replies == [f"v{number}".encode() for number in numbers]


@pytest.fixture
async def own(servers_folder: Path) -> AsyncIterator[Server]:
    """A Redis that a test may end."""
    folder = servers_folder / f"shared{random.random()}"
    folder.mkdir()
    async with redis_server.start(folder, CACHE, prefer="installed", say=print) as server:
        yield server


@pytest.fixture
async def opened(own: Server) -> AsyncIterator[Opened]:
    one = Opened(own.address)
    await one.write()
    yield one
    await one.client.aclose()


async def test_what_is_asked_in_one_tick_goes_out_in_one_write(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    await opened.ask(0)
    link = opened.shared._link
    assert link is not None
    calls = (await opened.client.info("commandstats"))["cmdstat_get"]["calls"]
    connections = (await opened.client.info("stats"))["total_connections_received"]
    written: list[bytes] = []
    transport = link._transport

    class Noting:
        def write(self, data: bytes) -> None:
            written.append(data)
            transport.write(data)

        def __getattr__(self, name: str) -> object:
            return getattr(transport, name)

    link._transport = Noting()
    await asyncio.gather(*[opened.ask(number, (number + 1) % COUNT) for number in range(COUNT)])
    assert len(written) == 1
    assert (await opened.client.info("commandstats"))["cmdstat_get"]["calls"] - calls == 2 * COUNT
    assert (await opened.client.info("stats"))["total_connections_received"] == connections


async def test_a_hash_is_a_mapping_and_nothing_is_none(opened: Opened) -> None:
    await opened.client.hset("h", mapping={"a": "1", "b": "2"})
    commands: list[Command] = [("HGETALL", "h"), ("HMGET", "h", "b", "c"), ("HGETALL", "none"), ("GET", "none")]
    assert await opened.shared.ask(commands) == [{b"a": b"1", b"b": b"2"}, [b"2", None], {}, None]
    third = SharedConnection(Pool.from_url(f"{opened.address}?protocol=3"), SECONDS)
    assert await third.ask(commands) == [{b"a": b"1", b"b": b"2"}, [b"2", None], {}, None]
    await third._pool.aclose()


async def test_what_redis_refuses_is_told_to_who_asked_it_alone(opened: Opened) -> None:
    async def refused() -> None:
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await opened.shared.ask([("GET", "k1"), ("HGETALL", "k1"), ("GET", "k2")])

    await asyncio.gather(opened.ask(1), refused(), opened.ask(2), refused(), opened.ask(3))


async def test_who_stops_waiting_shifts_nobodys_reply(opened: Opened) -> None:
    await opened.ask(0)
    chance = random.Random(8)
    for _ in range(50):
        tasks = [asyncio.create_task(opened.ask(*chance.sample(range(COUNT), chance.randint(1, 4)))) for _ in range(40)]
        await asyncio.sleep(0)
        stopped = chance.sample(tasks, 20)
        for task in stopped:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results if result is not None] == [asyncio.CancelledError] * 20
    assert opened.pool.met == 1


def hanging(own: Server, opened: Opened) -> tuple[Process, list[asyncio.Task[None]]]:
    """A Redis that is stopped, and twenty who have asked it since."""
    assert own.process is not None
    own.process.pause()
    return own.process, [asyncio.create_task(opened.ask(number)) for number in range(20)]


async def test_after_a_kill_those_who_wait_are_told_at_once_and_the_next_are_answered(opened: Opened, own: Server) -> None:
    await opened.ask(0)
    process, waiting = hanging(own, opened)
    await asyncio.sleep(0.05)
    await process.kill()
    assert {type(result) for result in await asyncio.gather(*waiting, return_exceptions=True)} == {RedisConnectionError}
    with pytest.raises(RedisConnectionError):
        await opened.ask(0)
    await process.start()
    await opened.write()
    # no request fails for a connection that died while nobody asked
    await opened.ask(*range(10))
    assert opened.pool.met == 2


async def test_a_redis_that_hangs_is_left_and_met_again(opened: Opened, own: Server) -> None:
    await opened.ask(0)
    process, waiting = hanging(own, opened)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {RedisTimeoutError}
    process.resume()
    # what it answers late comes by the old connection, where nobody reads
    await asyncio.gather(*[opened.ask(number) for number in range(100, 120)])
    assert opened.pool.met == 1


async def test_while_redis_hangs_all_who_come_share_one_attempt_to_connect(
    opened: Opened, own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened.ask(0)
    attempts = 0
    connect = opened.pool.get_connection

    async def counted() -> object:
        nonlocal attempts
        attempts += 1
        return await connect()  # type: ignore[no-untyped-call]

    monkeypatch.setattr(opened.pool, "get_connection", counted)
    link = opened.shared._link
    assert link is not None
    assert own.process is not None
    own.process.pause()
    link._abort(RedisConnectionError("for the test"))
    waiting = [asyncio.create_task(opened.ask(number)) for number in range(10)]
    await asyncio.sleep(0.01)
    # who has begun the attempt stops waiting, and it goes on for the others
    waiting[0].cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, *[RedisTimeoutError] * 9]
    assert attempts == 1
    own.process.resume()
    await asyncio.gather(*[opened.ask(number) for number in range(10)])
    assert attempts == 2


async def test_one_connection_is_opened_for_many_who_come_at_once_and_its_place_is_given_back(opened: Opened) -> None:
    before = (await opened.client.info("stats"))["total_connections_received"]
    for round_ in range(40):
        await asyncio.gather(*[opened.ask(number) for number in range(20)])
        assert (await opened.client.info("stats"))["total_connections_received"] == before + round_ + 1
        link = opened.shared._link
        assert link is not None
        link._abort(RedisConnectionError("for the test"))
        await asyncio.sleep(0.01)
    # more often than there are places
    assert opened.pool.max_connections < 40


async def test_more_than_can_be_answered_is_refused(opened: Opened, own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_connection, "MOST_AWAITED", 50)
    assert own.process is not None
    await opened.ask(0)
    own.process.pause()
    waiting = [asyncio.create_task(opened.ask(number)) for number in range(50)]
    await asyncio.sleep(0)
    with pytest.raises(RedisConnectionError, match="50 replies of Redis are awaited"):
        await opened.ask(51)
    own.process.resume()
    await asyncio.gather(*waiting)
    await opened.ask(51)


async def test_bytes_that_are_no_reply_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of ours that answers the handshake, and then what it is told."""
    said = b"+OK\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                commands = hiredis.Reader()
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    name = command[0].upper()
                    writer.write({b"INFO": b"$11\r\nrun_id:abcd\r\n", b"GET": said}.get(name, b"+OK\r\n"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    one = Opened(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0?protocol=2")
    try:
        # the second answers more than was asked: who asks next would get what is not his
        cases = ((b"?what\r\n", "cannot be read"), (b">1\r\n+pushed\r\n", "nobody has asked for"), (b"+v1\r\n+too much\r\n", ""))
        for answer, told in cases:
            said = answer
            results = await asyncio.gather(*[one.shared.ask([("GET", "k1")]) for _ in range(3)], return_exceptions=True)
            assert told in str(results[0])
            await asyncio.sleep(0.05)
            assert one.shared._link is not None
            assert not one.shared._link.open
    finally:
        await one.client.aclose()
        server.close()


async def test_a_gateway_reads_by_it(own: Server) -> None:
    settings = Settings(redis_url=own.address)
    async with open_clients(settings) as clients:
        assert clients.send is not None
        assert await clients.send([("PING",)]) == [b"PONG"]
        assert isinstance(clients.redis, Redis)


async def test_a_loop_that_stood_still_reads_what_was_answered_meanwhile(own: Server) -> None:
    """uvloop looks at its timers before it looks at its sockets again."""

    async def stand_still() -> None:
        opened = Opened(own.address, seconds=0.3)
        await opened.write()
        await opened.ask(0)
        reading, writing = os.pipe()

        def stand() -> None:
            os.read(reading, 1)
            time.sleep(0.8)

        asyncio.get_running_loop().add_reader(reading, stand)
        for _ in range(3):
            # heard before Redis can have answered
            os.write(writing, b".")
            await opened.ask(1)
        asyncio.get_running_loop().remove_reader(reading)
        os.close(reading)
        os.close(writing)
        await opened.client.aclose()

    await asyncio.to_thread(uvloop.run, stand_still())


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("LOADING Redis is loading the dataset in memory", BusyLoadingError),
        ("READONLY You can't write against a read only replica.", ReadOnlyError),
        ("MASTERDOWN Link with MASTER is down", MasterDownError),
        ("NOAUTH Authentication required.", AuthenticationError),
        ("OOM command not allowed", OutOfMemoryError),
    ],
)
async def test_a_refusal_is_its_own_error_and_only_of_who_asked(opened: Opened, reply: str, error: type[Exception]) -> None:
    refusal = asyncio.create_task(opened.shared.ask([("EVAL", f'return redis.error_reply("{reply}")', "0")]))
    others = [asyncio.create_task(opened.ask(number)) for number in range(20)]
    with pytest.raises(error):
        await refusal
    await asyncio.gather(*others)


async def test_a_reply_that_is_cut_short_is_nobodys(own: Server) -> None:
    """By a proxy that ends the connection in the middle of the fifth reply."""
    port = int(own.address.split(":")[2].split("/")[0])
    cut = asyncio.Event()

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        its_reader, its_writer = await asyncio.open_connection("127.0.0.1", port)

        async def onwards() -> None:
            while data := await reader.read(65536):
                its_writer.write(data)

        onward = asyncio.create_task(onwards())
        while data := await its_reader.read(65536):
            if cut.is_set() and b"\r\nv4\r\n" in data:
                writer.write(data[: data.index(b"v4") + 1])
                break
            writer.write(data)
        await writer.drain()
        onward.cancel()
        for one in (writer, its_writer):
            one.close()

    proxy = await asyncio.start_server(between, "127.0.0.1", 0)
    async with proxy:
        opened = Opened(f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}/0")
        await opened.write()
        await opened.ask(0)
        cut.set()
        found = await asyncio.gather(*[opened.ask(number) for number in range(10)], return_exceptions=True)
        # those before it may be there; none has another's, which `ask` looks at
        assert all(one is None for one in found[: [one is None for one in found].index(False)])
        assert isinstance(found[4], RedisConnectionError)
        assert all(isinstance(one, RedisConnectionError) for one in found[4:])
        cut.clear()
        await opened.ask(7)
        await opened.client.aclose()
