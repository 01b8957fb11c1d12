"""What the shards of a generation owe to the view topic, kept in Redis beside what they owe of. Knows no Kafka.

apply.lua and the script of projectors/erasure.py add each key that they touch to the shard's set `changed`, in the same step, where the
header has the field `published`. So a crash between the two stores can lose nothing, and whatever a failover undoes it undoes together.

A taking: some keys are moved to the set `taking`, under a version that is counted for it; their hashes are read while the version is
still the last one; when they are published, `taking` is removed if the version still is. Whoever takes meanwhile takes the same keys
again, under a version of their own.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from projectors.apply import reached
from schema import layout, servers
from schema.definition import Definition
from schema.generation import Generation
from schema.layout import Layout
from schema.progress import Progress

AT_ONCE = 500
PAGE = 2000
# the keys of a shard come: header, changed, taking
# A failover can undo the count, and not the clock: the next version is higher than one that was lost, unless the clock of the Redis that
# took over is behind by more than the failover took; for that the publisher says which version it has seen.
# ARGV[1] topic; ARGV[2] the highest version seen; ARGV[3] '1': it was counted here, by the last call; ARGV[4] how many keys;
# ARGV[5] '1': also if none is owed
# Returns 0 where the shard is not published to the topic, 1 where nothing is owed, 2 where nothing is yet of what is owed as a whole;
# version and series that are stored, if another version was to be expected: then writes were lost, or somebody else has taken. One that was
# counted since by who knew what lies in the topic is no such: nobody has published under it.
_TAKE = """
local stored = redis.call('HMGET', KEYS[1], 'published', 'topic', 'owed', 'series', 'known')
if not stored[1] or stored[2] ~= ARGV[1] then return 0 end
local published, seen = tonumber(stored[1]), tonumber(ARGV[2])
if published ~= seen and (ARGV[3] == '1' or published < seen or tonumber(stored[5] or '0') < seen) then return {stored[1], stored[4]} end
local room = ARGV[4] - redis.call('SCARD', KEYS[3])
local keys = room > 0 and redis.call('SPOP', KEYS[2], room) or {}
if #keys > 0 then redis.call('SADD', KEYS[3], unpack(keys))
elseif room == tonumber(ARGV[4]) and ARGV[5] ~= '1' then return stored[3] and 2 or 1 end
local time = redis.call('TIME')
local version = math.max(published + 1, time[1] * 1000000 + time[2])
version = string.format('%.0f', version)
redis.call('HSET', KEYS[1], 'published', version, 'known', ARGV[2])
local whole = not stored[3] and redis.call('EXISTS', KEYS[2]) == 0
return {version, stored[1], whole and 1 or 0, redis.call('HGETALL', KEYS[1]), redis.call('SMEMBERS', KEYS[3])}
"""
# after the shard's own keys: the hashes. ARGV[1] version. A key of another type reads as one that is not there
_READ = """
local stored = redis.call('HMGET', KEYS[1], 'published', 'owed')
if stored[1] ~= ARGV[1] then return 0 end
local found = {}
for i = 4, #KEYS do
  local hash = redis.pcall('HGETALL', KEYS[i])
  found[i - 3] = hash.err and {} or hash
