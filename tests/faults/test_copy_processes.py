"""`viewgate project` and `viewgate populate` as processes, killed in the middle of traffic; then the second Redis is audited."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

from redis.asyncio import Redis

from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from projectors.generations import Generations
from tests.commands.running import run
from tests.faults.traffic import Traffic
from tests.road import Road, open_road, variables

KILLS = 4
CHANGES = 600


async def test_a_second_redis_passes_the_audit_after_both_sides_were_killed_in_the_middle_of_traffic(
    apache_kafka_at: Server, redis_at: Server, postgres_at: Server, tmp_path: Path
) -> None:
    rng, said = random.Random(3), tmp_path / "said"
    async with open_road(apache_kafka_at, redis_at, postgres_at) as road:
        copy = copied(road, redis_at)
        traffic = Traffic(road, seed=3, users=120)
        for number in range(KILLS):
            processes = [await projecting(road, number, said), await populating(copy, said)]
            traffic.publish(CHANGES)
            if number:
                await until(lambda: live(copy), 60)
            await asyncio.sleep(rng.random() * 3)
            traffic.publish(CHANGES)
            for process in rng.sample(processes, 2):
                process.kill()
                await process.wait()
        last = [await projecting(road, KILLS, said), await populating(copy, said), await populating(copy, said)]
        traffic.publish(CHANGES)
        await road.sunk()
        assert await copy.agree() > 50
        settings = variables(copy.settings)
        code, out, errors = await run("audit", **settings)
        assert (code, "0 mismatches" in out) == (0, True), out + errors
        # a Redis that comes back empty is noticed without anybody's help
        await copy.redis.flushdb()
        await until(lambda: live(copy), 60)
        assert await copy.agree() > 50
        code, out, errors = await run("audit", "--against", "log", **settings)
        assert code == 0, out + errors
        assert [process.returncode for process in last] == [None] * 3
        await copy.redis.aclose()
    assert "Traceback" not in said.read_text()


def copied(road: Road, server: Server) -> Road:
    """The road with the second Redis in place of the first, and both with the view topic."""
    road.settings = road.settings.model_copy(update={"view_topic": f"{road.settings.topic_prefix}view"})
    url = f"{server.address.rpartition('/')[0]}/1"
    return replace(road, redis=Redis.from_url(url), settings=road.settings.model_copy(update={"redis_url": url}))


async def projecting(road: Road, number: int, said: Path) -> asyncio.subprocess.Process:
    """In a group of its own, since Kafka would wait for the member that died before it."""
    group = f"{road.settings.consumer_group}-{number}"
    return await road.start("-m", "app", "project", said=said, VIEWGATE_CONSUMER_GROUP=group)


async def populating(copy: Road, said: Path) -> asyncio.subprocess.Process:
    return await copy.start("-m", "app", "populate", said=said)


async def live(copy: Road) -> None:
    if await Generations(copy.redis, copy.definition).live() is None:
        raise NotReadyError("no generation is live in the second Redis")
