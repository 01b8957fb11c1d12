"""Reads rows from Redis as far as they were read before, the others from `source`, and keeps those for a while."""

import asyncio
import random
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Protocol

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from schema import layout, notes
from schema.definition import Definition
from schema.loader import Loader, Read, Row, Rows

# Whatever Redis answers (a replica's READONLY, OOM, somebody else's key) or does not: the cache is optional.
AWAY = (RedisConnectionError, RedisTimeoutError, ResponseError)
JITTER = 0.1

Outcome = Literal["hit", "shared", "miss", "error"]


class Tally(Protocol):
    """Counts what the cache was good for."""

    def count(self, outcome: Outcome, rows: int) -> None:
        """hit: rows that were kept; shared: that another request was getting already; miss; error: not looked for or not kept."""
        ...


class Cached(msgspec.Struct, frozen=True, array_like=True):
    """A row as it is kept: fragments of `id` and of all fields. read_ms: when SQL was asked (Unix ms)."""

    definition: str
    read_ms: int
    row: list[bytes]


# (by, value): what a row is kept under, and what a flight is for
_Key = tuple[str, str]
_Found = dict[_Key, Cached | None]
_Flights = dict[_Key, asyncio.Future[Cached | None]]


class CacheAsideLoader:
    """Mode cache-aside.

    source: asked for what is not kept; one load for all of a request, and one at a time for a row, however many requests
    want it. ttl_seconds: how long a row is kept, give or take a tenth, so that rows read together do not go together.
    """

    def __init__(self, redis: Redis, source: Loader, definition: Definition, ttl_seconds: float, tally: Tally) -> None:
        self._redis = redis
        self._source = source
        self._definition = definition
        self._ttl_seconds = ttl_seconds
        self._tally = tally
        self._fields = ("id", *(f.name for f in definition.fields))
        self._places = {name: place for place, name in enumerate(self._fields)}
        self._flights: _Flights = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self, reads: Sequence[Read]) -> Rows:
        """as_of_ms is the oldest row's read time. Raises what the source raises."""
        now_ms = _now_ms()
        flights = self._board(list(dict.fromkeys((read.by, read.value) for read in reads)))
        if flights:
            # unlike an await of each, it leaves them alone when this request is cancelled: others wait for them too
            await asyncio.wait(flights.values())
        found = {key: flight.result() for key, flight in flights.items()}
        rows = [self._project(found[read.by, read.value], read.fields) for read in reads]
        return Rows(rows, "cache-aside", None, min((cached.read_ms for cached in found.values() if cached), default=now_ms))

    async def ready(self) -> None:
        """Raises what the source raises: without it only kept rows would be answered."""
        await self._source.ready()

    def _project(self, cached: Cached | None, fields: Sequence[str]) -> Row | None:
        return None if cached is None else [cached.row[self._places[name]] for name in fields]

    def _board(self, keys: Sequence[_Key]) -> _Flights:
        """The flight of each key; those that are not under way take off together."""
        loop = asyncio.get_running_loop()
        mine: _Flights = {key: loop.create_future() for key in keys if key not in self._flights}
        self._flights |= mine
        self._tally.count("shared", len(keys) - len(mine))
        if mine:
            task = loop.create_task(self._fly(mine))
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, mine))
        return {key: self._flights[key] for key in keys}

    async def _fly(self, mine: _Flights) -> None:
        kept = await self._kept(list(mine))
        self._land(mine, kept)
        missing = [key for key in mine if key not in kept]
        self._tally.count("hit", len(kept))
        self._tally.count("miss", len(missing))
        if missing:
            read = await self._read(missing)
            self._land(mine, read)
            # until it is kept its flight stays: who comes now shall not ask SQL again
            await self._keep(read)

    def _land(self, flights: _Flights, found: _Found) -> None:
        for key, cached in found.items():
            flights[key].set_result(cached)

    def _ended(self, mine: _Flights, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        for key, flight in mine.items():
            if self._flights.get(key) is flight:
                del self._flights[key]
            if error and not flight.done():
                flight.set_exception(error)
                flight.exception()  # seen, even if everybody who waited was cancelled
            flight.cancel()  # which does nothing to one that has landed

    async def _kept(self, keys: list[_Key]) -> _Found:
        first = await self._get(keys)
        # what is kept for a lookup is an id, and the row under that
        ids = {key: ("id", value.decode()) for key, value in first.items() if key[0] != "id"}
        second = await self._get([key for key in dict.fromkeys(ids.values()) if key not in first])
        rows = {key: self._decode(stored) for key, stored in (first | second).items() if key[0] == "id"}
        kept = {key: rows.get(ids.get(key, key)) for key in keys}
        return {key: cached for key, cached in kept.items() if cached is not None and self._bears(cached, key)}

    async def _get(self, keys: list[_Key]) -> dict[_Key, bytes]:
        if not keys:
            return {}
        names = [self._cache_key(key) for key in keys]
        notes.redis([("MGET", *names)])
        try:
            values: list[Any] = await self._redis.mget(names)
        except AWAY:
            self._tally.count("error", len(keys))
            return {}
        return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

    def _decode(self, stored: bytes) -> Cached | None:
        try:
            cached = msgspec.msgpack.decode(stored, type=Cached)
        except msgspec.DecodeError:
            return None
        return cached if cached.definition == self._definition.fingerprint else None

    def _bears(self, cached: Cached, key: _Key) -> bool:
        by, value = key
        return by == "id" or cached.row[self._places[by]] == layout.encode(value)

    async def _read(self, keys: list[_Key]) -> _Found:
        read_ms = _now_ms()
        rows = await self._source.load([Read(by, value, self._fields) for by, value in keys])
        made = (None if row is None else Cached(self._definition.fingerprint, read_ms, list(row)) for row in rows.rows)
        return dict(zip(keys, made, strict=True))

    async def _keep(self, found: _Found) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for key, cached in found.items():
            if cached is not None:
                row_id: str = msgspec.json.decode(cached.row[0])
                pipeline.set(self._cache_key(("id", row_id)), msgspec.msgpack.encode(cached), px=self._ttl_ms())
                if key[0] != "id":
                    pipeline.set(self._cache_key(key), row_id, px=self._ttl_ms())
        try:
            await pipeline.execute()
        except AWAY:
            self._tally.count("error", len(found))

    def _cache_key(self, key: _Key) -> str:
        return layout.cache_key(self._definition.name, *key)

    def _ttl_ms(self) -> int:
        return round(self._ttl_seconds * 1000 * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - it spreads, it hides nothing


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