end
local whole = not stored[2] and redis.call('EXISTS', KEYS[2]) == 0
return {whole and 1 or 0, redis.call('HGETALL', KEYS[1]), found}
"""
_DONE = "if redis.call('HGET', KEYS[1], 'published') == ARGV[1] then redis.call('DEL', KEYS[3]) end"
# ARGV[1] topic; ARGV[2] owed; ARGV[3] a series; ARGV[4] the highest version seen; ARGV[5] '1': begin that series in any case
_BEGIN = """
local stored = redis.call('HMGET', KEYS[1], 'state', 'topic', 'published')
if stored[1] ~= 'live' then return 0 end
if stored[2] ~= ARGV[1] or ARGV[5] == '1' then redis.call('HSET', KEYS[1], 'series', ARGV[3]) end
local version = string.format('%.0f', math.max(tonumber(stored[3] or '0'), tonumber(ARGV[4])))
redis.call('HSET', KEYS[1], 'published', version, 'known', ARGV[4], 'topic', ARGV[1], 'owed', ARGV[2])
return 1
"""
# ARGV[1] version stored; ARGV[2] the highest seen; then keys that are owed again
_AGAIN = """
if redis.call('HGET', KEYS[1], 'published') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'published', ARGV[2])
if #ARGV > 2 then redis.call('SADD', KEYS[2], unpack(ARGV, 3)) end
return 1
"""
# what is owed as a whole is a count, compared and set as a watermark is: a failover that loses some of the keys loses the count too
# ARGV[1] owed as expected; ARGV[2] the new one, '' at the end; then keys
_OWE = """
if redis.call('HGET', KEYS[1], 'owed') ~= ARGV[1] then return 0 end
if #ARGV > 2 then redis.call('SADD', KEYS[2], unpack(ARGV, 3)) end
if ARGV[2] == '' then redis.call('HDEL', KEYS[1], 'owed') else redis.call('HSET', KEYS[1], 'owed', ARGV[2]) end
return 1
"""
Fields = Mapping[bytes, bytes]
Replies = Mapping[int, Any]
_NO_KEYS: Mapping[int, Sequence[str]] = {}


class Taken(NamedTuple):
    """before: the version that was the last one until then. whole: with these keys nothing is owed any more, as of this header."""

    version: int
    before: int
    whole: bool
    header: Fields
    keys: Sequence[str]


class Takings(NamedTuple):
    """taken: by shard. level: shards that owe nothing. absent: shards that are not published to the topic.

    other: shards that have another version than was to be expected; which, and of which series.
    """

    taken: Mapping[int, Taken]
    level: set[int]
    absent: set[int]
    other: Mapping[int, tuple[int, str]]


class Hashes(NamedTuple):
    """What was read of a taking. whole: nothing was owed beside it when it was read. hashes: by key, empty where there is none."""

    whole: bool
    header: Fields
    hashes: Mapping[str, Fields]


class Owed:
    """Of one generation. redis: answers bytes. Every method raises StoreUnavailable."""

    def __init__(self, redis: Redis, definition: Definition, record: Generation) -> None:
        self._redis = redis
        self.keys = Layout(definition.name, record.name, record.shards)
        self._take, self._read, self._done = (redis.register_script(text) for text in (_TAKE, _READ, _DONE))
        self._begin, self._owe, self._again = (redis.register_script(text) for text in (_BEGIN, _OWE, _AGAIN))

    async def headers(self) -> Sequence[Fields]:
        """Of each shard, as they are."""
        pipeline = self._redis.pipeline(transaction=False)
        for header in self.keys.headers:
            pipeline.hgetall(header)
        return await reached(pipeline.execute())

    async def as_of_ms(self) -> Mapping[str, int]:
        """By source partition, up to when the view has it, Unix ms."""
        stored: Any = await reached(self._redis.hgetall(self.keys.progress))
        found = {partition.decode(): Progress.decode(value) for partition, value in stored.items()}
        run_ids = servers.run_ids(self._redis) or frozenset()
        return {partition: told.ms for partition, told in found.items() if told.knows(run_ids)}

    async def take(self, topic: str, seen: Mapping[int, int], mine: Container[int], forced: Container[int]) -> Takings:
        """seen: the shards, and the highest version seen of each. mine: those of which it was taken here last.

        forced: those that are taken also where nothing is owed.
        """
        calls = {shard: (topic, floor, int(shard in mine), AT_ONCE, int(shard in forced)) for shard, floor in seen.items()}
        replies = await self._run(self._take, calls)
        told = {shard: reply for shard, reply in replies.items() if isinstance(reply, list)}
        taken = {shard: _taken(reply) for shard, reply in told.items() if len(reply) > 2}
        other = {shard: (int(reply[0]), reply[1].decode()) for shard, reply in told.items() if len(reply) == 2}
        return Takings(taken, _agreed(replies), {shard for shard, reply in replies.items() if reply == 0}, other)

    async def read(self, taken: Mapping[int, Taken]) -> dict[int, Hashes]:
        """Shards of which somebody else has taken meanwhile are left out. Keys of builds that are no more are not looked for."""
        keys = {shard: self._own(shard, one) for shard, one in taken.items()}
        replies = await self._run(self._read, {shard: (one.version,) for shard, one in taken.items()}, keys)
        found = {}
        for shard, reply in replies.items():
            if reply != 0:
                whole, header, hashes = reply
                found[shard] = Hashes(whole == 1, _pairs(header), dict(zip(keys[shard], map(_pairs, hashes), strict=True)))
        return found

    async def done(self, versions: Mapping[int, int]) -> None:
        """What was taken under these versions is published."""
        await self._run(self._done, {shard: (version,) for shard, version in versions.items()})

    async def begin(self, seen: Mapping[int, int], topic: str, owed: str, series: str, anew: Container[int]) -> set[int]:
        """Publish these shards from now on, and owe all of them; those that readers see.

        seen: the highest version of each. A new series is begun by those that were not published to the topic, and by `anew`.
        """
        calls = {shard: (topic, owed, series, version, int(shard in anew)) for shard, version in seen.items()}
        return _agreed(await self._run(self._begin, calls))

    async def again(self, calls: Mapping[int, tuple[int, int, Sequence[str]]]) -> set[int]:
        """Owe keys again whose publication Redis has forgotten. By shard: the version stored, the highest seen, keys. Where it was so."""
        return _agreed(await self._run(self._again, {shard: (stored, seen, *keys) for shard, (stored, seen, keys) in calls.items()}))

    async def page(self, cursor: int) -> tuple[int, Sequence[str]]:
        """Some keys of rows and claimants, of whatever build, and where to go on; 0: that was all."""
        after, page = await reached(self._redis.scan(cursor, self.keys.all_pattern(), PAGE))
        return after, [bytes(key).decode() for key in page]  # type: ignore[arg-type]  # this client answers bytes

    async def owe(self, calls: Mapping[int, tuple[str, str, Sequence[str]]]) -> set[int]:
        """By shard: what is owed as expected, the new text ("": no more), and keys to add. Those where it was as expected."""
        return _agreed(await self._run(self._owe, {shard: (expected, new, *keys) for shard, (expected, new, keys) in calls.items()}))

    async def end(self) -> None:
        """Publish no shard any more."""
        pipeline = self._redis.pipeline(transaction=False)
        fields = [field.decode() for field in (layout.PUBLISHED, layout.KNOWN, layout.TOPIC, layout.OWED, layout.SERIES)]
        for header, *sets in zip(self.keys.headers, self.keys.changed, self.keys.taking, strict=True):
            pipeline.hdel(header, *fields)
            pipeline.unlink(*sets)
        await reached(pipeline.execute())

    def _own(self, shard: int, taken: Taken) -> Sequence[str]:
        build = taken.header[layout.BUILD].decode()
        prefix = self.keys.rows_prefix(shard, build).removesuffix(":")
        return [key for key in taken.keys if key.startswith(prefix)]

    async def _run(self, script: AsyncScript, calls: Mapping[int, Sequence[Any]], keys: Mapping[int, Sequence[str]] = _NO_KEYS) -> Replies:
        """One call for each shard, in one pipeline. calls: its arguments. keys: beside the shard's own."""
        if not calls:
            return {}
        pipeline = self._redis.pipeline(transaction=False)
        for shard, arguments in calls.items():
            own = (self.keys.headers[shard], self.keys.changed[shard], self.keys.taking[shard])
            await script((*own, *keys.get(shard, ())), arguments, client=pipeline)
        return dict(zip(calls, await reached(pipeline.execute()), strict=True))


def _agreed(replies: Replies) -> set[int]:
    return {shard for shard, reply in replies.items() if reply == 1}


def _taken(reply: Any) -> Taken:
    version, before, whole, header, keys = reply
    return Taken(int(version), int(before), whole == 1, _pairs(header), sorted(key.decode() for key in keys))


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
