"""What is killed, and when: drawn from a seed, in two lanes at once, servers in one and processes of ours in the other."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from redis.asyncio import Redis

from demo.servers.connect import Connect
from demo.servers.process import Process
from demo.servers.stack import Stack
from tests.chaos.lost_power import cut_back, synced

Fault = Callable[[random.Random], Awaitable[None]]
FROZEN_SECONDS = 13.0
# how often a fault comes, against the others of its lane
WEIGHTS = {"redis empty": 0.2, "connect killed": 0.7}


class Schedule:
    """told: how often each fault has come."""

    def __init__(self, stack: Stack, connect: Connect, projectors: Sequence[Process], gateways: Sequence[Process], sink: Process) -> None:
        self._stack, self._connect, self._sink = stack, connect, sink
        self._projectors, self._gateways = projectors, gateways
        self._one_at_a_time = asyncio.Lock()
        self.told: Counter[str] = Counter()

    async def run(self, seed: int, stop: asyncio.Event) -> None:
        """Until told to stop; then everything runs."""
        async with asyncio.TaskGroup() as group:
            for number, lane in enumerate((self._servers(), self._ours())):
                group.create_task(self._lane(lane, random.Random(f"{seed} {number}"), stop))

    async def _lane(self, faults: Mapping[str, Fault], rng: random.Random, stop: asyncio.Event) -> None:
        names = list(faults)
        while not stop.is_set():
            await asyncio.sleep(rng.uniform(1, 5))
            (name,) = rng.choices(names, [WEIGHTS.get(name, 1.0) for name in names])
            await faults[name](rng)
            self.told[name] += 1

    def _servers(self) -> dict[str, Fault]:
        kafka, redis, postgres = (server.process for server in self._stack.servers)
        assert kafka
        assert redis
        assert postgres
        return {
            "kafka killed": lambda rng: _killed(kafka, rng),
            "kafka frozen": lambda rng: _frozen(kafka, rng.uniform(1, 6)),
            "redis killed": lambda rng: _killed(redis, rng),
            "redis lost its last second": lambda rng: self._lost(redis, rng),
            "redis empty": lambda _: self._emptied(),
            "postgres killed": lambda rng: _killed(postgres, rng),
            "connect killed": lambda _: self.kill_connect(),
        }

    def _ours(self) -> dict[str, Fault]:
        return {
            "projector killed": lambda rng: _killed(rng.choice(self._projectors), rng),
            "projector frozen past its session": lambda rng: _frozen(rng.choice(self._projectors), FROZEN_SECONDS),
            "gateway killed": lambda rng: _killed(rng.choice(self._gateways), rng),
            "gateway told to end": lambda rng: rng.choice(self._gateways).restart(),
            "sink killed": lambda rng: _killed(self._sink, rng),
        }

    async def kill_connect(self) -> None:
        """And start it again. Its connectors are in Kafka; whether they run is looked at by whoever supervises it."""
        async with self._one_at_a_time:
            await self._connect.kill()
            await self._connect.process.start()

    async def _emptied(self) -> None:
        async with Redis.from_url(self._stack.redis.address) as redis:
            await redis.flushall()

    async def _lost(self, redis: Process, rng: random.Random) -> None:
        sizes = synced(redis)
        await asyncio.sleep(rng.uniform(0.2, 1))
        await redis.kill()
        cut_back(sizes)
        await redis.start()


async def _killed(process: Process, rng: random.Random) -> None:
    await process.kill()
    await asyncio.sleep(rng.uniform(0, 2))
    await process.start()


async def _frozen(process: Process, seconds: float) -> None:
    process.pause()
    await asyncio.sleep(seconds)
    process.resume()
