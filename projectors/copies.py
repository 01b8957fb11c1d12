"""A copy of one generation in another Redis, filled from a view topic: shards, how far each is, and the script that fills them.

It compares and sets as apply.lua does: a shard is filled only from where it is believed to be. Reads no topic.
"""

import secrets
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import msgspec
from redis.asyncio import Redis

from projectors.apply import reached
from projectors.sweeping import pages
from projectors.view_topic import Stamp, Told
from schema import layout
from schema.definition import Definition
from schema.generation import Generation
from schema.layout import Layout
from schema.positions import Watermark
from schema.progress import Progress

# KEYS[1] header of the shard; KEYS[2] its set of keys; then the hashes
# ARGV[1], ARGV[2] build and position expected, '' for none; ARGV[3] MessagePack: anew, whole, header {field, value, …},
#   hashes {{field, value, …} or {} for none, …}
# A shard that is told of anew stays as readable as it was, but for its watermarks; its keys are noted until it is whole.
_FILL = """
local stored = redis.call('HMGET', KEYS[1], 'build', 'filled', 'state')
if (stored[1] or '') ~= ARGV[1] or (stored[2] or '') ~= ARGV[2] then return 0 end
local told = cmsgpack.unpack(ARGV[3])
redis.call('HSET', KEYS[1], unpack(told.header))
if told.anew then
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'state', stored[3] or 'building', unpack(told.header))
  if stored[1] then redis.call('HSET', KEYS[1], 'owed', '1') end
end
if told.whole then
  redis.call('HDEL', KEYS[1], 'owed')
  redis.call('DEL', KEYS[2])
end
local owed = redis.call('HEXISTS', KEYS[1], 'owed') == 1
for i, hash in ipairs(told.hashes) do
  local key = KEYS[i + 2]
  redis.call('DEL', key)
  if #hash > 0 then
    redis.call('HSET', key, unpack(hash))
    if owed then redis.call('SADD', KEYS[2], key) end
  end
end
return 1
"""
# as above, then keys that are there: those go that were not told of
_SIFT = """
if redis.call('HEXISTS', KEYS[1], 'owed') == 0 then return 0 end
local gone = 0
for i = 3, #KEYS do
  if redis.call('SISMEMBER', KEYS[2], KEYS[i]) == 0 then gone = gone + redis.call('UNLINK', KEYS[i]) end
end
return gone
"""


class Held(NamedTuple):
    """A shard as it is believed to be. filled: the topic below that offset is in it; its time is the highest version. None: not there.

    series: of the versions that are in it; "" where it is to be begun anew, whatever comes. owed: it is being told of as a whole again,
    and holds what may be no more.
    """

    build: str = ""
    filled: Watermark | None = None
    series: str = ""
    owed: bool = False


class Fill(NamedTuple):
    """What a shard is to become. at: the Held that it must be. hashes: field, value, … by what follows the tag.

    anew: it is told of from its beginning. whole: all of it has been told, and what was not is gone.
    """

    shard: int
    at: Held
    then: Held
    watermarks: Mapping[str, str]
    hashes: Mapping[str, Sequence[str]]
    anew: bool = False
    whole: bool = False


