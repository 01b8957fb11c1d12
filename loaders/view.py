"""Reads the materialized view: one pipelined round trip for rows that are there. Never writes, never reads what is missing as 0."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ClusterDownError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from loaders.after import Behind, Guard, Polls
from loaders.live import Live
from loaders.sending import Begin, Command, Send, by_pipeline
from schema import layout, notes, servers
from schema.definition import Definition
from schema.generation import Generation
from schema.loader import BadAfter, FieldMissing, Read, Row, Rows, ViewNotReady, ViewUnavailable
from schema.positions import Token

WATCH_SECONDS = 1.0
# Redis cannot be reached, is loading, or its cluster is down. Not RedisError: a WRONGTYPE or a bad argument is a mistake of ours
# or somebody else's key, and a fallback would hide it.
AWAY = (RedisConnectionError, RedisTimeoutError, ClusterDownError)

# A step yields a shard and a command, is sent its reply (which redis-py types no further), and returns what was to be read.
Asked = tuple[int, Command]
Step = Generator[Asked, Any, Row | None]
Waiting = list[tuple[int, Step, Asked]]


class ViewLoader:
    """Mode view.

    redis: answers bytes (decode_responses off). send: another way to it, see Send; None: by a pipeline of redis-py. begin: one without
    awaiting, to a single server.
    generation: the one to be read, built or not; None: the live one.
    wait_seconds: how long `load_after` waits. The pointer and the progress are read again at most once a second, in the pipeline of a
    load that runs anyway.
    """

    def __init__(
        self,
        redis: Redis,
        definition: Definition,
        generation: str | None = None,
        wait_seconds: float = 1.0,
        send: Send | None = None,
        begin: Begin | None = None,
    ) -> None:
        self._redis = redis
        self._send = send or by_pipeline(redis)
        self._begin = begin
        self._definition = definition
        self._generation = generation
        self._wait_seconds = wait_seconds
        self._polls = Polls(self._pipeline)
        self._lookups = {f.name: f for f in definition.lookups}
        self._live: Live | None = None
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

    def begin(self, reads: Sequence[Read], done: Callable[[Rows | None], None]) -> bool:
        """As ImmediateLoader has it: where the generation is known, was seen within the last second, and all is asked for by its id."""
        live = self._live
        if live is None or self._begin is None or time.monotonic() >= self._watch_at:
            return False
        packed = []
        try:
            for by, value, fields in reads:
                if by != "id":
                    return False
                packed.append(live.way(fields).packed(live.prefixes[live.layout.shard(value)], value))
        except FieldMissing:
            return False
        return self._begin(b"".join(packed), len(reads), partial(self._ended, live, reads, done))

    def _ended(self, live: Live, reads: Sequence[Read], done: Callable[[Rows | None], None], replies: list[Any] | Exception) -> None:
        if isinstance(replies, Exception) or live.met != servers.met(self._redis):
            done(None)
            return
        rows: list[Row] = []
        for (_, value, fields), reply in zip(reads, replies, strict=True):
            # what is not there may have been lost; and an error is told by who is asked again
            row = live.way(fields).row(value, reply) if isinstance(reply, list) and reply.pop(0) is not None else None
            if row is None:
                done(None)
                return
            rows.append(row)
        done(Rows(rows, "view", live.record.name, live.as_of_ms))

    async def load_after(self, reads: Sequence[Read], after: Sequence[Token]) -> Rows:
        """Of shards that have all these writes, in the generation that is live by then. Raises ViewCannotAnswer, NotYet, BadAfter."""
        deadline = time.monotonic() + self._wait_seconds
        live = self._live or await self._open()
        while True:
            try:
                return await self._load(live, reads, after)
            except Behind as behind:
                live = await self._caught_up(live, behind, after, deadline)
            except (ViewNotReady, FieldMissing, BadAfter):
                if time.monotonic() > deadline or await self._is_live(live):
                    raise
                live = await self._open()

    async def ready(self) -> None:
        """Raises ViewUnavailable, ViewNotReady, FieldMissing where the generation was built without a field of the definition."""
        (await self._open()).codes(tuple(f.name for f in self._definition.fields))

    async def _load(self, live: Live, reads: Sequence[Read], after: Sequence[Token] = ()) -> Rows:
        guard = Guard(live, after) if after else None
        steps = [_row(live, read.value, read.fields) if read.by == "id" else self._lookup(live, read) for read in reads]
        rows = await self._run(live, steps, guard)
        if rows is None:
            return await self._load(await self._open(), reads, after)
        if live.met != servers.met(self._redis):
            # another may have lost what the progress, read from the one before, says that it has
            self._watch_at = 0.0
            return await self._load(live, reads, after)
        return Rows(rows, "view", live.record.name, live.as_of(servers.run_ids(self._redis)))

    async def _run(self, live: Live, steps: list[Step], guard: Guard | None) -> list[Row | None] | None:
        """Run all steps abreast, a pipeline per round. None: another generation is live by now. Raises Behind."""
        rows: list[Row | None] = [None] * len(steps)
        waiting = [(place, step, next(step)) for place, step in enumerate(steps)]
        # ahead of the rows on their connection: what the progress covers, the rows show
        head = watch = self._watch(live)
        shards: Sequence[int] = ()
        met = servers.met(self._redis)
        while waiting:
            if guard:
                shards = sorted({shard for _, _, (shard, _) in waiting})
                head = [*watch, *map(guard.command, shards)]
            replies = await self._asked(watch, [*head[len(watch) :], *(command for _, _, (_, command) in waiting)])
            if watch:
                live.progress(replies[1], met)
                if self._generation is None and not live.is_named(replies[0]):
                    return None
            if guard:
                guard.check(shards, replies[len(watch) : len(head)])
            waiting = _advance(waiting, replies[len(head) :], rows)
            head = watch = []
        return rows

    async def _asked(self, watch: Sequence[Command], commands: Sequence[Command]) -> list[Any]:
        """The replies to both, those to `watch` from before the others: in a Redis Cluster, that is not so in one pipeline."""
        if watch and servers.run_ids(self._redis) is not None:
            return [*await self._pipeline(watch), *await self._pipeline(commands)]
        return await self._pipeline([*watch, *commands])

    async def _caught_up(self, live: Live, behind: Behind, after: Sequence[Token], deadline: float) -> Live:
        """What to read next: once these shards have the writes, or are no longer what they were. Raises NotYet."""
        if behind.builds:
            if not await self._is_live(live):
                return await self._open()
            for shard, build in behind.builds.items():
                live.moved(shard, build)
        guard = Guard(live, after)
        commands = [("GET", layout.live_key(self._definition.name)), *map(guard.command, behind.shards)]
        while True:
            pointer, *headers = await self._polls.ask(commands)
            if self._generation is None and not live.is_named(pointer):
                return await self._open()
            if not guard.must_wait(behind.shards, headers):
                return live
            if time.monotonic() > deadline:
                raise guard.not_yet(headers, self._wait_seconds)

    def _watch(self, live: Live) -> list[Command]:
        now = time.monotonic()
        if now < self._watch_at:
            return []
        self._watch_at = now + WATCH_SECONDS
        return [("GET", layout.live_key(self._definition.name)), ("HGETALL", live.layout.progress)]

    def _lookup(self, live: Live, read: Read) -> Step:
        value = layout.encode(read.value)
        claimants = yield from self._claimants(live, read)
        for row_id in claimants:
            row = yield from _row(live, row_id, (read.by, *read.fields))
            # a claim outlives the name until the release has come, from another partition
            if row is not None and row[0] == value:
                return row[1:]
        return None

    def _claimants(self, live: Live, read: Read) -> Generator[Asked, Any, list[str]]:
        shard = live.layout.shard(read.value)
        while True:
            build = live.builds[shard]
            key = live.layout.claims_prefix(shard, build, self._lookups[read.by]) + read.value
            claims: Mapping[bytes, bytes] = yield shard, ("HGETALL", key)
            if claims or (yield from _current_build(live, shard)) == build:
                return layout.claimed(claims)

    async def _open(self) -> Live:
        """Read the pointer and the record that it points to."""
        view = self._definition.name
        name = self._generation or await self._pointer()
        (stored,) = await self._pipeline([("GET", layout.generation_key(view, name))])
        if stored is None:
            raise ViewNotReady(f"The record of generation {name} of the {view} view is gone.")
        readable = (layout.LIVE, layout.BUILDING) if self._generation else (layout.LIVE,)
        live = Live.of(self._definition, Generation.decode(stored), readable)
        met = servers.met(self._redis)
        (times,) = await self._pipeline([("HGETALL", live.layout.progress)])
        live.progress(times, met)
        self._live, self._watch_at = live, time.monotonic() + WATCH_SECONDS
        return live

    async def _pointer(self) -> str:
        view = self._definition.name
        (pointer,) = await self._pipeline([("GET", layout.live_key(view))])
        if pointer is None:
            raise ViewNotReady(f"No generation of the {view} view is live yet; one is, once the projector has built it.")
        return str(pointer.decode())

    async def _is_live(self, live: Live) -> bool:
        pointer, stored = await self._pipeline([("GET", layout.live_key(self._definition.name)), ("GET", live.key)])
        return bool(live.is_named(pointer) or self._generation) and live.is_same(stored)

    async def _pipeline(self, commands: Sequence[Command]) -> list[Any]:
        notes.redis(commands)
        try:
            return await self._send(commands)
        except AWAY as error:
            raise ViewUnavailable("Redis cannot be reached.") from error


def _row(live: Live, row_id: str, fields: tuple[str, ...]) -> Step:
    way = live.way(fields)
    shard = live.layout.shard(row_id)
    while True:
        build = live.builds[shard]
        marker, *stored = yield shard, way.command(live.layout.rows_prefix(shard, build) + row_id)
        if marker is not None:
            row = way.row(row_id, stored)
            if row is None:
                raise FieldMissing(f"{live.layout.view} {row_id} lacks field {way.missing(stored)!r} in generation {live.record.name}.")
            return row
        if (yield from _current_build(live, shard)) == build:
            return None


def _current_build(live: Live, shard: int) -> Generator[Asked, Any, str]:
    """What is not there is unknown only if its shard is live, and only in the build that the header names."""
    state, stored_build = yield shard, ("HMGET", live.layout.headers[shard], layout.STATE.decode(), layout.BUILD.decode())
    build = live.build(shard, state, stored_build)
    if build != live.builds[shard]:
        stored = yield shard, ("GET", live.key)
        if not live.is_same(stored):
            raise ViewNotReady(f"Generation {live.record.name} was lost and is being built again.")
        live.moved(shard, build)
    return live.builds[shard]


def _advance(waiting: Waiting, replies: Sequence[Any], rows: list[Row | None]) -> Waiting:
    """Hand each step its reply; what is read goes to its place in `rows`, the others wait for their next command's reply."""
    still: Waiting = []
    for (place, step, _), reply in zip(waiting, replies, strict=True):
        try:
            still.append((place, step, step.send(reply)))
        except StopIteration as read:
            rows[place] = read.value
    return still
