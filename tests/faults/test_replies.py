"""Answers that never arrive: a script has run, its client does not know, and sends it again."""

import asyncio
import random
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from demo.servers.process import NotReadyError, until
from tests.faults.arranged import Tables, World
from tests.faults.proxy import Proxy, Way, before

RETRIES: dict[str, dict[str, Any]] = {"none": {"retry": Retry(NoBackoff(), 0)}, "ten": {"retry": Retry(NoBackoff(), 10)}}


@pytest.mark.parametrize("way", ["cut", "swallow"])
@pytest.mark.parametrize("retries", RETRIES)
async def test_a_script_whose_answer_is_lost_counts_once(world: World, way: Way, retries: str) -> None:
    port = world.redis.connection_pool.connection_kwargs["port"]
    async with before(port, way) as proxy:
        client = Redis.from_url(proxy.address, socket_timeout=0.2, **RETRIES[retries])
        tables = Tables(world, random.Random(1))
        owner, stop = await world.owner(redis=client, limit=20), asyncio.Event()
        running = asyncio.create_task(owner.projector.run(stop))
        try:
            for _ in range(8):
                proxy.losses = 2
                for _ in range(40):
                    tables.change()
                await until(lambda: _level(world, proxy, running), 20)
        finally:
            stop.set()
            await running
            await client.aclose()
    await world.exact()
    # with retries of its own the loop never learns that anything was lost; without, it reads the watermarks again
    assert (owner.tally.dropped > 0) == (retries == "none")
    assert owner.tally.rewinds == 0


async def _level(world: World, proxy: Proxy, running: "asyncio.Task[None]") -> None:
    if running.done():
        running.result()
    if proxy.losses or await world.shown() != world.counted():
        raise NotReadyError(f"{proxy.losses} answers still to lose")
