"""`viewgate doctor` as a command: what it prints and its exit code, on a healthy stack, and where servers are away or hang."""

import asyncio
import json
import os
import pty
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from app.doctor.examination import ORDER
from app.doctor.page import page
from demo.servers.process import NotReadyError, free_port, until
from demo.servers.server import Server
from loaders.view import ViewLoader
from schema.loader import ViewNotReady
from tests.commands.examined import Stack, not_ok, open_stack
from tests.commands.running import ENVIRONMENT, VIEWGATE, run, start
from tests.faults.traffic import Traffic
from tests.road import open_road, variables

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
AWAY = {
    "VIEWGATE_REDIS_URL": "redis://:secret@127.0.0.1:1",
    "VIEWGATE_POSTGRES_URL": "postgresql://u:secret@127.0.0.1:1/db",
    "VIEWGATE_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "VIEWGATE_PORT": "0",
}
LONGEST_SECONDS = 15


@pytest.fixture
async def stack(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Stack]:
    async with open_stack(kafka_at, redis_at, postgres_at) as opened:
        yield opened


async def test_a_stack_with_projector_and_gateway_is_healthy(kafka_at: Server, redis_at: Server, postgres_at: Server) -> None:
    async with open_road(kafka_at, redis_at, postgres_at) as road:
        Traffic(road, seed=1, users=50).publish(100)
        await road.project()
        await until(lambda: _live(road.view), 60)
        settings = variables(road.settings)
        async with _serving(settings) as port:
            code, out, err = await run("doctor", **settings, VIEWGATE_PORT=str(port))
    lines = out.splitlines()
    assert (code, err) == (0, "")
    told = [line for line in lines[:-1] if not line.startswith("ok ")]
    assert told[0].startswith("warning  Redis: memory limit: maxmemory is 0: no limit. To mend: `CONFIG SET maxmemory")
    # librdkafka's mock broker does not tell how its topics are configured
    assert [line.split("cannot be told")[0] for line in told[1:]] == ["skipped  Kafka: 3 checks: "] * (kafka_at.kind == "embedded")
    assert f"ok       gateway: ready: 127.0.0.1:{port} is ready." in lines
    assert "ok       view: positions: Kafka has everything from the watermarks on." in lines
    assert "\x1b" not in out
    assert ", 1 warning, 0 wrong, " in lines[-1]


async def test_what_is_away_is_told_with_what_to_do_and_exit_code_1() -> None:
    code, out, err = await run("doctor", **AWAY)
    assert (code, err) == (1, "")
    wrong = [line for line in out.splitlines() if line.startswith("wrong ")]
    assert [line.split()[1] for line in wrong] == ["Redis:", "PostgreSQL:", "Kafka:"]
    assert all("127.0.0.1:1" in line and "To mend: Start it, or correct `VIEWGATE_" in line for line in wrong)
    assert "secret" not in out
    assert "\x1b" not in out


async def test_json_has_every_check_once_in_the_order_of_the_docs() -> None:
    code, out, _ = await run("doctor", "--json", **AWAY)
    told = json.loads(out)
    assert code == 1
    assert {tuple(one) for one in told} == {("server", "check", "verdict", "found", "mend")}
    checks = [(server.server, check.name) for server in ORDER for check in server.checks if server.server != "Redis of the cache"]
    assert [(one["server"], one["check"]) for one in told] == checks
    assert all(one["mend"] for one in told if one["verdict"] in {"warning", "wrong"})
    assert len(out.splitlines()) == 1


async def test_a_misspelt_variable_is_wrong() -> None:
    _, out, _ = await run("doctor", **AWAY, VIEWGATE_REDIS_ULR="redis://127.0.0.1:6379")
    line = next(line for line in out.splitlines() if "spelling" in line)
    assert line.startswith("wrong    settings: spelling: VIEWGATE_REDIS_ULR is no setting; did you mean VIEWGATE_REDIS_URL? To mend: ")


@pytest.mark.parametrize(
    ("name", "value"), [("VIEWGATE_MODE", "fast"), ("VIEWGATE_VIEW", "schema.user:Nothing"), ("VIEWGATE_REDIS_URL", "127.0.0.1")]
)
async def test_a_malformed_setting_is_exit_code_2_and_names_itself(name: str, value: str) -> None:
    code, out, err = await run("doctor", **(AWAY | {name: value}))
    assert (code, out) == (2, "")
    assert err.startswith(f"{name}: ")


async def test_a_terminal_gets_colour_and_marks() -> None:
    ours, theirs = pty.openpty()
    environment = ENVIRONMENT | AWAY | {"TERM": "xterm-256color"}
    child = await asyncio.create_subprocess_exec(VIEWGATE, "doctor", stdout=theirs, env=environment, cwd="/tmp")
    os.close(theirs)
    read = asyncio.get_running_loop().run_in_executor(None, _whole, ours)
    assert await asyncio.wait_for(child.wait(), 60) == 1
    text = await asyncio.wait_for(read, 10)
    assert "\x1b[1;31m" in text
    assert "✗" in text
    assert "→ Start it, or correct" in text


