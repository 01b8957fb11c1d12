"""The `viewgate` command in a process of its own: what it prints, and its exit code."""

import asyncio
import os
import pty
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from schema import graphql
from tests.commands.running import ENVIRONMENT, PIPE, VIEWGATE, run, start
from tests.request.arranged import DEFINITION


@asynccontextmanager
async def serving(*arguments: str, **settings: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A gateway without its servers, and where it is."""
    child = await start("serve", "--port", "0", *arguments, VIEWGATE_REDIS_URL="redis://127.0.0.1:1", **settings)
    try:
        assert child.stderr is not None
        line = (await asyncio.wait_for(child.stderr.readline(), 60)).decode()
        yield child, line.split()[-1]
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def test_help_lists_the_commands_and_shows_examples() -> None:
    code, out, _ = await run("--help")
    assert code == 0
    assert all(word in out for word in ("serve", "schema", "Examples"))


async def test_schema_prints_the_schema() -> None:
    assert await run("schema") == (0, graphql.sdl(DEFINITION), "")


async def test_a_malformed_setting_is_one_line_and_exit_code_2() -> None:
    code, out, err = await run("serve", VIEWGATE_MODE="fast")
    assert (code, out) == (2, "")
    assert err.splitlines() == ["VIEWGATE_MODE: Input should be 'view', 'cache-aside', 'cache-invalidate' or 'sql'."]


async def test_an_unknown_command_is_exit_code_2() -> None:
    code, _, err = await run("nonsense")
    assert code == 2
    assert "Traceback" not in err


async def test_a_port_that_is_taken_is_a_sentence_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = await run("serve", "--port", str(port))
    assert (code, out) == (1, "")
    assert err.splitlines() == [f"Port {port} of 127.0.0.1 is taken. Stop what listens there, or choose another with --port."]


async def test_version_is_that_of_the_package() -> None:
    assert await run("--version") == (0, f"viewgate {version('viewgate')}\n", "")


@pytest.mark.parametrize(("settings", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
async def test_colour_is_only_on_a_terminal_that_wants_it(settings: dict[str, str], coloured: bool) -> None:
    ours, theirs = pty.openpty()
    environment = ENVIRONMENT | {"TERM": "xterm"} | settings
    child = await asyncio.create_subprocess_exec(VIEWGATE, "query", "{ __typename }", stdout=theirs, stderr=PIPE, env=environment)
    os.close(theirs)
    assert await asyncio.wait_for(child.wait(), 60) == 0
    out = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "__typename" in out
    assert ("\x1b[" in out and "34m" in out) == coloured
    assert "\x1b" not in (await run("query", "{ __typename }", **settings))[1]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
async def test_serve_answers_without_its_servers_and_ends_when_told_to(end: signal.Signals) -> None:
    async with serving() as (child, url), httpx.AsyncClient() as client:
        answer = await client.post(url, json={"query": '{ user(id: "1") { id } }'})
        assert answer.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
        child.send_signal(end)
        assert await asyncio.wait_for(child.wait(), 20) == 0


async def test_a_command_that_cannot_be_loaded_breaks_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    facts = tmp_path / "broken-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[viewgate.commands]\nbroken = nowhere:at_all\n")
    code, out, _ = await run("--help", PYTHONPATH=str(tmp_path))
    assert (code, "broken" in out, "serve" in out) == (0, True, True)
    assert (await run("schema", PYTHONPATH=str(tmp_path)))[0] == 0
    code, _, err = await run("broken", PYTHONPATH=str(tmp_path))
    assert (code, len(err.splitlines())) == (1, 1)
    assert "No module named 'nowhere'" in err
