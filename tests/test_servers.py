"""demo/servers against the machine itself: each server answers, keeps what it was told, and ends with us."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import asyncpg
import pytest
import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from demo.servers import kafka, postgres
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, ServerError, lives, until
from demo.servers.server import Kind, MissingError, Server
from demo.servers.stack import Stack, stack

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root must become another user")


async def write_kafka(address: str) -> None:
    await kafka.create_topics(address, {"greetings": 2})
    async with AIOKafkaProducer(bootstrap_servers=address, compression_type="lz4") as producer:
        await producer.send_and_wait("greetings", b"hello")


async def read_kafka(address: str) -> str:
    consumer = AIOKafkaConsumer("greetings", bootstrap_servers=address, group_id="readers", auto_offset_reset="earliest")
    async with consumer, asyncio.timeout(60):
        return str((await consumer.getone()).value, "utf-8")


async def write_redis(address: str) -> None:
    async with redis.asyncio.Redis.from_url(address) as client:
        await client.set("greeting", "hello")


async def read_redis(address: str) -> str:
    async with redis.asyncio.Redis.from_url(address, decode_responses=True) as client:
        return str(await client.get("greeting") or "")


async def write_postgres(address: str) -> None:
    connection = await asyncpg.connect(address)
    await connection.execute("CREATE TABLE IF NOT EXISTS greetings (word text); TRUNCATE greetings; INSERT INTO greetings VALUES ('hello')")
    await connection.close()


async def read_postgres(address: str) -> str:
    connection = await asyncpg.connect(address)
    try:
        return str(await connection.fetchval("SELECT word FROM greetings"))
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True)
class Case:
    module: ModuleType
    write: Callable[[str], Awaitable[None]]
    read: Callable[[str], Awaitable[str]]


KAFKA = Case(kafka, write_kafka, read_kafka)
REDIS = Case(redis_server, write_redis, read_redis)
POSTGRES = Case(postgres, write_postgres, read_postgres)
CASES = (KAFKA, REDIS, POSTGRES)
EACH = pytest.mark.parametrize("case", [KAFKA, REDIS, POSTGRES], ids=["kafka", "redis", "postgres"])
EITHER = pytest.mark.parametrize("kind", ["installed", "embedded"])


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch() as made:
        yield made


@asynccontextmanager
async def started(case: Case, folder: Path, kind: Kind) -> AsyncIterator[Server]:
    await need(case.module, kind)
    async with case.module.start(folder, CACHE, prefer=kind, say=print) as server:
        yield server


@asynccontextmanager
async def three(folder: Path, kind: Kind) -> AsyncIterator[Stack]:
    for case in CASES:
        await need(case.module, kind)
    async with stack(folder, CACHE, prefer=kind, say=print) as servers:
        yield servers


async def need(module: ModuleType, kind: Kind) -> None:
    try:
        await module.find(CACHE, kind, print)
    except MissingError as missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(missing))


def pids(servers: Stack) -> list[int]:
    return [server.process.pid for server in servers.servers if server.process]


async def gone(processes: list[int]) -> None:
    async def probe() -> None:
        if any(map(lives, processes)):
            raise NotReadyError("still there")

    await until(probe, 20)


@EITHER
@EACH
async def test_a_server_answers_a_real_request(case: Case, kind: Kind, folder: Path) -> None:
    async with started(case, folder, kind) as server:
        assert server.kind == kind
        await case.write(server.address)
        assert await case.read(server.address) == "hello"


@pytest.mark.parametrize(
    ("case", "kind"),
    [(KAFKA, "installed"), (REDIS, "installed"), (POSTGRES, "installed"), (REDIS, "embedded"), (POSTGRES, "embedded")],
    ids=["kafka", "redis", "postgres", "embedded redis", "embedded postgres"],
)
async def test_a_killed_server_restarts_on_its_port_with_its_data(case: Case, kind: Kind, folder: Path) -> None:
    async with started(case, folder, kind) as server:
        assert server.process
        await case.write(server.address)
        killed = server.process.pid
        await server.process.kill()
        assert not server.process.alive
        await server.process.restart()
        assert server.process.pid != killed
        assert await case.read(server.address) == "hello"


async def test_a_second_stack_finds_what_the_first_one_wrote(folder: Path) -> None:
    async with three(folder, "installed") as first:
        assert first.persistent
        for case, server in zip(CASES, first.servers, strict=True):
            await case.write(server.address)
    async with three(folder, "installed") as second:
        words = [await case.read(server.address) for case, server in zip(CASES, second.servers, strict=True)]
    assert words == ["hello"] * 3


async def test_a_stack_of_embedded_servers_starts_empty_each_time(folder: Path) -> None:
    for _ in range(2):
        async with three(folder, "embedded") as servers:
            assert not servers.persistent
            assert await read_redis(servers.redis.address) == ""
            await write_redis(servers.redis.address)


@EITHER
async def test_a_stack_leaves_no_process_behind(kind: Kind, folder: Path) -> None:
    async with three(folder, kind) as servers:
        processes = pids(servers)
    assert len(processes) == 3
    await gone(processes)


RUN = """
import asyncio, signal, sys
from pathlib import Path
from demo.servers.stack import stack

