"""The demo as a newcomer runs it: one command, three answers alike, what other terminals are told, nothing left behind."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from app.cli import CommandError
from demo import command
from demo.environment import ADDRESSES, MARK, as_shell, forget_the_told
from demo.scenario import USERS, find
from demo.servers.process import until
from tests.demos import GOES_ON, alike, need_real_servers, once, place, processes, running, says, told, viewgate


@pytest.fixture
def folder() -> Iterator[Path]:
    with place() as made:
        yield made


@pytest.mark.servers
async def test_the_demo_answers_one_query_alike_in_four_modes_with_everything_embedded(folder: Path) -> None:
    assert re.search(r'"followerCount": [1-9]', alike(await once(folder, "--embedded")))


@pytest.mark.servers
async def test_the_demo_answers_one_query_alike_in_four_modes_with_real_servers(folder: Path) -> None:
    await need_real_servers()
    await once(folder)
    # what the first run stored is there again
    output = await once(folder)
    assert "Publishing" not in output


@pytest.mark.servers
async def test_ctrl_c_ends_a_demo_that_was_audited_under_live_changes_and_leaves_no_process(folder: Path) -> None:
    async with running(folder, "--embedded") as (process, log):
        await until(lambda: says(log, GOES_ON), 120)
        assert "In another terminal:  . .cache/demo/env\n" in log.read_text()
        environment = await told(folder)
        assert await _followed(environment) == 200
        code, output = await viewgate(folder, environment, "audit")
        assert (code, "0 mismatches" in output) == (0, True), output
        redis = Redis.from_url(environment["VIEWGATE_REDIS_URL"])
        (key,) = [key async for key in redis.scan_iter("user:g1.*:{*}:4999")]
        await redis.hset(key, "1", "Mallory")
        await redis.aclose()
        code, output = await viewgate(folder, environment, "audit")
        assert (code, '4999: name is "Mallory" in the view' in output) == (1, True), output
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    assert processes(folder) == []
    assert not (folder / ".cache" / "demo" / "env").exists()


async def _followed(environment: Mapping[str, str]) -> int:
    """The status of a follow, sent as the gateway's page /compare would, whose policy must allow it."""
    gateway, writes = f"http://127.0.0.1:{environment['VIEWGATE_PORT']}", environment["VIEWGATE_WRITES_URL"]
    async with httpx.AsyncClient() as client:
        page = await client.get(f"{gateway}/compare")
        assert f"connect-src 'self' {writes};" in page.headers["content-security-policy"]
        answer = await client.post(f"{writes}/follows", json={"follower": 7, "followee": 1}, headers={"origin": gateway})
        return answer.status_code


@pytest.mark.servers
async def test_a_projector_that_dies_ends_the_demo_with_the_name_of_its_log(folder: Path) -> None:
    async with running(folder, "--embedded") as (process, log):
        await until(lambda: says(log, GOES_ON), 120)
        assert len(processes(folder)) >= 7
        await _kill_the_projector(folder)
        assert await asyncio.wait_for(process.wait(), 30) == 1
        assert re.search(r"projector has ended by itself.*projector\.log", log.read_text().replace("\n", " "))
    assert processes(folder) == []
    assert not (folder / ".cache" / "demo" / "env").exists()


@pytest.mark.servers
async def test_a_projector_that_dies_while_the_demo_waits_for_it_is_told_at_once(folder: Path) -> None:
    async with running(folder, "--embedded") as (process, log):
        await until(lambda: says(log, "Publishing"), 120)
        await _kill_the_projector(folder)
        assert await asyncio.wait_for(process.wait(), 60) == 1
        assert "projector has ended by itself" in log.read_text()


async def test_a_taken_port_is_told_before_anything_is_started(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(folder, "--embedded", "--port", str(port)) as (process, log):
            assert await asyncio.wait_for(process.wait(), 30) == 1
            assert f"Port {port} is taken" in log.read_text()


async def _kill_the_projector(folder: Path) -> None:
    (projector,) = [pid for pid, words in processes(folder) if "project" in words]
    os.kill(projector, signal.SIGKILL)


def test_a_view_whose_changes_nothing_here_publishes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = replace(USERS, view="tests.faults.changelog_view:UserView")
    monkeypatch.setattr(command, "find", lambda _: scenario)
    with pytest.raises(CommandError, match=r"have Users \(form='changelog'\) published by a service of yours"):
        command.demo()


def test_the_scenario_of_the_users_is_found_by_its_name() -> None:
    assert find("demo.scenario:USERS") is USERS


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("shop", "--scenario shop cannot be loaded (it must be module:name"),
        (":SHOP", "--scenario :SHOP cannot be loaded (it must be module:name"),
        ("examples.shop.scenario:", "write module:NAME"),
        ("no.such.module:SHOP", "--scenario no.such.module:SHOP cannot be loaded (No module named 'no'): write module:NAME"),
        ("demo.scenario:NOBODY", "has no attribute 'NOBODY'): write module:NAME"),
        ("demo.scenario:find", "--scenario demo.scenario:find is a function and no Scenario"),
    ],
)
def test_a_scenario_that_is_none_is_refused_with_what_is_expected(named: str, said: str) -> None:
    with pytest.raises(CommandError, match=r"such as demo\.scenario:USERS or examples\.shop\.scenario:SHOP\.") as refused:
        find(named)
    assert said in str(refused.value)


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish"])
def test_the_file_for_other_terminals_is_read_alike_by_every_shell_and_twice_is_as_good_as_once(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on PATH")
    settings = {"VIEWGATE_POSTGRES_URL": 'postgresql://o\'brien:pa$$ w`o`rd@127.0.0.1/v?a=1&b="2"', "VIEWGATE_TOPIC_PREFIX": ""}
    programs = tmp_path / "a place; of $HOME" / "bin"
    file = tmp_path / "env"
    file.write_text(as_shell(settings, programs))
    read = f"set -e; . {file}; . {file}; env -0" if shell != "fish" else f". {file}; . {file}; env -0"
    output = subprocess.run((shell, "-c", read), env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)
    environment = dict(line.split("=", 1) for line in output.stdout.decode().split("\0") if line)
    assert output.stderr == b""
    assert environment["VIEWGATE_POSTGRES_URL"] == settings["VIEWGATE_POSTGRES_URL"]
    assert "VIEWGATE_TOPIC_PREFIX" not in environment
    assert environment["PATH"] == f"{programs}:{os.environ['PATH']}"


def test_a_terminal_that_has_read_the_file_of_an_ended_demo_can_start_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka, redis, postgres = ADDRESSES
    monkeypatch.setenv(MARK, "127.0.0.1:19092 redis://127.0.0.1:20000/0")
    monkeypatch.setenv(kafka, "127.0.0.1:19092")
    monkeypatch.setenv(redis, "redis://my-own:6379/0")
    monkeypatch.delenv(postgres, raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    forget_the_told()
    assert [os.environ.get(name) for name in (*ADDRESSES, MARK)] == [None, "redis://my-own:6379/0", None, None]
    assert os.environ["PATH"] == "/usr/bin:/bin"


def test_a_terminal_that_has_read_no_file_starts_a_demo_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"VIEWGATE_REDIS_URL": "redis://my-own:6379/0", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    monkeypatch.delenv(MARK, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    forget_the_told()
    assert {name: os.environ[name] for name in given} == given
