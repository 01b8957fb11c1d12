"""Reads the materialized view: one pipelined round trip for rows that are there. Never writes, never reads what is missing as 0."""

import asyncio
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ClusterDownError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from schema import layout
from schema.definition import Definition
from schema.generation import Generation
from schema.loader import FieldMissing, Read, Row, Rows, ViewNotReady, ViewUnavailable

WATCH_SECONDS = 1.0
# Redis cannot be reached, is loading, or its cluster is down. Not RedisError: a WRONGTYPE or a bad argument is a mistake of ours
# or somebody else's key, and a fallback would hide it.
AWAY = (RedisConnectionError, RedisTimeoutError, ClusterDownError)

Command = tuple[str, ...]
# A step yields a command, is sent its reply (which redis-py types no further), and returns what was to be read.
Step = Generator[Command, Any, Row | None]
Waiting = list[tuple[int, Step, Command]]


@dataclass(slots=True)
class _Live:
    """The live generation as last seen.

    key: of its record. builds: of each shard. marker: the code of a field that every row with a profile has. readable: states of a
    shard in which what is not there is unknown.
    """

    record: Generation
    key: str
    layout: layout.Layout
    marker: str
    builds: list[str]
    readable: tuple[bytes, ...]
    as_of_ms: int


class ViewLoader:
    """Mode view.

    redis: answers bytes (decode_responses off). generation: the one to be read, built or not; None: the live one.
    The pointer and the progress are read again at most once a second, in the pipeline of a load that runs anyway.
    """

    def __init__(self, redis: Redis, definition: Definition, generation: str | None = None) -> None:
        self._redis = redis
        self._definition = definition
        self._generation = generation
        self._lookups = {f.name: f for f in definition.lookups}
        self._live: _Live | None = None
        self._watch_at = 0.0

    async def load(self, reads: Sequence[Read]) -> Rows:
        """Rows that are there cost one round trip, rows that are not a second, for their shards' headers. Raises ViewCannotAnswer."""
        live = self._live or await self._open()
        try:
            return await self._load(live, reads)
        except (ViewNotReady, FieldMissing):
            if await self._is_live(live):
                raise
            return await self._load(await self._open(), reads)

    async def ready(self) -> None:
        """Raises ViewUnavailable or ViewNotReady."""
        await self._open()

    async def _load(self, live: _Live, reads: Sequence[Read]) -> Rows:
        steps = [_row(live, read.value, read.fields) if read.by == "id" else self._lookup(live, read) for read in reads]
        rows = await self._run(live, steps)
        if rows is None:
            return await self._load(await self._open(), reads)
        return Rows(rows, "view", live.record.name, live.as_of_ms)

    async def _run(self, live: _Live, steps: list[Step]) -> list[Row | None] | None:
        """Run all steps abreast, a pipeline per round. None: another generation is live by now."""
        rows: list[Row | None] = [None] * len(steps)
        waiting = [(place, step, next(step)) for place, step in enumerate(steps)]
        # ahead of the rows on their connection: what the progress covers, the rows show
        watch = self._watch(live)
        while waiting:
            replies = await self._pipeline([*watch, *(command for _, _, command in waiting)])
            if watch and not _still(live, *replies[:2]) and self._generation is None:
                return None
            waiting = _advance(waiting, replies[len(watch) :], rows)
            watch = []
        return rows

    def _watch(self, live: _Live) -> list[Command]:
        now = time.monotonic()
        if now < self._watch_at:
            return []
        self._watch_at = now + WATCH_SECONDS
        return [("GET", layout.live_key(self._definition.name)), ("HGETALL", live.layout.progress)]

    def _lookup(self, live: _Live, read: Read) -> Step:
        value = layout.encode(read.value)
        claimants = yield from self._claimants(live, read)
        for row_id in claimants:
            row = yield from _row(live, row_id, (read.by, *read.fields))
            # a claim outlives the name until the release has come, from another partition
            if row is not None and row[0] == value:
                return row[1:]
        return None

    def _claimants(self, live: _Live, read: Read) -> Generator[Command, Any, list[str]]:
        shard = live.layout.shard(read.value)
        while True:
            build = live.builds[shard]
            claims: Mapping[bytes, bytes] = yield ("HGETALL", live.layout.claims_prefix(shard, build, self._lookups[read.by]) + read.value)
            if claims or (yield from _current_build(live, shard)) == build:
                return layout.claimed(claims)

    async def _open(self) -> _Live:
        """Read the pointer and the record that it points to."""
        view = self._definition.name
        name = self._generation or await self._pointer()
        (stored,) = await self._pipeline([("GET", layout.generation_key(view, name))])
        if stored is None:
            raise ViewNotReady(f"The record of generation {name} of the {view} view is gone.")
        live = self._opened(Generation.decode(stored))
        (times,) = await self._pipeline([("HGETALL", live.layout.progress)])
        live.as_of_ms = _as_of(times)
        self._live, self._watch_at = live, time.monotonic() + WATCH_SECONDS
        return live

    async def _pointer(self) -> str:
        view = self._definition.name
        (pointer,) = await self._pipeline([("GET", layout.live_key(view))])
        if pointer is None:
            raise ViewNotReady(f"No generation of the {view} view is live yet; one is, once the projector has built it.")
        return str(pointer.decode())

    def _opened(self, record: Generation) -> _Live:
        marker = next((record.codes[f.name] for f in self._definition.columns if f.name in record.codes), None)
        if marker is None:
            raise FieldMissing(f"Generation {record.name} has no column of the {self._definition.name} view; build a new generation.")
        keys = layout.Layout(self._definition.name, record.name, record.shards)
        key = layout.generation_key(self._definition.name, record.name)
        readable = (layout.LIVE, layout.BUILDING) if self._generation else (layout.LIVE,)
        return _Live(record, key, keys, marker, [record.build] * record.shards, readable, as_of_ms=0)

    async def _is_live(self, live: _Live) -> bool:
        pointer, stored = await self._pipeline([("GET", layout.live_key(self._definition.name)), ("GET", live.key)])
        return bool(pointer == live.record.name.encode() or self._generation) and _is_same(live, stored)

    async def _pipeline(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            # redis-py closes the connection of an await that is cancelled: a wave of time-outs would become a wave of connects
            return await asyncio.shield(pipeline.execute())
        except AWAY as error:
            raise ViewUnavailable("Redis cannot be reached.") from error


def _row(live: _Live, row_id: str, fields: tuple[str, ...]) -> Step:
    codes = _codes(live, fields)
    shard = live.layout.shard(row_id)
    while True:
        build = live.builds[shard]
        marker, *stored = yield ("HMGET", live.layout.rows_prefix(shard, build) + row_id, live.marker, *codes)
        if marker is not None:
            return _render(live, row_id, fields, stored)
        if (yield from _current_build(live, shard)) == build:
            return None


def _current_build(live: _Live, shard: int) -> Generator[Command, Any, str]:
    """What is not there is unknown only if its shard is live, and only in the build that the header names."""
    state, build = yield ("HMGET", live.layout.headers[shard], layout.STATE.decode(), layout.BUILD.decode())
    if state not in live.readable or build is None:
        found = "lost" if state is None else state.decode()
        raise ViewNotReady(f"Shard {shard} of generation {live.record.name} is {found}; try again when it is rebuilt.")
    if build != live.builds[shard].encode():
        stored = yield ("GET", live.key)
        if not _is_same(live, stored):
            raise ViewNotReady(f"Generation {live.record.name} was lost and is being built again.")
        live.builds[shard] = build.decode()
    return live.builds[shard]


def _is_same(live: _Live, stored: bytes | None) -> bool:
    """Whether a record is of the generation as it was opened when it was last seen, and not of one opened anew under its name."""
    return stored is not None and Generation.decode(stored).build == live.record.build


def _codes(live: _Live, fields: tuple[str, ...]) -> list[str]:
    try:
        return [live.record.codes[name] for name in fields if name != "id"]
    except KeyError as unknown:
        raise FieldMissing(f"Generation {live.record.name} was built without field {unknown}; build a new generation.") from unknown


def _render(live: _Live, row_id: str, fields: tuple[str, ...], stored: list[bytes | None]) -> Row:
    values = iter(stored)
    prefixes = live.record.prefixes
    row: list[bytes] = []
    for name in fields:
        value = layout.encode(row_id) if name == "id" else next(values)
        if value is None:
            raise FieldMissing(f"{live.layout.view} {row_id} lacks field {name!r} in generation {live.record.name}.")
        row.append(layout.uncut(value, prefixes[name]) if name in prefixes else value)
    return row


def _advance(waiting: Waiting, replies: Sequence[Any], rows: list[Row | None]) -> Waiting:
    """Hand each step its reply; what is read goes to its place in `rows`, the others wait for their next command's reply."""
    still: Waiting = []
    for (place, step, _), reply in zip(waiting, replies, strict=True):
        try:
            still.append((place, step, step.send(reply)))
        except StopIteration as read:
            rows[place] = read.value
    return still


def _still(live: _Live, pointer: bytes | None, times: Mapping[bytes, bytes]) -> bool:
    live.as_of_ms = _as_of(times)
    return pointer == live.record.name.encode()


def _as_of(times: Mapping[bytes, bytes]) -> int:
    return min(map(int, times.values()), default=0)
