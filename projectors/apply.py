"""Calls into Redis, exactly once: sends apply.lua and says what its answer means. Knows no Kafka."""

import hashlib
from collections.abc import Awaitable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ClusterDownError, NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from projectors.calls import Advance, Call
from projectors.exchange import Packed, exchange_of, masters_of
from schema import layout, progress, servers
from schema.definition import Definition
from schema.generation import Generation
from schema.layout import Layout
from schema.positions import Partition, Watermark
from schema.seen import Seen

T = TypeVar("T")
# Redis said so before the first write; the same call may go through later
_LATER = (ClusterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError)
# the same, for which redis-py has no class: too few replicas, a disk that is full
_LATER_WORDS = ("NOREPLICAS", "MISCONF")
# all of a header at once: two who open a shard at the same time give it different builds
_OPEN = "if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], unpack(ARGV)) end"
# only a header that is there, and of this build: one made by this would have no watermarks
_FINISH = """
local header = redis.call('HMGET', KEYS[1], 'state', 'build')
if header[1] == 'building' and header[2] == ARGV[1] then redis.call('HSET', KEYS[1], 'state', 'live') end
"""
SCRIPT = Path(__file__).with_name("apply.lua").read_text()
Way = tuple[bytes, bytes]


def ways(script: str) -> tuple[Way, Way]:
    """How a call names the script: by its digest, and whole, for a Redis that does not know it or has forgotten it."""
    digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    return (b"EVALSHA", digest.encode()), (b"EVAL", script.encode())


BY_DIGEST, WHOLE = ways(SCRIPT)


class StoreUnavailable(Exception):
    """Redis cannot be reached, or answered no more: whether the calls were carried out is not known. Read the watermarks again."""


class ShardFailed(Exception):
    """Redis refused a call for what it found in the shard, or failed half-way; the message says which. Never sent again by itself."""


class EvictionAllowed(Exception):
    """Redis may throw a part of the view away to make room; the message says what to set."""


class Applied(NamedTuple):
    """The call was carried out."""


class Found(NamedTuple):
    """The call changed nothing, since this is what is stored: the shard's build and a watermark per advance, None if absent."""

    build: str | None
    watermarks: Sequence[Watermark | None]


Reply = Applied | Found


class Outcome(Enum):
    """What a stored watermark says of the one that was expected."""

    DONE = "it is the new one: our own retry"
    AHEAD = "someone else has applied this, or more"
    BEHIND = "writes were lost"
    ABSENT = "the shard was lost, or the generation dropped"
    OTHER_TOPIC = "the topic was deleted and made anew"


def judge(advance: Advance, stored: Watermark | None) -> Outcome:
    """Compare what is stored with what was expected."""
    if stored is None:
        return Outcome.ABSENT
    if stored.topic_id != advance.expected.topic_id:
        return Outcome.OTHER_TOPIC
    if stored == advance.new:
        return Outcome.DONE
    return Outcome.AHEAD if stored.offset >= advance.expected.offset else Outcome.BEHIND


class Header(NamedTuple):
    """A shard's header as read: None where it is absent. seen: what its rows from SQL have in them of what the log tells."""

    state: bytes | None
    build: str | None
    watermarks: Mapping[str, Watermark]
    seen: Seen | None = None


class Store(Protocol):
    """Where the view is kept."""

    async def headers(self) -> Sequence[Header]:
        """The header of each shard. Raises StoreUnavailable."""
        ...

    async def apply(self, calls: Sequence[Call]) -> Sequence[Reply]:
        """Carry out the calls, each of its own. Raises StoreUnavailable, ShardFailed."""
        ...

    async def report(self, as_of_ms: Mapping[Partition, int]) -> None:
        """Tell readers up to when the view has each partition. Raises StoreUnavailable."""
        ...

    async def open(self, headers: Mapping[int, Header]) -> None:
        """Write the headers of these shards where there are none. Raises StoreUnavailable."""
        ...

    async def finish(self, builds: Mapping[int, str]) -> None:
        """Let readers believe these shards, where they are building and still of this build. Raises StoreUnavailable."""
        ...


