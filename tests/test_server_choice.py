"""demo/servers without a server: which one is chosen, how a child ends, what a failed download leaves, whom root becomes."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from demo.servers import kafka, maven, postgres
from demo.servers import redis as redis_server
from demo.servers.account import reachable, reachable_programs, scratch, unprivileged
from demo.servers.process import Command, NotReadyError, Process, ServerError, free_port, lives, run, until
from demo.servers.stack import stack

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root must become another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    with scratch() as made:
        yield made


@pytest.fixture
def programs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which there are only the programs that a test puts there."""
    made = folder / "bin"
    made.mkdir()
    monkeypatch.setenv("PATH", str(made))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("VIEWGATE_KAFKA_BOOTSTRAP", raising=False)
    return made


def program(place: Path, script: str) -> None:
    place.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    place.chmod(0o755)


def toy(script: str, folder: Path, ready: Callable[[], Awaitable[object]], start_seconds: float = 10) -> Process:
    log = folder / "toy.log"
    return Process(Command("toy", ("sh", "-c", script), log, ready, start_seconds=start_seconds, stop_seconds=0.3))


def said(folder: Path) -> str:
    log = folder / "toy.log"
    return log.read_text() if log.exists() else ""


def says(word: str, folder: Path) -> Callable[[], Awaitable[object]]:
    async def probe() -> None:
        if word not in said(folder):
            raise NotReadyError(f"no {word}")

    return probe


async def test_a_server_that_dies_while_starting_shows_the_end_of_its_log(folder: Path) -> None:
    with pytest.raises(ServerError, match=r"toy ended while it was starting(?s:.*)no room on disk"):
        await toy("echo no room on disk >&2; exit 3", folder, says("ready", folder)).start()


async def test_a_server_that_is_not_ready_in_time_is_ended_with_its_children(folder: Path) -> None:
    process = toy("sleep 600 & echo $!; wait", folder, says("ready", folder), 1)
    with pytest.raises(ServerError, match=r"toy did not answer within 1 s \(no ready\)"):
        await process.start()
    assert not process.alive
    assert not lives(int(said(folder)))


async def test_a_server_that_ignores_sigterm_is_killed(folder: Path) -> None:
    process = toy("trap '' TERM; echo ready; while :; do sleep 1; done", folder, says("ready", folder))
    await process.start()
    await process.stop()
    assert not process.alive


async def test_a_server_outlives_the_terminals_interrupt(folder: Path) -> None:
    process = toy("echo ready; sleep 600", folder, says("ready", folder))
    await process.start()
    assert os.getpgid(process.pid) != os.getpgid(0)
    await process.kill()


async def test_a_start_that_is_cancelled_leaves_no_process(folder: Path) -> None:
    process = toy("echo ready; sleep 600", folder, says("never", folder))
    start = asyncio.create_task(process.start())
    await until(says("ready", folder), 10)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not process.alive


@pytest.mark.parametrize(
    ("module", "variable", "address"),
    [
        (kafka, "VIEWGATE_KAFKA_BOOTSTRAP", "127.0.0.1:{}"),
        (redis_server, "VIEWGATE_REDIS_URL", "redis://127.0.0.1:{}/0"),
        (postgres, "VIEWGATE_POSTGRES_URL", "postgresql://postgres@127.0.0.1:{}/postgres"),
    ],
)
async def test_a_given_server_that_is_silent_names_its_variable(
    module: ModuleType, variable: str, address: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, address.format(free_port()))
    with pytest.raises(ServerError, match=f"{variable}.*does not answer"):
        async with module.start(folder, folder, say=print):
            pytest.fail("it started")


@pytest.mark.servers
async def test_a_second_run_on_the_same_folder_is_refused(folder: Path) -> None:
    async with stack(folder, folder, prefer="embedded", say=print):
        with pytest.raises(ServerError, match="in use by another run"):
            async with stack(folder, folder, prefer="embedded", say=print):
                pytest.fail("it started")


async def test_without_java_the_broker_is_the_mock_and_says_so(folder: Path, programs: Path) -> None:
    lines: list[str] = []
    found = await kafka.find(folder, None, lines.append)
    assert found.kind == "embedded"
    assert "no java on PATH; install" in lines[0]
    assert "EMBEDDED: librdkafka's mock broker" in lines[1]


