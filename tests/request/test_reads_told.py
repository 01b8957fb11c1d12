"""What a request was told to have read, against what Redis and PostgreSQL saw of it."""

import asyncio
import json

import asyncpg
import pytest
from redis.asyncio import Redis

from app.pages.examples import every_field
from tests.request.arranged import ADA, DEFINITION, MemoryLoader, View
from tests.request.conftest import Open

READS = {"viewgate-extensions": "reads"}
QUERY = {"query": every_field(DEFINITION), "variables": {"id": "1"}}


async def monitored(redis: Redis, client: object, mode: str) -> tuple[list[list[str]], list[str]]:
    """The words of each command that one request is told to have sent, and what Redis received meanwhile, as MONITOR has it."""
    # two connections: the monitor keeps one, and a new one would be seen to begin
    await asyncio.gather(redis.ping(), redis.ping())
    async with redis.monitor() as monitor:
        answer = await client.post("/graphql", json=QUERY, headers=READS | {"viewgate-mode": mode})  # type: ignore[attr-defined]  # an httpx client
        await redis.echo("end")
        received = []
        while not (command := (await monitor.next_command())["command"]).startswith("ECHO"):
            received.append(command)
    told = answer.json()["extensions"]["viewgate"]["reads"]
    return [note["redis"] for note in told if "redis" in note], received


@pytest.mark.parametrize("mode", ["view", "cache-aside"])
async def test_the_commands_that_are_told_are_those_that_redis_received(open_gateway: Open, view: View, redis: Redis, mode: str) -> None:
    client = await open_gateway()
    for _ in range(2):
        # what is first asked looks for the generation, or fills the cache
        await client.post("/graphql", json=QUERY, headers={"viewgate-mode": mode})
    told, received = await monitored(redis, client, mode)
    assert received == [" ".join(words) for words in told]
    assert [words[0] for words in told][-1] == {"view": "HMGET", "cache-aside": "GET"}[mode]


async def test_the_statement_that_is_told_finds_what_was_answered(open_gateway: Open, view: View, users_at: str) -> None:
    client = await open_gateway()
    answer = (await client.post("/graphql", json=QUERY, headers=READS | {"viewgate-mode": "sql"})).json()
    (note,) = answer["extensions"]["viewgate"]["reads"]
    connection = await asyncpg.connect(users_at)
    record = await connection.fetchrow(note["sql"], [1])
    await connection.close()
    assert record is not None
    assert (record["follower_count"], record["username"]) == (answer["data"]["user"]["followerCount"], "ada")


async def test_a_miss_tells_the_look_and_the_statement(open_gateway: Open, view: View) -> None:
    client = await open_gateway()
    answer = (await client.post("/graphql", json=QUERY, headers=READS | {"viewgate-mode": "cache-aside"})).json()
    told = [note["redis"][0] if "redis" in note else "sql" for note in answer["extensions"]["viewgate"]["reads"]]
    assert told == ["GET", "SET", "GET", "sql"], "a look, the lease with another look behind it, and then PostgreSQL"


async def test_who_does_not_ask_is_told_nothing(open_gateway: Open, view: View) -> None:
    client = await open_gateway()
    assert "extensions" not in (await client.post("/graphql", json=QUERY)).json()
    told = (await client.post("/graphql", json=QUERY, headers={"viewgate-extensions": "true"})).json()
    assert "reads" not in told["extensions"]["viewgate"]


async def test_where_no_mode_may_be_chosen_names_of_keys_are_not_told(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    answer = await client.post("/graphql", json={"query": ADA}, headers=READS)
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]) == (400, {"code": "BAD_REQUEST"})
    assert "VIEWGATE_ALLOW_MODE_HEADER" in json.dumps(answer.json())
