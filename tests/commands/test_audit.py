"""`viewgate audit` against SQL and the log, its repair under live changes, and its watch."""

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest

from demo.servers.process import NotReadyError, free_port, until
from demo.servers.server import Server
from projectors.generations import Generations
from schema import layout
from tests.commands.running import run, start
from tests.faults.traffic import Traffic
from tests.road import Road, open_road, variables


@pytest.fixture(scope="module")
async def traffic(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Traffic]:
    """A live g1 of a few thousand changes, kept by one projector, and all of it in SQL. Each test leaves it right for the next."""
    async with open_road(kafka_at, redis_at, postgres_at) as road:
        published = Traffic(road, seed=2)
        published.publish(2000)
        await road.project()
        await road.sunk()
        await road.agree()
        yield published


@pytest.fixture(scope="module")
def road(traffic: Traffic) -> Road:
    return traffic.road


async def audit(road: Road, *arguments: str, **settings: str) -> tuple[int | None, str]:
    code, out, err = await run("audit", *arguments, **{**variables(road.settings), **settings})
    return code, out + err


async def key(road: Road, user: int) -> str:
    record = await Generations(road.redis, road.definition).read("g1")
    assert record is not None
    keys = layout.Layout(road.definition.name, "g1", record.shards)
    return keys.rows_prefix(keys.shard(str(user)), record.build) + str(user)


def code(road: Road, name: str) -> str:
    return layout.codes(road.definition)[name]


async def somebody(road: Road, count: int) -> list[int]:
    """Users who are there."""
    return sorted(map(int, await road.in_sql()))[5 : 5 + count]


@asynccontextmanager
async def changing(traffic: Traffic) -> AsyncIterator[None]:
    """Changes all the time, into Kafka and SQL."""

    async def change() -> None:
        while True:
            traffic.publish(20)
            await asyncio.sleep(0.02)

    running = asyncio.create_task(change())
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def damaged(road: Road) -> dict[str, str]:
    """Rows that no reader can be shown, rows that are wrong and one of nobody; what an audit says of each."""
    wrong, lacking, other, _ = await somebody(road, 4)
    right = (await road.in_sql())[str(wrong)]["follower_count"].decode()
    name = code(road, "name")
    await road.redis.hincrby(await key(road, wrong), code(road, "follower_count"), 1000)
    await road.redis.hdel(await key(road, lacking), name)
    await road.redis.delete(await key(road, other))
    await road.redis.rpush(await key(road, other), "a list")
    await road.redis.hset(await key(road, 987654), mapping={code(road, "username"): "ghost", name: "Ghost"})
    return {
        f"User {wrong}: follower_count is {int(right) + 1000} in the view, {right} in": f"{wrong}: follower_count mended, from",
        f"User {lacking}: name is absent in the view": f"{lacking}: name mended, from absent to",
        f"User {other}: ": f"{other}: key mended, from of another type to",
        "User 987654: id is": "987654: id mended, from",
    }


async def test_what_is_damaged_is_found_by_sql_and_by_the_log_and_mended_by_either(road: Road) -> None:
    for against in ("log", "sql"):
        expected = await damaged(road)
        code_, said = await audit(road, "--against", against)
        assert code_ == 1
        assert [line for line in expected if line not in said] == []
        code_, said = await audit(road, "--against", against, "--repair")
        assert [line for line in expected.values() if line not in said] == []
        assert code_ == 0, said
    for against in ("log", "sql"):
        code_, said = await audit(road, "--against", against)
        assert (code_, "0 mismatches" in said) == (0, True), said


async def test_a_repair_under_live_changes_breaks_no_count(traffic: Traffic, road: Road) -> None:
    async with changing(traffic):
        for _ in range(2):
            users = await somebody(road, 8)
            for user in users:
                await road.redis.hincrby(await key(road, user), code(road, "follower_count"), 1000)
                await road.redis.hset(await key(road, user), code(road, "name"), "Mallory")
            code_, said = await audit(road, "--against", "log", "--repair")
            assert code_ == 0, said
            # a user who was deleted meanwhile is one too many
            assert [user for user in users if not re.search(rf"User {user}: (follower_count|id) mended", said)] == []
        code_, said = await audit(road, "--against", "log")
        assert (code_, "0 mismatches" in said) == (0, True), said
    traffic.publish(1)
    await road.sunk()
    await road.agree()