class Copy:
    """Of one generation. redis: answers bytes; the second one. record: as it is there."""

    def __init__(self, redis: Redis, definition: Definition, record: Generation) -> None:
        self._redis, self.record = redis, record
        self.layout = Layout(definition.name, record.name, record.shards)
        self.held: dict[int, Held] = {}
        self.as_of_ms = 0
        self._fill, self._sift = redis.register_script(_FILL), redis.register_script(_SIFT)

    @property
    def newest(self) -> int:
        """The highest version of all shards, 0 if there is none."""
        return max((held.filled.ts_ms for held in self.held.values() if held.filled), default=0)

    @classmethod
    def of(cls, redis: Redis, definition: Definition, stamp: Stamp) -> Self:
        """One that is not there yet."""
        codes, prefixes = layout.codes(definition), layout.prefixes(definition)
        name, build = stamp.generation, secrets.token_hex(2)
        record = Generation(name, build, stamp.definition, stamp.shards, codes, prefixes, {}, {}, {}, by_itself=False, copied=True)
        return cls(redis, definition, msgspec.structs.replace(record, state="building"))

    async def look(self, shards: Iterable[int]) -> None:
        """Read how far these shards are, and up to when the copy has everything. Raises StoreUnavailable."""
        wanted, pipeline = list(shards), self._redis.pipeline(transaction=False)
        fields = [field.decode() for field in (layout.BUILD, layout.FILLED, layout.SERIES, layout.OWED)]
        for shard in wanted:
            pipeline.hmget(self.layout.headers[shard], fields)
        pipeline.hvals(self.layout.progress)
        *headers, times = await reached(pipeline.execute())
        self.held |= {shard: _held(*stored) for shard, stored in zip(wanted, headers, strict=True)}
        self.as_of_ms = min((Progress.decode(told).ms for told in times), default=0)

    async def fill(self, fills: Sequence[Fill]) -> set[int]:
        """Which of these shards were what they had to be, and are filled. Raises StoreUnavailable."""
        if not fills:
            return set()
        pipeline = self._redis.pipeline(transaction=False)
        for one in fills:
            prefix = self.layout.rows_prefix(one.shard, one.then.build).removesuffix(":")
            keys = (self.layout.headers[one.shard], self.layout.changed[one.shard], *(prefix + at for at in one.hashes))
            expected = (one.at.build, one.at.filled.encode() if one.at.filled else b"")
            await self._fill(keys, (*expected, _packed(one)), client=pipeline)
        replies = await reached(pipeline.execute())
        done = {one.shard for one, reply in zip(fills, replies, strict=True) if reply == 1}
        self.held |= {one.shard: one.then for one in fills if one.shard in done}
        return done

    async def sift(self, shards: Container[int]) -> int:
        """Remove what these shards hold that was not told of since they were begun anew; how many keys. Raises StoreUnavailable."""
        numbers = {header.rpartition(":")[2]: shard for shard, header in enumerate(self.layout.headers)}
        gone = 0
        async for page in pages(self._redis, self.layout.all_pattern()):
            found: dict[int, list[str]] = {}
            for key in page:
                shard = numbers[key[key.find("{") : key.find("}") + 1]]
                if shard in shards and not key.endswith("}"):
                    found.setdefault(shard, []).append(key)
            pipeline = self._redis.pipeline(transaction=False)
            for shard, keys in found.items():
                await self._sift((self.layout.headers[shard], self.layout.changed[shard], *keys), client=pipeline)
            gone += sum(await reached(pipeline.execute()))
        return gone

    def hash(self, told: Told) -> Sequence[str]:
        """A row or claimants as they are stored here: field, value, … Fields that the definition has not are left out."""
        flat = [text for pair in told.claimants.items() for text in pair]
        for name, fragment in told.row.items():
            if name in self.record.codes:
                stored = bytes(fragment) if name not in self.record.prefixes else layout.cut(bytes(fragment), self.record.prefixes[name])
                flat += [self.record.codes[name], stored.decode()]
        return flat


def _packed(fill: Fill) -> bytes:
    filled = fill.then.filled
    header = {layout.BUILD: fill.then.build, layout.SERIES: fill.then.series, layout.FILLED: filled.encode().decode() if filled else ""}
    flat = [text for field, value in header.items() for text in (field.decode(), value)]
    flat += [text for pair in fill.watermarks.items() for text in pair]
    return msgspec.msgpack.encode({"anew": fill.anew, "whole": fill.whole, "header": flat, "hashes": list(fill.hashes.values())})


def _held(build: Any, filled: Any, series: Any, owed: Any) -> Held:
    if build is None or filled is None or series is None:
        return Held()
    return Held(build.decode(), Watermark.decode(filled), series.decode(), owed is not None)
