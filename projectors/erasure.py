"""What a generation holds of one row of the view, and its erasure while projectors go on writing. Asks neither Kafka nor SQL for it."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec
from redis.asyncio import Redis

from projectors.apply import reached
from projectors.clock import Clock
from schema import layout
from schema.definition import Definition, Field
from schema.fields import Count, Sum
from schema.generation import Generation
from schema.layout import Layout
from schema.positions import Partition, Watermark

PAGE = 1000
LOOK_SECONDS = 0.1
TRIES = 20
# all is compared before anything is written: what was found is still there, so that no projector has told anything new meanwhile.
# The counts are not compared and not touched; a row that has no profile and only counts of 0 reads as one that never was.
# KEYS[1] header of the shard; KEYS[2] what is owed to the view topic (apply.lua); KEYS[3] the row, if there are columns; then the claimants
# ARGV[1] build, '' where there is no header; ARGV[2] MessagePack: columns {code, …}, stored {fragment or '', …}, claims {when, …};
# ARGV[3] id of the row
_ERASE = """
if (redis.call('HGET', KEYS[1], 'build') or '') ~= ARGV[1] then return 0 end
local found = cmsgpack.unpack(ARGV[2])
local place = 2
if #found.columns > 0 then
  place = 3
  local stored = redis.call('HMGET', KEYS[3], unpack(found.columns))
  for i = 1, #found.columns do
    if (stored[i] or '') ~= found.stored[i] then return 0 end
  end
end
for i = 1, #found.claims do
  if redis.call('HGET', KEYS[place + i], ARGV[3]) ~= found.claims[i] then return 0 end
end
if redis.call('HEXISTS', KEYS[1], 'published') == 1 and #KEYS > 2 then redis.call('SADD', KEYS[2], unpack(KEYS, 3)) end
if place == 3 then
  redis.call('HDEL', KEYS[3], unpack(found.columns))
  local empty = true
  for _, value in ipairs(redis.call('HVALS', KEYS[3])) do
    if value ~= '0' then empty = false; break end
  end
  if empty then redis.call('DEL', KEYS[3]) end
end
for i = 1, #found.claims do redis.call('HDEL', KEYS[place + i], ARGV[3]) end
return 1
"""
# a key of a build that the header does not name: nobody reads it or writes it
_UNLINK = """
if redis.call('HGET', KEYS[1], 'build') == ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[2])
"""
_INTEGER = re.compile(rb"-?\d+")


class NotSettled(Exception):
    """The view is not where Kafka is, or it is and the row is still there; the message says which, and what to do."""


class Bearing(NamedTuple):
    """A lookup value, and the field it is one of."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Traces:
    """What one generation holds of a row.

    build: of the row's shard, None where it has no header. profile: code → fragment. counts: by field, those that are not 0.
    has_row: there is a hash, be it of zeros. claims: when each value was claimed. stale: keys of builds that nobody reads.
    """

    record: Generation
    build: str | None
    profile: Mapping[str, bytes]
    counts: Mapping[str, int]
    has_row: bool
    claims: Mapping[Bearing, bytes]
    stale: Sequence[str] = ()

    @property
    def is_erasable(self) -> bool:
        return bool(self.profile or self.claims or self.stale) or (self.has_row and not self.counts)


class Connection(Protocol):
    """asyncpg's, or a pool."""

    async def fetchval(self, query: str, *args: Any, timeout: float | None = None) -> Any: ...