class RedisStore:
    """A generation of the view in Redis.

    redis: answers bytes. Its own retry is used: a call may be carried out twice, which the watermarks make harmless.
    """

    def __init__(self, redis: Redis, keys: Layout, marker: str) -> None:
        self._redis = redis
        self._layout = keys
        self._marker = marker
        self._exchange = exchange_of(redis)
        self._met: int | None = None

    @classmethod
    def of(cls, redis: Redis, definition: Definition, record: Generation) -> Self:
        """The store of a generation. One of another definition can be looked at, and not be written."""
        keys = Layout(definition.name, record.name, record.shards)
        return cls(redis, keys, record.codes.get(definition.columns[0].name, ""))

    async def headers(self) -> Sequence[Header]:
        while True:
            met = servers.met(self._redis)
            pipeline = self._redis.pipeline(transaction=False)
            for key in self._layout.headers:
                pipeline.hgetall(key)
            found = [read_header(stored) for stored in await reached(pipeline.execute())]
            if met == servers.met(self._redis):
                self._met = met
                return found

    async def apply(self, calls: Sequence[Call]) -> Sequence[Reply]:
        replies = await self._evaluate(calls)
        return [_read(call, reply) for call, reply in zip(calls, replies, strict=True)]

    async def report(self, as_of_ms: Mapping[Partition, int]) -> None:
        if as_of_ms:
            met = servers.run_ids(self._redis)
            fields = [text for p, ms in as_of_ms.items() for text in (str(p), progress.encode(ms, met))]
            command: bytes = hiredis.pack_command(("HSET", self._layout.progress, *fields))  # type: ignore[arg-type]  # as below
            await self._exchanged([Packed(self._layout.progress, command)])

    async def open(self, headers: Mapping[int, Header]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for shard, header in headers.items():
            fields: list[str | bytes] = [layout.STATE, header.state or b"", layout.BUILD, header.build or ""]
            for partition, watermark in header.watermarks.items():
                fields += [partition, watermark.encode()]
            if header.seen is not None:
                fields += [layout.SEEN, header.seen.encode()]
            pipeline.eval(_OPEN, 1, self._layout.headers[shard], *fields)
        await reached(pipeline.execute())

    async def finish(self, builds: Mapping[int, str]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for shard, build in builds.items():
            pipeline.eval(_FINISH, 1, self._layout.headers[shard], build)
        await reached(pipeline.execute())

    async def _evaluate(self, calls: Sequence[Call]) -> list[Any]:
        replies = await self._send(calls, BY_DIGEST)
        unknown = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            for place, reply in zip(unknown, await self._send([calls[place] for place in unknown], WHOLE), strict=True):
                replies[place] = reply
        return replies

    async def _send(self, calls: Sequence[Call], script: Way) -> list[Any]:
        return await self._exchanged([Packed(self._layout.headers[call.shard], self._packed(call, script)) for call in calls])

    async def _exchanged(self, commands: Sequence[Packed]) -> list[Any]:
        return await reached(self._exchange.exchange(commands, self._check))

    def _check(self) -> None:
        """Raises StoreUnavailable where the headers were read last from another server, or another has been met since."""
        if self._met is not None and servers.met(self._redis) != self._met:
            raise StoreUnavailable("Redis was restarted or failed over: what it had acknowledged may be lost")

    def _packed(self, call: Call, script: Way) -> bytes:
        watermarks: list[bytes | str] = []
        for advance in call.advances:
            watermarks += [str(advance.partition), advance.expected.encode(), advance.new.encode()]
        own = (self._layout.headers[call.shard], self._layout.changed[call.shard])
        head = (*script, len(own) + len(call.keys), *own)
        tail = (call.build, self._marker, len(call.advances), *watermarks, call.effects)
        # its stub means a tuple of one, it takes any
        packed: bytes = hiredis.pack_command((*head, *call.keys, *tail))  # type: ignore[arg-type]
        return packed


async def check_eviction(redis: Redis) -> None:
    """Raises EvictionAllowed, StoreUnavailable."""
    for master in await reached(masters_of(redis)):
        await _check_eviction(master)


async def _check_eviction(redis: Redis) -> None:
    memory = await reached(redis.info("memory"))
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise EvictionAllowed(
            f"Redis runs with maxmemory-policy {policy}, so it may drop users to make room and their counts would be lost. "
            "Set it to noeviction: `redis-cli config set maxmemory-policy noeviction`, and in redis.conf."
        )


async def reached(answer: Awaitable[T]) -> T:
    """Await Redis; raises StoreUnavailable where it cannot be reached, or takes no writes for a while."""
    try:
        return await answer
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise StoreUnavailable(f"Redis cannot be reached: {error}") from error
    except ResponseError as refused:
        if _is_for_later(refused):
            raise StoreUnavailable(f"Redis takes no writes: {refused}") from refused
        raise


def _is_for_later(refused: ResponseError) -> bool:
    return isinstance(refused, _LATER) or str(refused).startswith(_LATER_WORDS)


def _read(call: Call, reply: Any) -> Reply:
    if reply == 1:
        return Applied()
    if isinstance(reply, ResponseError):
        if _is_for_later(reply):
            raise StoreUnavailable(f"Redis takes no writes: {reply}")
        if "failed half-way" in str(reply):
            raise ShardFailed(f"shard {call.shard}: Redis applied only part of the effects. Run `viewgate rebuild`: {reply}")
        raise ShardFailed(f"shard {call.shard}: Redis refused the effects, and nothing of them was applied: {reply}")
    build, *watermarks = reply
    return Found(build.decode() if build else None, [Watermark.decode(stored) if stored else None for stored in watermarks])


def read_header(stored: Mapping[bytes, bytes]) -> Header:
    """A shard's hash as it lies in Redis, empty where there is none."""
    watermarks = {field.decode(): Watermark.decode(value) for field, value in stored.items() if field not in layout.NO_WATERMARKS}
    build, seen = stored.get(layout.BUILD), stored.get(layout.SEEN)
    return Header(stored.get(layout.STATE), build.decode() if build else None, watermarks, Seen.decode(seen) if seen else None)
