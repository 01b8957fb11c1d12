"""A copy of one generation in another Redis, filled from a view topic: shards, how far each is, and the script that fills them.

It compares and sets as apply.lua does: a shard is filled only from where it is believed to be. Reads no topic.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import msgspec
from redis.asyncio import Redis

from projectors.apply import reached
from projectors.view_topic import Stamp, Told
from schema import layout
from schema.definition import Definition
from schema.generation import Generation
from schema.layout import Layout
from schema.positions import Watermark

# KEYS[1] header of the shard; then the hashes
# ARGV[1], ARGV[2] build and position expected, '' for none; ARGV[3] MessagePack: anew, header {field, value, …},
#   hashes {{field, value, …} or {} for none, …}
_FILL = """
local stored = redis.call('HMGET', KEYS[1], 'build', 'filled')
if (stored[1] or '') ~= ARGV[1] or (stored[2] or '') ~= ARGV[2] then return 0 end
local told = cmsgpack.unpack(ARGV[3])
redis.call('HSET', KEYS[1], unpack(told.header))
if told.anew then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], unpack(told.header))
end
for i, hash in ipairs(told.hashes) do
  redis.call('DEL', KEYS[i + 1])
  if #hash > 0 then redis.call('HSET', KEYS[i + 1], unpack(hash)) end
end
return 1
"""


class Held(NamedTuple):
    """A shard as it is believed to be. filled: the topic below that offset is in it; its time is the highest version. None: not there.

    other: the build that it has where it comes from; "" where it is to be begun anew, whatever comes.
    """

    build: str = ""
    filled: Watermark | None = None
    other: str = ""


class Fill(NamedTuple):
    """What a shard is to become. at: the Held that it must be. state: None: as it is. hashes: field, value, … by what follows the tag."""

    shard: int
    at: Held
    then: Held
    state: bytes | None
    watermarks: Mapping[str, str]
    hashes: Mapping[str, Sequence[str]]


class Copy:
    """Of one generation. redis: answers bytes; the second one. record: as it is there."""

    def __init__(self, redis: Redis, definition: Definition, record: Generation) -> None:
        self._redis, self.record = redis, record
        self.layout = Layout(definition.name, record.name, record.shards)
        self.held: dict[int, Held] = {}
        self.as_of_ms = 0
        self._fill = redis.register_script(_FILL)

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
        fields = [field.decode() for field in (layout.BUILD, layout.FILLED, layout.OTHER)]
        for shard in wanted:
            pipeline.hmget(self.layout.headers[shard], fields)
        pipeline.hvals(self.layout.progress)
        *headers, times = await reached(pipeline.execute())
        self.held |= {shard: _held(*stored) for shard, stored in zip(wanted, headers, strict=True)}
        self.as_of_ms = min(map(int, times), default=0)

    async def fill(self, fills: Sequence[Fill]) -> set[int]:
        """Which of these shards were what they had to be, and are filled. Raises StoreUnavailable."""
        if not fills:
            return set()
        pipeline = self._redis.pipeline(transaction=False)
        for one in fills:
            prefix = self.layout.rows_prefix(one.shard, one.then.build).removesuffix(":")
            keys = (self.layout.headers[one.shard], *(prefix + at for at in one.hashes))
            expected = (one.at.build, one.at.filled.encode() if one.at.filled else b"")
            await self._fill(keys, (*expected, _packed(one)), client=pipeline)
        replies = await reached(pipeline.execute())
        done = {one.shard for one, reply in zip(fills, replies, strict=True) if reply == 1}
        self.held |= {one.shard: one.then for one in fills if one.shard in done}
        return done

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
    header = {layout.BUILD: fill.then.build, layout.OTHER: fill.then.other, layout.FILLED: filled.encode().decode() if filled else ""}
    if fill.state is not None:
        header[layout.STATE] = fill.state.decode()
    flat = [text for field, value in header.items() for text in (field.decode(), value)]
    flat += [text for pair in fill.watermarks.items() for text in pair]
    return msgspec.msgpack.encode({"anew": fill.at.build != fill.then.build, "header": flat, "hashes": list(fill.hashes.values())})


def _held(build: Any, filled: Any, other: Any) -> Held:
    if build is None or filled is None or other is None:
        return Held()
    return Held(build.decode(), Watermark.decode(filled), other.decode())