async def test_a_lost_claim_is_found_and_made_again(road: Road) -> None:
    (user,) = await somebody(road, 1)
    username = msgspec.json.decode((await road.in_sql())[str(user)]["username"], type=str)
    (claims,) = [one async for one in road.redis.scan_iter(f"user:g1.*@username:{username}", count=5000)]
    before = await road.redis.hgetall(claims.decode())
    await road.redis.delete(claims)
    code_, said = await audit(road)
    assert f"User {username}: by username is absent in the view" in said
    code_, said = await audit(road, "--against", "log", "--repair")
    assert (code_, f"{username}: by username mended, from absent" in said) == (0, True), said
    assert await road.redis.hgetall(claims.decode()) == before


async def test_a_sample_looks_at_about_so_many(road: Road) -> None:
    code_, said = await audit(road, "--sample", "50")
    assert code_ == 0
    assert 20 <= int(said.splitlines()[-1].split()[0]) <= 50
    code_, said = await audit(road, "--against", "log", "--sample", "100", "--generation", "g1")
    assert code_ == 0
    assert 50 <= int(said.splitlines()[-1].split()[0]) <= 170


async def scraped(port: int, wanted: str) -> str:
    try:
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    except httpx.HTTPError as error:
        raise NotReadyError(repr(error)) from error
    if wanted not in text:
        raise NotReadyError(text)
    return text


@pytest.mark.parametrize("against", ["sql", "log"])
async def test_a_watch_tells_what_it_finds_mends_it_and_ends_well(road: Road, against: str) -> None:
    port = free_port()
    options = ("--watch", "--repair", "--rate", "2000", "--metrics-port", str(port), "--against", against)
    child = await start("audit", *options, **variables(road.settings))
    await until(lambda: scraped(port, "viewgate_audit_agreement_nines 2."), 60)
    (user,) = await somebody(road, 1)
    await road.redis.hincrby(await key(road, user), code(road, "like_count"), 5)
    await until(lambda: scraped(port, 'viewgate_audit_mismatches_total{field="like_count"} 1.0'), 60)
    await until(lambda: scraped(port, "viewgate_audit_repairs_total 1.0"), 60)
    await road.agree()
    child.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 0, err
    assert b"round 1: " in out


async def test_a_watch_that_finds_what_it_may_not_mend_ends_with_1(road: Road) -> None:
    port = free_port()
    (user,) = await somebody(road, 1)
    await road.redis.hincrby(await key(road, user), code(road, "like_count"), 5)
    child = await start("audit", "--watch", "--rate", "5000", "--metrics-port", str(port), **variables(road.settings))
    await until(lambda: scraped(port, 'viewgate_audit_mismatches_total{field="like_count"}'), 60)
    child.send_signal(signal.SIGINT)
    await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 1
    assert (await audit(road, "--against", "log", "--repair"))[0] == 0


async def test_what_cannot_be_audited_is_refused_with_what_to_do(road: Road) -> None:
    code_, said = await audit(road, "--generation", "g7")
    assert (code_, "There is no generation g7 (there is g1)" in said) == (1, True)
    code_, said = await audit(road, VIEWGATE_POSTGRES_URL=f"postgresql://127.0.0.1:{free_port()}/none")
    assert (code_, "`viewgate audit --against log` needs none" in said) == (1, True), said
    generations = Generations(road.redis, road.definition)
    record = await generations.read("g1")
    assert record is not None
    await generations.register.replace(record, msgspec.structs.replace(record, origin="sql"))
    code_, said = await audit(road, "--against", "log")
    assert (code_, "the rows of generation g1 came from SQL" in said) == (1, True), said
    # the offsets that the sink keeps are enough
    (user,) = await somebody(road, 1)
    await road.redis.hincrby(await key(road, user), code(road, "like_count"), 5)
    code_, said = await audit(road, "--repair")
    assert (code_, "like_count mended" in said) == (0, True), said
    await road.pool.execute("DROP TABLE sink_positions")
    await road.redis.hincrby(await key(road, user), code(road, "like_count"), 5)
    code_, said = await audit(road, "--repair")
    assert (code_, "only a database that keeps Kafka's offsets beside its rows does" in said) == (1, True), said
