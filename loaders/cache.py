"""What a mode with a cache keeps in Redis, and who may put it there: entries, and leases that a write in between voids.

A lease is as Facebook's memcache has it: who is to refill an entry holds a token, and what was read is kept only while the token is still
there. Who deletes an entry because its row has changed (projectors/invalidate.py) deletes the token with it, so that what was read before
the change is never kept after it. Decides nothing about what is asked when.
"""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from loaders.sending import Begin, Command, Send
from schema import layout, notes
from schema.definition import Definition

# Whatever Redis answers (a replica's READONLY, OOM, somebody else's key) or does not: the cache is optional.
AWAY = (RedisConnectionError, RedisTimeoutError, ResponseError)
# KEYS: the entry, its lease. ARGV: the token, the entry, milliseconds. Sent whole: who refills asks SQL, which costs more
FILL = """if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
return 1"""
# KEYS: the lease. ARGV: the token
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

# (by, value): what an entry is of
Key = tuple[str, str]
# the token of each
Leases = Mapping[Key, str]


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What SQL said at `read_ms` (Unix ms): fragments of `id` and of all fields, for a lookup value of the `id` alone; None: no such row.

    fresh_until_ms: after that it is stale. took_ms: to read it.
    """

    definition: str
    read_ms: int
    fresh_until_ms: int
    took_ms: float
    row: list[bytes] | None


class Unleased(Exception):
    """Redis is away, so nobody can be given a lease."""


class Cache:
    """The entries of one mode. send, begin: see loaders/sending.py. lease_seconds: after that, who refills is taken to have died."""

    def __init__(self, definition: Definition, mode: str, send: Send, begin: Begin | None, lease_seconds: float) -> None:
        self._view, self._fingerprint, self._mode = definition.name, definition.fingerprint, mode
        self._send, self._begin = send, begin
        self._lease_ms = round(lease_seconds * 1000)

    async def get(self, keys: Sequence[Key]) -> dict[Key, Entry]:
        """Those that are there. Raises AWAY."""
        if not keys:
            return {}
        asked = [("GET", self._entry(key)) for key in keys]
        notes.redis(asked)
        stored = await self._send(asked)
        return {key: entry for key, one in zip(keys, stored, strict=True) if (entry := self.decode(one)) is not None}

    def begin(self, keys: Sequence[Key], done: Callable[[list[Entry | None] | None], None]) -> bool:
        """Without awaiting: `done` is called with what is there of each, or with None. False: it will not be called."""
        if self._begin is None:
            return False
        packed = []
        for key in keys:
            text = self._entry(key).encode()
            packed.append(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(text), text))
        return self._begin(b"".join(packed), len(keys), partial(self._begun, done))

    def _begun(self, done: Callable[[list[Entry | None] | None], None], replies: list[Any] | Exception) -> None:
        done(None if isinstance(replies, Exception) else [self.decode(reply) for reply in replies])

    async def lease(self, keys: Sequence[Key]) -> tuple[Leases, dict[Key, Entry]]:
        """Of those that are ours to refill now, since nobody else is at it; and what is there by now of each. Raises Unleased."""
        tokens = {key: secrets.token_hex(8) for key in keys}
        leased: list[Command] = [("SET", self._lease(key), token, "NX", "PX", str(self._lease_ms)) for key, token in tokens.items()]
        # behind them: who had a lease before us has filled what it is of
        there = [("GET", self._entry(key)) for key in keys]
        notes.redis([*leased, *there])
        try:
            replies = await self._send([*leased, *there])
        except AWAY as away:
            raise Unleased from away
        count = len(tokens)
        entries = {key: entry for key, one in zip(keys, replies[count:], strict=True) if (entry := self.decode(one)) is not None}
        return {key: tokens[key] for key, reply in zip(keys, replies[:count], strict=True) if reply}, entries

    async def fill(self, entries: Mapping[Key, Entry], leases: Leases, keep_ms: int) -> None:
        """Keep those whose lease is still ours, for so long after they are stale. Raises AWAY."""
        filled: list[Command] = []
        now = now_ms()
        for key, entry in entries.items():
            if key in leases and (left := entry.fresh_until_ms + keep_ms - now) > 0:
                text = self._entry(key)
                filled.append(("EVAL", FILL, "2", text, layout.lease_key(text), leases[key], msgspec.msgpack.encode(entry), str(left)))
        if filled:
            await self._send(filled)

    async def release(self, leases: Leases) -> None:
        """Let others refill them. Redis being away is no matter: leases end by themselves."""
        with suppress(*AWAY):
            if leases:
                await self._send([("EVAL", RELEASE, "1", self._lease(key), token) for key, token in leases.items()])

    def decode(self, stored: Any) -> Entry | None:
        """None for what another definition kept, too, and for what is none of ours."""
        if not isinstance(stored, bytes):
            return None
        try:
            entry = _DECODER.decode(stored)
        except msgspec.DecodeError:
            return None
        return entry if entry.definition == self._fingerprint else None

    def _entry(self, key: Key) -> str:
        return layout.cache_key(self._view, self._mode, *key)

    def _lease(self, key: Key) -> str:
        return layout.lease_key(self._entry(key))


_DECODER = msgspec.msgpack.Decoder(Entry)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