async def test_a_java_too_old_for_kafka_is_named(folder: Path, programs: Path) -> None:
    program(programs / "java", """echo 'openjdk version "11.0.2"' >&2""")
    lines: list[str] = []
    await kafka.find(folder, None, lines.append)
    assert "is 11; Kafka needs Java 17" in lines[0]


async def test_a_failed_download_is_tried_twice_shown_and_leaves_no_jar(folder: Path, programs: Path) -> None:
    program(programs / "java", """echo 'openjdk version "17.0.2"' >&2""")
    program(programs / "mvn", f"echo once >>{folder}/attempts; echo no route to host; exit 1")
    lines: list[str] = []
    found = await kafka.find(folder / "cache", None, lines.append)
    assert found.kind == "embedded"
    assert "no route to host" in lines[1]
    assert (folder / "attempts").read_text() == "once\nonce\n"
    assert list((folder / "cache" / "kafka").iterdir()) == []


async def test_a_download_is_kept_whole_and_made_once(folder: Path, programs: Path) -> None:
    program(programs / "mvn", 'for word; do case $word in -DoutputDirectory=*) mkdir "${word#*=}"; touch "${word#*=}/a.jar";; esac; done')
    lines: list[str] = []
    libs = [await maven.jars(folder, lines.append) for _ in range(2)]
    assert [jar.name for jar in libs[0].iterdir()] == ["a.jar"]
    assert libs[0] == libs[1]
    assert len(lines) == 1
    assert list((folder / "kafka").iterdir()) == [libs[0]]


async def test_under_ci_a_missing_server_is_an_error(folder: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(ServerError, match="no java on PATH"):
        await kafka.find(folder, None, print)


async def test_a_redis_server_of_the_virtual_environment_is_not_installed(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(programs / "redis-server", "exit 0")
    monkeypatch.setattr("sys.prefix", str(programs.parent))
    with pytest.raises(ServerError, match="no redis-server on PATH"):
        await redis_server.find(programs, "installed", print)


@as_root
async def test_root_becomes_the_owner_of_the_data_or_a_user_of_the_machine(folder: Path) -> None:
    chosen = unprivileged(folder / "data")
    assert chosen
    assert chosen.name in {"postgres", "nobody"}
    (folder / "data").mkdir()
    os.chown(folder / "data", 12345, 12345)
    owner = unprivileged(folder / "data")
    assert owner
    assert (owner.uid, owner.gid) == (12345, 12345)


@as_root
async def test_a_folder_that_root_hides_becomes_a_link_to_one_that_can_be_reached(folder: Path) -> None:
    hidden = folder / "hidden"
    hidden.mkdir(mode=0o700)
    account = unprivileged(hidden)
    places = [await reachable(hidden / "postgres", account) for _ in range(2)]
    assert places[0] == places[1] == (hidden / "postgres").resolve()
    assert await run("test", "-x", str(places[0]), account=account) == ""
    shutil.rmtree(places[0])
    assert await reachable(hidden / "postgres", account) == places[0]
    shutil.rmtree(places[0])


@as_root
async def test_what_no_link_leads_to_is_removed_when_the_next_is_made(folder: Path) -> None:
    for name in ("first", "second"):
        (folder / name).mkdir(mode=0o700)
    account = unprivileged(folder)
    first = await reachable(folder / "first" / "postgres", account)
    shutil.rmtree(folder / "first")
    second = await reachable(folder / "second" / "postgres", account)
    assert not first.exists()
    assert second.exists()
    shutil.rmtree(second)


@as_root
async def test_programs_that_root_hides_are_copied_with_their_libraries(folder: Path) -> None:
    hidden = folder / "hidden"
    (hidden / "package" / "installation" / "bin").mkdir(parents=True)
    (hidden / "package.libs").mkdir()
    hidden.chmod(0o700)
    program(hidden / "package" / "installation" / "bin" / "postgres", "echo copied")
    account = unprivileged(folder / "data")
    for _ in range(2):
        binaries = await reachable_programs(hidden / "package" / "installation" / "bin", folder, account)
    assert await run(str(binaries / "postgres"), account=account) == "copied\n"
    assert (binaries / "../../../package.libs").resolve().is_dir()