# a shell that runs the tests in the background has it ignored, by all that they start
signal.signal(signal.SIGINT, signal.default_int_handler)

async def main(folder, cache):
    async with stack(Path(folder), Path(cache), prefer="embedded", say=lambda line: None) as servers:
        print(*(server.process.pid for server in servers.servers), flush=True)
        await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_a_parent_that_ends_however_takes_its_servers_along(number: signal.Signals, folder: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN, folder, CACHE),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert parent.stdout
    processes = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(processes) == 3
    parent.send_signal(number)
    await parent.communicate()
    await gone(processes)
    async with three(folder, "embedded") as servers:
        await write_postgres(servers.postgres.address)


async def test_a_paused_server_answers_again_after_it_resumes(folder: Path) -> None:
    async with started(REDIS, folder, "embedded") as server:
        assert server.process
        server.process.pause()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read_redis(server.address), 0.3)
        server.process.resume()
        assert await read_redis(server.address) == ""
        server.process.pause()
        async with asyncio.timeout(5):
            await server.process.stop()


async def test_a_given_server_is_used_and_not_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(REDIS, folder, "embedded") as ours:
        monkeypatch.setenv("VIEWGATE_REDIS_URL", ours.address)
        async with redis_server.start(folder, CACHE, say=print) as given:
            assert (given.kind, given.address, given.process) == ("given", ours.address, None)
        async with started(REDIS, folder / "other", "embedded") as preferred:
            assert preferred.address != ours.address
        await write_redis(ours.address)


@EITHER
async def test_topics_are_made_once_and_have_leaders(kind: Kind, folder: Path) -> None:
    async with started(KAFKA, folder, kind) as server:
        for _ in range(2):
            await kafka.create_topics(server.address, {"users": 6, "follows": 2}, {"cleanup.policy": "compact"})
        made = {"users": 6, "follows": 2} if kind == "installed" else {"users": 4, "follows": 4}
        admin = AIOKafkaAdminClient(bootstrap_servers=server.address)
        await admin.start()
        try:
            assert {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics(list(made))} == made
        finally:
            await admin.close()


@EITHER
async def test_a_hash_with_one_long_value_stays_compact(kind: Kind, folder: Path) -> None:
    async with started(REDIS, folder, kind) as server, redis.asyncio.Redis.from_url(server.address) as client:
        await client.hset("user", mapping={"name": "n" * 500})
        assert await client.object("ENCODING", "user") in {b"listpack", b"ziplist"}
        assert await client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


@EITHER
async def test_postgres_can_be_captured_by_logical_replication(kind: Kind, folder: Path) -> None:
    async with started(POSTGRES, folder, kind) as server:
        connection = await asyncpg.connect(server.address)
        try:
            assert await connection.fetchval("SELECT slot_name FROM pg_create_logical_replication_slot('capture', 'pgoutput')") == "capture"
            assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        finally:
            await connection.close()


@as_root
@EITHER
async def test_postgres_of_root_starts_on_a_folder_its_user_cannot_reach(kind: Kind, folder: Path) -> None:
    hidden = folder / "hidden"
    hidden.mkdir(mode=0o700)
    try:
        async with started(POSTGRES, hidden, kind) as server:
            await write_postgres(server.address)
        async with started(POSTGRES, hidden, kind) as server:
            assert await read_postgres(server.address) == "hello"
    finally:
        shutil.rmtree((hidden / "postgres").resolve())


async def test_data_of_another_postgres_is_refused_with_both_versions(folder: Path) -> None:
    async with started(POSTGRES, folder, "embedded"):
        pass
    (folder / "postgres" / "data" / "PG_VERSION").write_text("9")
    with pytest.raises(ServerError, match=r"was made by PostgreSQL 9, this is \d+"):
        async with started(POSTGRES, folder, "embedded"):
            pytest.fail("it started")


async def test_data_that_another_postgres_works_on_is_refused(folder: Path) -> None:
    async with started(POSTGRES, folder, "embedded") as first:
        assert first.process
        with pytest.raises(ServerError, match=rf"in use by process .*\b{first.process.pid}\b"):
            async with started(POSTGRES, folder, "embedded"):
                pytest.fail("it started")
