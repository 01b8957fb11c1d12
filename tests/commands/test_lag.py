"""`viewgate lag`: what it says of a view that is level, behind, lost in part, or not there; against real servers."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from app.commands.lag import Lag, Look, _line
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from projectors.generations import Generations
from schema import layout
from schema.positions import Partition, Watermark
from schema.user import Tweets
from tests.commands.running import run, start
from tests.road import Road, open_road, variables

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def road(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Road]:
    async with open_road(kafka_at, redis_at, postgres_at, partitions=2) as opened:
        yield opened


async def looked(road: Road, *options: str) -> dict[str, Any]:
    """What one look says, as JSON."""
    code, out, err = await run("lag", "--once", "--json", *options, **variables(road.settings))
    assert (code, err) == (0, ""), err
    found: dict[str, Any] = json.loads(out)
    return found


def of(look: dict[str, Any], topic: str) -> dict[int, dict[str, Any]]:
    return {one["partition"]: one for one in look["partitions"] if one["topic"].endswith(topic)}


async def level(road: Road) -> None:
    ahead = await Generations(road.redis, road.definition).live()
    if ahead is None or (await looked(road))["total"]["lagRecords"]:
        raise NotReadyError("not level")


async def test_what_is_not_in_the_view_is_told_by_partition_and_what_came_since_is_not_missed(road: Road) -> None:
    for number in range(60):
        road.publisher.publish("c", None, Tweets(number, number, "x", MOMENT), time.time_ns() // 1_000_000)
    road.publisher.flush()
    projector = await road.project()
    await until(lambda: level(road), 60)
    look = await looked(road)
    assert (look["generation"], look["state"], look["total"]["lagRecords"], look["total"]["shardsAbsent"]) == ("g1", "live", 0, 0)
    tweets = of(look, "tweets")
    assert sum(one["end"] for one in tweets.values()) == 60
    assert all(one["reached"] == one["end"] and one["newestSeconds"] < 60 for one in tweets.values())
    assert all(one["newestSeconds"] is None for one in of(look, "likes").values())
    projector.terminate()
    await projector.wait()
    tokens = [await road.publisher.acknowledged("c", None, Tweets(100, 7, "x", MOMENT), 1) for _ in range(3)]
    look = await looked(road)
    assert look["total"]["lagRecords"] == 3
    assert of(look, "tweets")[tokens[0].partition.number]["lagRecords"] == 3
    # the projector has gone, so the answers grow older
    before, after = look["total"]["ageSeconds"], (await looked(road))["total"]["ageSeconds"]
    assert after > before
    code, out, _ = await run("lag", "--once", **variables(road.settings))
    lines = [line.split() for line in out.splitlines()]
    assert (code, lines[0][:4], lines[-1][:3]) == (0, ["partition", "reached", "end", "behind"], ["g1", "(live)", "3"])
    assert len(lines) == 1 + 2 * len(road.definition.topics) + 1


async def test_one_late_shard_of_all_is_how_far_the_view_is(road: Road) -> None:
    for number in range(60):
        road.publisher.publish("c", None, Tweets(number, number, "x", MOMENT), 1)
    road.publisher.flush()
    projector = await road.project()
    await until(lambda: level(road), 60)
    projector.terminate()
    await projector.wait()
    keys = layout.Layout(road.definition.name, "g1", layout.SHARDS)
    partition = f"{road.settings.topic_prefix}tweets:0"
    (stored,) = await road.redis.hmget(keys.headers[77], [partition])
    assert stored is not None
    before = Watermark.decode(stored)  # type: ignore[arg-type]  # the client answers bytes
    await road.redis.hset(keys.headers[77], partition, Watermark(before.offset - 5, 1, before.topic_id).encode())
    await road.redis.delete(keys.headers[78])
    look = await looked(road)
    assert of(look, "tweets")[0]["lagRecords"] == look["total"]["lagRecords"] == 5
    assert look["total"]["shardsAbsent"] == 1
    assert "1 of 256 shards cannot be read" in (await run("lag", "--once", **variables(road.settings)))[1]


async def test_it_goes_on_each_second_until_it_is_told_to_end(road: Road) -> None:
    await road.project()
    await until(lambda: level(road), 60)
    child = await start("lag", **variables(road.settings))
    assert child.stdout
    lines = [(await asyncio.wait_for(child.stdout.readline(), 30)).decode() for _ in range(2)]
    assert all(line.startswith("g1 (live): 0 records behind; age ") for line in lines), lines
    child.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(child.communicate(), 30)
    assert (child.returncode, err) == (0, b"")


async def test_what_is_away_or_not_there_is_told_with_what_to_do(road: Road) -> None:
    given = variables(road.settings)
    for options, settings, said in (
        ((), {}, "No generation is live: start `viewgate project`"),
        (("--generation", "g7"), {}, "There is no generation g7"),
        ((), {"VIEWGATE_REDIS_URL": "redis://127.0.0.1:1"}, "Redis cannot be reached"),
    ):
        code, out, err = await run("lag", "--once", *options, **{**given, **settings})
        assert (code, out) == (1, "")
        assert said in err
    await road.project()
    await until(lambda: level(road), 60)
    code, out, err = await run("lag", "--once", **{**given, "VIEWGATE_KAFKA_BOOTSTRAP": "127.0.0.1:1"})
    assert (code, out) == (1, "")
    assert "Kafka cannot be reached" in err
    assert "VIEWGATE_KAFKA_BOOTSTRAP" in err


def test_a_line_names_the_partition_that_is_furthest_behind() -> None:
    lags = [Lag(Partition("users", 0), 8, 10, 0.5, None), Lag(Partition("users", 1), None, 1234, 2.0, 9.0)]
    look = Look("g2", "building", 0, 256, lags)
    assert _line(look) == "g2 (building): 1,236 records behind, users:1 1,234 of them; age 2.0 s"
    unknown = Look("g2", "building", 0, 256, [*lags, Lag(Partition("users", 2), 0, 0, None, None)])
    assert _line(unknown).endswith("age unknown")
