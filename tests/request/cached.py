"""Loaders with a cache over a real Redis and sources in memory, for the tests of what is asked when."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from redis.asyncio import Redis

from loaders.cache import Cache, Entry
from loaders.cache_aside import CacheAsideLoader
from loaders.cache_policy import Policy
from loaders.sending import by_pipeline
from schema import layout
from schema.definition import Definition
from schema.loader import Loader, Mode, Read, Rows
from tests.request.arranged import DEFINITION, MemoryLoader

ADA = Read("id", "1", ("username", "tweet_count"))
ADAS = [b'"ada"', b"3"]


@dataclass(slots=True)
class Counts:
    """A Tally."""

    of: Counter[str] = field(default_factory=Counter)
    refills: int = 0

    def count(self, mode: Mode, outcome: str, rows: int) -> None:
        self.of[outcome] += rows

    def refilled(self, mode: Mode, seconds: float) -> None:
        self.refills += 1


@dataclass(slots=True)
class SlowLoader:
    """A loader that answers when it is told to."""

    loader: Loader
    go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self, reads: Sequence[Read]) -> Rows:
        self.asked.set()
        answer = await self.loader.load(reads)
        await self.go.wait()
        return answer

    async def ready(self) -> None:
        await self.loader.ready()


def cached(
    redis: Redis,
    source: Loader,
    tally: Counts | None = None,
    mode: Mode = "cache-aside",
    definition: Definition = DEFINITION,
    **policy: float,
) -> CacheAsideLoader:
    """As a process of its own would have it. policy: as in Policy, without early refreshes if it says nothing of them."""
    how = Policy(**({"early": 0.0} | policy))
    cache = Cache(definition, mode, by_pipeline(redis), None, how.lease)
    return CacheAsideLoader(cache, source, definition, how, tally or Counts(), mode)


async def settled(*readings: CacheAsideLoader) -> None:
    """Return when what was read is kept: answers do not wait for it."""
    for reading in readings:
        while reading._tasks:
            await asyncio.wait(reading._tasks)


async def keep(redis: Redis, *reads: Read, source: Loader | None = None, **policy: float) -> None:
    reading = cached(redis, source or MemoryLoader(), None, "cache-aside", DEFINITION, **policy)
    await reading.load(reads)
    await settled(reading)


def key(by: str, value: str, mode: Mode = "cache-aside") -> str:
    return layout.cache_key("User", mode, by, value)


async def entry(redis: Redis, by: str, value: str) -> Entry:
    stored: Any = await redis.get(key(by, value))
    return msgspec.msgpack.decode(stored, type=Entry)


async def age(redis: Redis, by: str, value: str, seconds: float, took_ms: float = 1) -> None:
    """As if so much time had passed since it was read."""
    found, ms = await entry(redis, by, value), round(seconds * 1000)
    older = msgspec.structs.replace(found, read_ms=found.read_ms - ms, fresh_until_ms=found.fresh_until_ms - ms, took_ms=took_ms)
    await redis.set(key(by, value), msgspec.msgpack.encode(older), keepttl=True)