class Erasure:
    """Of one row. redis: answers bytes. values: lookup values that it may bear or have borne; those found in rows are added."""

    def __init__(self, redis: Redis, definition: Definition, row_id: str, values: Iterable[str] = ()) -> None:
        self._redis, self._definition, self.row_id = redis, definition, row_id
        self.values: set[str] = set(values)
        self._stale: dict[str, set[str]] = {}

    async def find(self, record: Generation) -> Traces:
        """What there is now. Raises StoreUnavailable."""
        build, row = await self._row(record)
        profile = self._profile(record, row)
        self.values |= self._borne(record, profile)
        names = {code: name for name, code in record.codes.items()}
        counts = {names.get(code, code): int(value) for code, value in row.items() if code not in profile and int(value)}
        return Traces(record, build, profile, counts, bool(row), await self._claims(record), await self._stale_keys(record, build))

    async def erase(self, traces: Traces) -> bool:
        """Remove the profile and the claims, if they still are what was found, and nothing otherwise: then find them again.

        A shard is one step; the row's is the first, and after one that has changed there is no other. Counts stay unless all are 0.
        Raises StoreUnavailable.
        """
        keys = self._keys(traces.record)
        for key in traces.stale:
            header, build = keys.headers[self._shard_of(keys, key)], key.removeprefix(keys.rows_start()).partition(":")[0]
            await self._evaluate(_UNLINK, (header, key), build)
        shards: dict[int, dict[Bearing, bytes]] = {keys.shard(self.row_id): {}} if traces.has_row else {}
        for bearing, when in traces.claims.items():
            shards.setdefault(keys.shard(bearing.value), {})[bearing] = when
        for shard, held in shards.items():
            if not await self._erase_shard(traces, shard, held):
                return False
        return True

    async def erase_settled(self, record: Generation, ends: "Ends", clock: Clock, until: float) -> Traces:
        """Erase what a projector that is level with Kafka has left, which never is the profile; what was found.

        ends: asks Kafka. until: how long to wait, on the clock's own time. Raises NotSettled, StoreUnavailable.
        """
        for _ in range(TRIES):
            traces = await self.find(record)
            # after what was found: whatever claimed a value lies below these ends
            await self._settled(record, await ends(), ends, clock, until)
            still = await self.find(record)
            known = Traces(record, still.build, {}, still.counts, still.has_row, traces.claims, still.stale)
            # which is refused where a profile has come meanwhile
            if await self.erase(known):
                return known
        raise NotSettled(f"what generation {record.name} holds of {self.row_id} changes all the time: is somebody still writing of them?")

    async def scan(self, record: Generation) -> None:
        """Look at every key of a generation: values that the row claims, and what other builds left of it. Raises StoreUnavailable."""
        keys, stale = self._keys(record), self._stale.setdefault(record.name, set())
        async for page in self._pages(keys.all_pattern()):
            own = [key for key in page if Layout.row_id(key) == self.row_id]
            claims = [key for key in page if _bearing(key) is not None]
            held = await self._together("HEXISTS", [(key, self.row_id) for key in claims])
            own += [key for key, is_held in zip(claims, held, strict=True) if is_held]
            self.values |= {bearing.value for key in own if (bearing := _bearing(key)) is not None}
            for key in own:
                build = await self._build(keys, self._shard_of(keys, key)) or record.build
                if not key.startswith(f"{keys.rows_start()}{build}:"):
                    stale.add(key)

    async def _settled(self, record: Generation, wanted: Mapping[Partition, int], ends: "Ends", clock: Clock, until: float) -> None:
        """Return when the row's shard has all that Kafka had, and no profile is left."""
        while True:
            behind = await self._behind(record, wanted)
            there = not behind and bool(self._profile(record, (await self._row(record))[1]))
            if not behind and not there:
                return
            if clock.monotonic() >= until:
                what = f"is {behind:,} records behind Kafka" if behind else "is level with Kafka and still has the profile"
                raise NotSettled(f"generation {record.name} {what}")
            await clock.sleep(LOOK_SECONDS)
            if there:
                # their deletion may be on its way to Kafka
                wanted = await ends()

    async def _behind(self, record: Generation, wanted: Mapping[Partition, int]) -> int:
        keys = self._keys(record)
        stored: Any = await reached(self._redis.hgetall(keys.headers[keys.shard(self.row_id)]))
        missing = 0
        for partition, end in wanted.items():
            name = str(partition)
            if name in record.start:
                watermark = stored.get(name.encode())
                missing += max(0, end - (Watermark.decode(watermark).offset if watermark else 0))
        return missing

    async def _erase_shard(self, traces: Traces, shard: int, claims: Mapping[Bearing, bytes]) -> bool:
        keys, record = self._keys(traces.record), traces.record
        has_row = traces.has_row and shard == keys.shard(self.row_id)
        own = {record.codes[f.name] for f in self._definition.columns if f.name in record.codes}
        columns = sorted(own | traces.profile.keys()) if has_row else []
        # another shard may be of another build, and a claimant of it under another key
        build = traces.build if has_row else await self._build(keys, shard)
        at = build or record.build
        touched = [keys.rows_prefix(shard, at) + self.row_id] if has_row else []
        touched += [keys.claims_prefix(shard, at, self._lookup(claim.field)) + claim.value for claim in claims]
        found = {"columns": columns, "stored": [traces.profile.get(code, b"").decode() for code in columns]}
        packed = msgspec.msgpack.encode(found | {"claims": [when.decode() for when in claims.values()]})
        return await self._evaluate(_ERASE, (keys.headers[shard], keys.changed[shard], *touched), build or "", packed, self.row_id)

    async def _evaluate(self, script: str, keys: Sequence[str], *arguments: Any) -> bool:
        answer: Any = self._redis.eval(script, len(keys), *keys, *arguments)
        return bool(await reached(answer))

    def _shard_of(self, keys: Layout, key: str) -> int:
        bearing = _bearing(key)
        return keys.shard(self.row_id if bearing is None else bearing.value)

    async def _claims(self, record: Generation) -> dict[Bearing, bytes]:
        keys = self._keys(record)
        asked = [(field, value, keys.shard(value)) for field in self._definition.lookups for value in sorted(self.values)]
        headers = await self._together("HGET", [(keys.headers[shard], layout.BUILD.decode()) for _, _, shard in asked])
        builds = [header.decode() if header else record.build for header in headers]
        named = [keys.claims_prefix(shard, build, field) + value for (field, value, shard), build in zip(asked, builds, strict=True)]
        when = await self._together("HGET", [(key, self.row_id) for key in named])
        return {Bearing(field.name, value): claim for (field, value, _), claim in zip(asked, when, strict=True) if claim is not None}

    async def _together(self, command: str, calls: Sequence[tuple[str, ...]]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command(command, *call)
        return await reached(pipeline.execute())

    async def _stale_keys(self, record: Generation, build: str | None) -> list[str]:
        keys = self._keys(record)
        old = {keys.rows_prefix(keys.shard(self.row_id), record.build) + self.row_id} if build not in {None, record.build} else set()
        return [key for key in sorted(old | self._stale.get(record.name, set())) if await reached(self._redis.exists(key))]

    async def _build(self, keys: Layout, shard: int) -> str | None:
        stored: Any = await reached(self._redis.hget(keys.headers[shard], layout.BUILD.decode()))
        return stored.decode() if stored else None

    async def _row(self, record: Generation) -> tuple[str | None, dict[str, bytes]]:
        """The build of its shard, and its hash."""
        keys = self._keys(record)
        shard = keys.shard(self.row_id)
        build = await self._build(keys, shard)
        stored: Any = await reached(self._redis.hgetall(keys.rows_prefix(shard, build or record.build) + self.row_id))
        return build, {code.decode(): value for code, value in stored.items()}

    async def _pages(self, pattern: str) -> AsyncIterator[list[str]]:
        cursor: Any = 0
        while True:
            cursor, page = await reached(self._redis.scan(cursor, pattern, PAGE))
            yield [name.decode() if isinstance(name, bytes) else name for name in page]
            if cursor == 0:
                return

    def _profile(self, record: Generation, row: Mapping[str, bytes]) -> dict[str, bytes]:
        """All but counts. What an older definition counted is told by its being a whole number only."""
        own = {record.codes[f.name] for f in self._definition.columns if f.name in record.codes}
        return {code: value for code, value in row.items() if code in own or not _INTEGER.fullmatch(value)}

    def _borne(self, record: Generation, row: Mapping[str, bytes]) -> set[str]:
        codes = {f.name: record.codes[f.name] for f in self._definition.lookups if f.name in record.codes}
        fragments = [layout.uncut(row[code], record.prefixes.get(name, "")) for name, code in codes.items() if code in row]
        return {msgspec.json.decode(fragment, type=str) for fragment in fragments}

    def _lookup(self, name: str) -> Field:
        return next(field for field in self._definition.lookups if field.name == name)

    def _keys(self, record: Generation) -> Layout:
        return Layout(self._definition.name, record.name, record.shards)


Ends = Callable[[], Awaitable[Mapping[Partition, int]]]


async def left_in_sql(connection: Connection, definition: Definition, row_id: str, seconds: float) -> dict[str, int]:
    """How many rows still name the row, by "table.column", where there are any. seconds: for each column. Raises asyncpg's errors."""
    source = definition.base.source
    columns = [(source.table, source.key)]
    columns += [(f.kind.row.source.table, f.kind.by) for f in definition.aggregates if isinstance(f.kind, Count | Sum)]
    key, cast = (int(row_id), "bigint") if definition.key_type is int else (row_id, "text")
    left = {}
    for table, column in dict.fromkeys(columns):
        query = f'SELECT count(*) FROM "{table}" WHERE "{column}" = $1::{cast}'  # noqa: S608  # the definition's own names
        left[f"{table}.{column}"] = int(await connection.fetchval(query, key, timeout=seconds))
    return {name: count for name, count in left.items() if count}


def _bearing(key: str) -> Bearing | None:
    """The value whose claimants a key holds, None for a key of another sort."""
    _, _, rest = key.partition("}")
    field, colon, value = rest.removeprefix("@").partition(":")
    return Bearing(field, value) if colon and rest.startswith("@") else None
