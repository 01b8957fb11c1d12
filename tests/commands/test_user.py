"""`viewgate user`: one row in every mode, side by side."""

import json

import asyncpg
import pytest

from demo.servers.server import Server
from tests.commands.running import run
from tests.request.arranged import BY_ID, DEFINITION, View

MODES = ("view", "cache-aside", "cache-invalidate", "sql")


@pytest.fixture
def servers(redis_at: Server, users_at: str, view: View) -> dict[str, str]:
    return {"VIEWGATE_REDIS_URL": redis_at.address, "VIEWGATE_POSTGRES_URL": users_at}


async def test_every_field_is_shown_in_every_mode_with_times(servers: dict[str, str]) -> None:
    code, out, err = await run("user", "1", **servers)
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert out.splitlines()[0].split() == list(MODES)
    assert {f.camel for f in DEFINITION.fields} <= lines.keys()
    assert lines["username"] == ["ada"] * 4
    assert lines["followerCount"] == ["5"] * 4
    assert out.count(" ms") == 8
    assert "\x1b" not in out


async def test_json_has_the_whole_row_by_mode(servers: dict[str, str]) -> None:
    code, out, _ = await run("user", "1", "--json", **servers)
    told = json.loads(out)
    assert (code, list(told)) == (0, list(MODES))
    assert told["view"]["user"] == told["cache-aside"]["user"] == told["sql"]["user"]
    assert told["sql"]["user"]["followerCount"] == BY_ID["1"]["follower_count"]
    assert (told["view"]["generation"], told["sql"]["generation"]) == ("g1", None)


async def test_a_field_that_differs_is_marked(servers: dict[str, str], view: View) -> None:
    await view.redis.hset(view.key("1"), view.code("follower_count"), "6")
    _, out, _ = await run("user", "1", **servers)
    assert [line for line in out.splitlines() if "≠" in line] == [line for line in out.splitlines() if line.startswith("followerCount")]


async def test_an_id_that_nobody_has_and_one_that_nobody_can_have(servers: dict[str, str]) -> None:
    assert await run("user", "77", **servers) == (1, "", "There is no User 77.\n")
    code, out, err = await run("user", "007", **servers)
    assert (code, out) == (1, "")
    assert "write 7" in err


async def test_a_mode_that_is_away_leaves_the_others_and_is_exit_code_1(servers: dict[str, str]) -> None:
    code, out, err = await run("user", "1", **servers | {"VIEWGATE_REDIS_URL": "redis://127.0.0.1:1"})
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert code == 1
    assert lines["followerCount"] == ["-", "5", "5", "5"]
    assert err.splitlines()[0] == "view: UNAVAILABLE: Redis cannot be reached."
    assert "viewgate doctor" in err


async def test_nothing_is_written_but_by_cache_aside(servers: dict[str, str], view: View, users_at: str) -> None:
    before = {key async for key in view.redis.scan_iter()}
    await run("user", "1", **servers)
    added = {key async for key in view.redis.scan_iter()} - before
    connection = await asyncpg.connect(users_at)
    assert await connection.fetchval("SELECT count(*) FROM users") == len(BY_ID)
    await connection.close()
    assert added
    assert all(key.startswith(b"user:cache-") for key in added)
