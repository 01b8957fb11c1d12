"""Servers that are away, and what a gateway says of it."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from demo.servers import redis as redis_server
from demo.servers.server import Server
from tests.request.arranged import USERS, View
from tests.request.conftest import CACHE, Open

pytestmark = pytest.mark.servers

ADA = {"query": '{ user(id: "1") { username tweetCount } }'}
ADAS = {"data": {"user": {"username": "ada", "tweetCount": 3}}}
NOWHERE = "127.0.0.1:1"


async def write_view(server: Server) -> None:
    async with Redis.from_url(server.address) as redis:
        await redis.flushall()
        await View(redis).write(USERS)


async def test_the_gateway_starts_and_answers_while_all_its_servers_are_away(open_gateway: Open) -> None:
    client = await open_gateway(redis_url=f"redis://{NOWHERE}", postgres_url=f"postgresql://{NOWHERE}/none")
    assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/readyz")).status_code == 503
    for mode in ("view", "cache-aside", "cache-invalidate", "sql"):
        answer = await client.post("/graphql", json=ADA, headers={"viewgate-mode": mode})
        assert answer.headers["viewgate-mode"] == mode
        assert answer.json()["data"] == {"user": None}
        assert answer.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
        assert "127.0.0.1" not in answer.text


async def test_redis_is_killed_and_comes_back(open_gateway: Open, tmp_path: Path) -> None:
    async with redis_server.start(tmp_path, CACHE, say=print) as server:
        assert server.process is not None
        await write_view(server)
        client = await open_gateway(redis_url=server.address)
        assert (await client.post("/graphql", json=ADA)).json() == ADAS
        await server.process.kill()
        away = await client.post("/graphql", json=ADA)
        assert away.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
        assert away.json()["errors"][0]["message"] == "Redis cannot be reached."
        for mode in ("sql", "cache-aside", "cache-invalidate"):
            assert (await client.post("/graphql", json=ADA, headers={"viewgate-mode": mode})).json() == ADAS
        await server.process.start()
        await write_view(server)
        assert (await client.post("/graphql", json=ADA)).json() == ADAS


async def test_redis_that_hangs_is_unavailable_within_the_time_that_is_set(open_gateway: Open, tmp_path: Path) -> None:
    async with redis_server.start(tmp_path, CACHE, say=print) as server:
        assert server.process is not None
        client = await open_gateway(redis_url=server.address, redis_timeout_seconds=0.1)
        server.process.pause()
        async with asyncio.timeout(2):
            answer = await client.post("/graphql", json=ADA)
        server.process.resume()
        assert answer.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}


async def test_a_missing_field_is_an_error_without_and_an_answer_with_a_fallback(view: View, open_gateway: Open) -> None:
    await view.redis.hdel(view.key("1"), view.code("tweet_count"))
    answer = await (await open_gateway()).post("/graphql", json=ADA)
    assert answer.json()["errors"][0]["extensions"] == {"code": "FIELD_MISSING"}
    assert (answer.headers["viewgate-mode"], "viewgate-fallback" in answer.headers) == ("view", False)
    for fallback in ("sql", "cache-aside"):
        client = await open_gateway(fallback=fallback)
        answer = await client.post("/graphql", json=ADA)
        assert answer.json() == ADAS
        assert (answer.headers["viewgate-mode"], answer.headers["viewgate-fallback"]) == (fallback, "FIELD_MISSING")
        assert "viewgate-generation" not in answer.headers
        assert 'viewgate_fallbacks_total{reason="FIELD_MISSING"} 1.0' in (await client.get("/metrics")).text


async def test_a_lost_shard_is_answered_by_the_fallback_and_readiness_follows_it(redis: Redis, open_gateway: Open) -> None:
    client = await open_gateway(fallback="sql")
    answer = await client.post("/graphql", json=ADA)
    assert (answer.json(), answer.headers["viewgate-fallback"]) == (ADAS, "NOT_READY")
    assert (await client.get("/readyz")).status_code == 200
    assert (await (await open_gateway()).get("/readyz")).text.startswith("NOT_READY")
