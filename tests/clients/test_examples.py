"""The programs of examples/clients, run by Node.js against gateways: what each client prints, and how it takes errors."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from schema import layout
from schema.loader import FieldMissing, LoadError, Overloaded, Read, Rows, SourceUnavailable, ViewNotReady
from tests.clients.conftest import Serve
from tests.clients.running import followed, run
from tests.request.arranged import BY_ID, MemoryLoader, User, View

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

CLIENTS = ("apollo", "urql", "relay")
IDS = ("1", "2", "99", "-4", str(2**62), "3")
SHOWN = {"id": "id", "username": "username", "name": "name", "joinedAt": "joined_at", "followerCount": "follower_count"}


@dataclass(slots=True)
class MendingLoader:
    """Raises these errors, one per load; then it answers."""

    errors: list[LoadError]
    answers: MemoryLoader = field(default_factory=MemoryLoader)
    loads: int = 0

    async def load(self, reads: Sequence[Read]) -> Rows:
        self.loads += 1
        if self.errors:
            raise self.errors.pop(0)
        return await self.answers.load(reads)

    async def ready(self) -> None:
        await self.answers.ready()


def shown(user: User | None) -> dict[str, Any] | None:
    """What the queries of the examples select of a stored user, as JSON has it."""
    return user and {camel: json.loads(layout.encode(user[name])) for camel, name in SHOWN.items()}


async def ask(package: Path, client: str, url: str, mode: str = "default", ids: Sequence[str] = IDS) -> tuple[int | None, dict[str, Any]]:
    """Exit code and what was printed, without the type names that Apollo adds."""
    ran = await run("node", "dist/ask.js", client, url, mode, ",".join(ids), folder=package, seconds=60)
    return ran.code, json.loads(ran.out, object_hook=lambda made: {name: value for name, value in made.items() if name != "__typename"})


@pytest.mark.parametrize("mode", ["default", "view", "cache-aside", "cache-invalidate", "sql"])
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_prints_what_is_stored(package: Path, view: View, serve: Serve, client: str, mode: str) -> None:
    code, printed = await ask(package, client, await serve(), mode)
    assert code == 0
    assert printed["user"] == shown(BY_ID["1"])
    assert printed["users"] == [shown(BY_ID.get(row_id)) for row_id in IDS]
    found = "view" if mode == "default" else mode
    assert [(origin["mode"], origin["generation"]) for origin in printed["origins"]] == [(found, "g1" if found == "view" else None)] * 2
    assert all(origin["asOf"] for origin in printed["origins"])
    assert found != "view" or printed["origins"][0]["asOf"] == "2023-11-14T22:13:20.123Z"


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_user_that_came_in_a_list_is_not_asked_for_again(package: Path, view: View, serve: Serve, client: str) -> None:
    _, printed = await ask(package, client, await serve(), ids=("1", "3"))
    assert printed["cached"] == shown(BY_ID["3"])
    assert len(printed["origins"]) == 2


@pytest.mark.parametrize("client", CLIENTS)
async def test_an_unknown_user_is_null_and_no_error(package: Path, view: View, serve: Serve, client: str) -> None:
    code, printed = await ask(package, client, await serve(), ids=("99",))
    assert (code, printed["user"], printed["users"], printed["cached"]) == (0, None, [None], None)


@pytest.mark.parametrize("client", CLIENTS)
async def test_errors_that_pass_are_waited_out(package: Path, serve_over: Serve, client: str) -> None:
    loader = MendingLoader([ViewNotReady("not yet"), Overloaded("too many"), SourceUnavailable("away")])
    code, printed = await ask(package, client, await serve_over(loader), ids=("1",))
    assert (code, printed.get("user")) == (0, shown(BY_ID["1"]))
    assert loader.loads == len(printed["origins"]) == 5


@pytest.mark.parametrize("client", CLIENTS)
async def test_an_error_that_does_not_pass_is_told_by_its_code_at_once(package: Path, serve_over: Serve, client: str) -> None:
    loader = MendingLoader([FieldMissing("lost")] * 2)
    url = await serve_over(loader)
    code, printed = await ask(package, client, url, ids=("1",))
    assert (code, printed["codes"], loader.loads) == (1, ["FIELD_MISSING"], 1)
    code, printed = await ask(package, client, url, "sql")
    assert (code, printed["codes"], len(printed["origins"]), loader.loads) == (1, ["BAD_MODE"], 1, 1)
    code, printed = await ask(package, client, url, ids=("007",))
    assert (code, printed["codes"], len(printed["origins"]), loader.loads) == (1, ["INVALID_ID"], 1, 1)


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_that_polls_sees_a_count_change(package: Path, view: View, serve: Serve, client: str) -> None:
    async with followed("node", "dist/follow.js", client, await serve(), "default", "1", folder=package) as lines:
        assert await asyncio.wait_for(lines.readline(), 60) == b"5\n"
        await view.redis.hset(view.key("1"), view.code("follower_count"), "6")
        assert await asyncio.wait_for(lines.readline(), 60) == b"6\n"


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_react_component_shows_a_user(package: Path, view: View, serve: Serve, client: str) -> None:
    url = await serve()
    shows = {"3": "<p>çelik, since 1999: 0 followers</p>\n", "99": "<p>There is no such user.</p>\n"}
    for row_id, html in shows.items():
        ran = await run("node", "dist/render.js", client, url, "default", row_id, folder=package, seconds=60)
        assert (ran.code, ran.said) == (0, html)


@pytest.mark.parametrize("arguments", [(), ("axios", "http://127.0.0.1"), ("apollo",), ("apollo", "here"), ("apollo", "http://x", "magic")])
async def test_wrong_arguments_are_answered_with_the_right_ones(package: Path, arguments: Sequence[str]) -> None:
    ran = await run("node", "dist/ask.js", *arguments, folder=package, seconds=60)
    assert ran.code == 2
    assert "CLIENT: apollo, relay, urql. MODE: default, view, cache-aside, cache-invalidate, sql." in ran.said
