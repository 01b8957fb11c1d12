"""`viewgate doctor` on a Redis that is not as it should be, each time in one way."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.doctor import redis as checks
from app.doctor.checks import CLOCK_WARNING_SECONDS, Check, Verdict, clock
from demo.servers import redis_cluster
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from tests.commands.examined import Found, Stack, configured, not_ok, open_stack
from tests.conftest import CACHE

LISTPACK = ("hash_max_listpack_value", "hash_max_ziplist_value")


@pytest.fixture
async def stack(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Stack]:
    async with open_stack(kafka_at, redis_at, postgres_at) as opened:
        yield opened


@pytest.fixture
async def limit(stack: Stack) -> str:
    """What this Redis calls the longest value of a compact hash."""
    return LISTPACK[0] if await stack.redis.config_get("hash-max-listpack-value") else LISTPACK[1]


def _one(found: Found, check: str, server: str = "Redis") -> tuple[str, str, str]:
    return found[server, check][2:]


async def test_a_healthy_stack_is_told_as_one(stack: Stack) -> None:
    found = await stack.examine()
    assert not_ok(found) == {}
    assert found["Redis", "memory limit"].verdict == "warning"
    assert found["gateway", "ready"].verdict == "skipped"


async def test_a_redis_that_may_evict_is_wrong_and_its_listpack_limit_a_warning(stack: Stack, limit: str) -> None:
    async with configured(stack.redis, maxmemory_policy="allkeys-lru", **{limit: 64}):
        found = await stack.examine()
    assert not_ok(found) == {("Redis", "eviction"): "wrong", ("Redis", "listpack value"): "warning"}
    assert found["Redis", "eviction"].mend == "`CONFIG SET maxmemory-policy noeviction`, and the same in redis.conf."
    _, told, mend = _one(found, "listpack value")
    assert told == f"{limit.replace('_', '-')} is 64: a user with one longer value takes 1,015 bytes instead of 318"
    assert mend.startswith(f"`CONFIG SET {limit.replace('_', '-')} 512`")


async def test_fewer_listpack_entries_than_the_view_has_fields_are_a_warning(stack: Stack, limit: str) -> None:
    fields = len(stack.definition.fields)
    name = limit.replace("value", "entries")
    async with configured(stack.redis, **{name: fields}):
        assert not_ok(await stack.examine()) == {}
    async with configured(stack.redis, **{name: fields - 1}):
        assert not_ok(await stack.examine()) == {("Redis", "listpack entries"): "warning"}


async def test_memory_is_measured_against_its_limit(stack: Stack) -> None:
    used = int((await stack.redis.info("memory"))["used_memory"])
    async with configured(stack.redis, maxmemory=used * 100):
        found = await stack.examine()
        assert (found["Redis", "memory limit"].verdict, found["Redis", "memory"].verdict) == ("ok", "ok")
    async with configured(stack.redis, maxmemory=used // 2):
        found = await stack.examine()
    assert found["Redis", "memory"].verdict == "wrong"
    assert "MB in use" in found["Redis", "memory"].found


@pytest.mark.parametrize(("percent", "verdict"), [(79, "ok"), (81, "warning"), (100, "wrong")])
async def test_memory_is_a_warning_above_four_fifths_of_its_limit(stack: Stack, percent: int, verdict: str) -> None:
    asked = checks.Asked(stack.redis, "", 1, info={"used_memory": percent * 2**20, "maxmemory": 100 * 2**20})
    assert await _verdict(asked, "memory") == verdict


async def test_neither_file_nor_snapshots_is_a_warning(stack: Stack) -> None:
    async with configured(stack.redis, appendonly="no"):
        assert not_ok(await stack.examine()) == {("Redis", "persistence"): "warning"}
        async with configured(stack.redis, save="3600 1"):
            assert not_ok(await stack.examine()) == {}


async def test_a_write_to_disk_that_failed_is_wrong(stack: Stack) -> None:
    asked = checks.Asked(stack.redis, "", 1, info={"aof_enabled": 1, "aof_last_write_status": "err"})
    assert await _verdict(asked, "persistence") == "wrong"


async def test_a_replica_is_wrong(stack: Stack) -> None:
    await stack.redis.replicaof("127.0.0.1", "1")
    try:
        found = await stack.examine()
    finally:
        await stack.redis.replicaof("NO", "ONE")
    assert not_ok(found) == {("Redis", "role"): "wrong"}
    assert "a replica of 127.0.0.1:1" in found["Redis", "role"].found


@pytest.mark.parametrize(
    ("info", "verdict", "told"),
    [
        ({"redis_version": "6.0.16"}, "wrong", "Redis 6.0.16"),
        ({"redis_version": "6.2.0"}, "ok", "Redis 6.2.0"),
        ({"redis_version": "7.2.4", "valkey_version": "8.1.0"}, "ok", "Valkey 8.1.0"),
    ],
)
async def test_an_old_version_is_wrong_and_valkey_is_known(stack: Stack, info: dict[str, str], verdict: str, told: str) -> None:
    finding = await _check("version").run(checks.Asked(stack.redis, "", 1, info=info))
    assert (finding.verdict, finding.found) == (verdict, told)


async def test_every_master_of_a_cluster_is_examined(kafka_at: Server, postgres_at: Server, tmp_path: Path) -> None:
    async with redis_cluster.start(tmp_path, CACHE, say=print) as cluster, open_stack(kafka_at, cluster.server, postgres_at) as stack:
        found = await stack.examine()
        assert not_ok(found) == {}
        assert _one(found, "cluster mode") == ("ok", "on, 3 masters", "")
        third = cluster.masters[2].address
        async with Redis.from_url(third) as one, configured(one, maxmemory_policy="allkeys-lru", cluster_require_full_coverage="yes"):
            found, plain = await stack.examine(), await stack.examine(redis_url=third)
        assert not_ok(found) == {("Redis", "eviction"): "wrong", ("Redis", "cluster mode"): "warning"}
        _, told, mend = _one(found, "eviction")
        assert told.count("noeviction") == 2
        assert f"{third.split('/')[2]}: maxmemory-policy is allkeys-lru" in told
        assert mend == "`CONFIG SET maxmemory-policy noeviction`, and the same in redis.conf."
        assert "write redis+cluster:// in place of redis://" in _one(plain, "answers")[1]
        gone = cluster.masters[0].process
        assert gone
        async with Redis.from_url(third) as one, configured(one, cluster_require_full_coverage="yes"):
            await gone.kill()
            await until(lambda: _failed(one), 20)
            found = await stack.examine()
        assert {check: _one(found, check)[0] for check in ("answers", "cluster mode")} == {"answers": "wrong", "cluster mode": "wrong"}
        assert "its state is fail: 10923 of 16384 slots are served" in _one(found, "cluster mode")[1]


async def _failed(client: Redis) -> None:
    told: Any = await client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]  # redis-py left it untyped
    if told["cluster_state"] == "ok":
        raise NotReadyError("the cluster is whole")


@pytest.mark.parametrize(
    ("forbidden", "warnings"),
    [
        ("config", {"listpack value", "listpack entries"}),
        ("info", {"version", "role", "cluster mode", "eviction", "memory limit", "memory", "persistence"}),
    ],
)
async def test_what_is_forbidden_is_a_warning_that_says_where_to_look(stack: Stack, forbidden: str, warnings: set[str]) -> None:
    rights = ["+@all"]
    await stack.redis.acl_setuser("doctor", enabled=True, passwords="+secret", keys="*", categories=rights, commands=[f"-{forbidden}"])
    try:
        found = await stack.examine(redis_url=stack.settings.redis_url.replace("://", "://doctor:secret@"))
    finally:
        await stack.redis.acl_deluser("doctor")
    unread = {check for (_, check), result in found.items() if "is forbidden" in result.found}
    assert unread == warnings
    assert {found["Redis", check].verdict for check in unread} == {"warning"}
    assert {found["Redis", check].mend.split(",")[0] for check in unread} == {"Look for it where this Redis is managed"}
    assert not any(result.verdict == "wrong" for result in found.values())
    assert "secret" not in str(found)


async def test_a_cache_of_its_own_may_evict(stack: Stack) -> None:
    other = stack.settings.redis_url.replace("/0", "/1")
    async with configured(stack.redis, maxmemory_policy="allkeys-lru", maxmemory=2**30):
        found = await stack.examine(cache_redis_url=other)
    assert _one(found, "eviction", "Redis of the cache") == ("ok", "allkeys-lru", "")
    async with configured(stack.redis, maxmemory=2**30):
        assert not_ok(await stack.examine(cache_redis_url=other)) == {("Redis of the cache", "eviction"): "warning"}


async def test_a_cache_that_is_away_leaves_the_other_checks_as_they_are(stack: Stack) -> None:
    found = await stack.examine(cache_redis_url="redis://127.0.0.1:1/0")
    verdicts = not_ok(found)
    assert verdicts.pop(("Redis of the cache", "answers")) == "wrong"
    assert {(server, verdict) for (server, _), verdict in verdicts.items()} == {("Redis of the cache", "skipped")}


async def test_a_clock_that_differs_is_told(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = time.time
    monkeypatch.setattr(time, "time", lambda: ours() - 5)
    found = await stack.examine()
    assert found["Redis", "clock"].verdict == "warning"
    assert found["Redis", "clock"].found.startswith("5.0 s ahead of ours")


@pytest.mark.parametrize(("seconds", "verdict"), [(0.0, "ok"), (CLOCK_WARNING_SECONDS, "ok"), (-1.5, "warning"), (10.5, "wrong")])
def test_how_far_clocks_may_differ(seconds: float, verdict: str) -> None:
    assert clock(seconds).verdict == verdict


async def _verdict(asked: checks.Asked, name: str) -> Verdict:
    return (await _check(name).run(asked)).verdict


def _check(name: str) -> Check[checks.Asked]:
    return next(check for check in checks.VIEW.checks if check.name == name)