@pytest.mark.parametrize("away", ["Redis", "PostgreSQL", "Kafka"])
async def test_a_server_that_is_away_leaves_the_checks_of_the_others(stack: Stack, away: str) -> None:
    changed = {"Redis": "redis_url", "PostgreSQL": "postgres_url", "Kafka": "kafka_bootstrap"}[away]
    address = {"Redis": "redis://127.0.0.1:1", "PostgreSQL": "postgresql://127.0.0.1:1/db", "Kafka": "127.0.0.1:1"}[away]
    _holds(not_ok(await stack.examine(**{changed: address})), away)


@pytest.mark.parametrize("frozen", ["Redis", "PostgreSQL", "Kafka"])
async def test_a_server_that_hangs_holds_nothing_up(
    stack: Stack, kafka_at: Server, redis_at: Server, postgres_at: Server, frozen: str
) -> None:
    process = {"Redis": redis_at, "PostgreSQL": postgres_at, "Kafka": kafka_at}[frozen].process
    if process is None:
        pytest.skip(f"needs a {frozen} of its own: this one was given, and is not ours to stop")
    process.pause()
    try:
        found = await asyncio.wait_for(stack.examine(), LONGEST_SECONDS)
    finally:
        process.resume()
        await until(lambda: _answers(stack, frozen), 60)
    assert "no answer in" in found[frozen, "answers"].found or "Timeout" in found[frozen, "answers"].found
    _holds(not_ok(found), frozen)


async def test_the_command_ends_in_time_where_every_server_hangs() -> None:
    """Each accepts connections and says nothing, as one that is stopped does."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        settings = {
            "VIEWGATE_REDIS_URL": f"redis://127.0.0.1:{port}",
            "VIEWGATE_CACHE_REDIS_URL": f"redis://127.0.0.1:{port}/1",
            "VIEWGATE_POSTGRES_URL": f"postgresql://127.0.0.1:{port}/db",
            "VIEWGATE_KAFKA_BOOTSTRAP": f"127.0.0.1:{port}",
            "VIEWGATE_PORT": str(port),
            "VIEWGATE_REDIS_TIMEOUT_SECONDS": "600",
            "VIEWGATE_POSTGRES_TIMEOUT_SECONDS": "600",
        }
        code, out, _ = await asyncio.wait_for(run("doctor", **settings), LONGEST_SECONDS)
    assert code == 1
    assert [line.split(":")[0].split("  ")[-1].strip() for line in out.splitlines() if "no answer in 5.0 s" in line] == [
        "Redis",
        "Redis of the cache",
        "PostgreSQL",
        "Kafka",
        "gateway",
    ]


async def test_tables_and_topics_are_those_of_the_view_that_is_set(stack: Stack) -> None:
    found = await stack.examine(view="tests.message.shop:CustomerView")
    assert found["PostgreSQL", "tables"].found == "there is no customers, placed orders"
    assert found["Kafka", "topics"].found == f"there is no {stack.topic('customers')}, {stack.topic('orders')}"
    assert found["view", "generation"].found == "none is live, and none is being built"


def test_the_page_is_as_the_checks_say() -> None:
    assert PAGE.read_text() == page(PAGE.read_text()), "run `make docs`"


def _holds(verdicts: Mapping[tuple[str, str], str], away: str) -> None:
    """That it is away is wrong, what needs it is skipped, and all else is as it was."""
    assert {key for key, verdict in verdicts.items() if verdict != "skipped"} == {(away, "answers")}
    assert verdicts[away, "answers"] == "wrong"
    skipped = {key for key, verdict in verdicts.items() if verdict == "skipped"}
    assert {server for server, _ in skipped} <= {away, "view", "Kafka"}
    if away == "Kafka":
        assert {check for server, check in skipped if server == "view"} == {"positions"}
    if away == "PostgreSQL":
        assert not {check for server, check in skipped if server == "view"}


async def _answers(stack: Stack, server: str) -> None:
    found = (await stack.examine())[server, "answers"]
    if found.verdict != "ok":
        raise NotReadyError(found.found)


async def _live(view: ViewLoader) -> None:
    try:
        await view.ready()
    except ViewNotReady as not_yet:
        raise NotReadyError(str(not_yet)) from not_yet


@asynccontextmanager
async def _serving(settings: Mapping[str, str]) -> AsyncIterator[int]:
    port = free_port()
    child = await start("serve", **settings, VIEWGATE_PORT=str(port))
    try:
        async with httpx.AsyncClient() as client:
            await until(lambda: _ready(client, port), 60)
        yield port
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def _ready(client: httpx.AsyncClient, port: int) -> None:
    try:
        answer = await client.get(f"http://127.0.0.1:{port}/readyz")
    except httpx.TransportError as error:
        raise NotReadyError(str(error)) from error
    if answer.status_code != 200:
        raise NotReadyError(answer.text)


def _whole(terminal: int) -> str:
    """Everything that is written to the other end. Linux ends it with an error."""
    read = b""
    try:
        while more := os.read(terminal, 65_536):
            read += more
    except OSError:
        pass
    finally:
        os.close(terminal)
    return read.decode()
