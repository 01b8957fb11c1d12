"""A generation's life: opened, built, promoted. What it holds is apply.py's; how readers find it is loaders/view.py's."""

import secrets
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from redis.asyncio import Redis

from projectors.apply import Header, Store, StoreUnavailable, reached
from schema import layout
from schema.definition import Definition
from schema.generation import Generation
from schema.positions import Partition, Watermark

FIRST = "g1"
# only a record that is still being opened: another projector may have come further
_OPENED = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end"
# only a header that is there, and of this opening: one made by this would have no watermarks
_PROMOTE_HEADER = """
local header = redis.call('HMGET', KEYS[1], 'state', 'build')
if header[1] == 'building' and header[2] == ARGV[1] then redis.call('HSET', KEYS[1], 'state', 'live') end
"""
# only while the record is that of this opening; the pointer never without its record
_PROMOTE = """
local stored = redis.call('GET', KEYS[1])
if not stored or cjson.decode(stored).build ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[3])
return 1
"""


class GenerationRefused(Exception):
    """The generation cannot be written by this projector; the message says what to do."""


class ShardLost(Exception):
    """A shard, or a whole generation, is no longer in Redis."""


class Build(Protocol):
    """The generation that a projector writes, as far as the projector cares."""

    @property
    def record(self) -> Generation: ...

    async def refresh(self) -> None:
        """Read the record again: another projector may have begun anew. Raises StoreUnavailable, GenerationRefused, ShardLost."""
        ...

    async def settle(self) -> None:
        """Promote the generation if it is level. Raises what `refresh` raises."""
        ...

    def doubt(self) -> None:
        """Redis has lost writes: what was promoted may have to be promoted again."""
        ...


class Generations:
    """The generations of one view. redis: answers bytes."""

    def __init__(self, redis: Redis, definition: Definition) -> None:
        self._redis = redis
        self._definition = definition

    async def live(self) -> str | None:
        """The name of the live generation."""
        pointer: Any = await reached(self._redis.get(layout.live_key(self._definition.name)))
        return pointer.decode() if pointer else None

    async def read(self, name: str) -> Generation | None:
        stored: Any = await reached(self._redis.get(layout.generation_key(self._definition.name, name)))
        return Generation.decode(stored) if stored else None

    async def current(self) -> Generation | None:
        """The generation that projectors write: the live one, else the first, else None. Raises GenerationRefused, ShardLost."""
        name = await self.live()
        record = await self.read(name or FIRST)
        if record is None and name:
            raise ShardLost(f"generation {name} is live but its record is gone from Redis. Run `viewgate rebuild`.")
        if record is None:
            return None
        self.check(record)
        return await self._opened(record) if record.state == "opening" else record

    def check(self, record: Generation) -> None:
        """Raises GenerationRefused where it is of another definition."""
        if record.definition != self._definition.fingerprint:
            raise GenerationRefused(
                f"generation {record.name} was built with another definition of {self._definition.name}. "
                "Run this projector on a generation of its own: `viewgate rebuild`."
            )

    async def open_first(self, bounds: Mapping[Partition, tuple[int, int]], topic_ids: Mapping[str, str]) -> Generation:
        """Begin `g1` from Kafka's beginning. bounds: first and end offset of every partition. Raises GenerationRefused."""
        cut = [str(partition) for partition, (first, _) in bounds.items() if first > 0]
        if cut:
            raise GenerationRefused(
                f"Kafka no longer has the beginning of {', '.join(cut)}: build from SQL, `viewgate rebuild --from sql`."
            )
        record = Generation(
            name=FIRST,
            build=secrets.token_hex(2),
            definition=self._definition.fingerprint,
            shards=layout.SHARDS,
            codes=layout.codes(self._definition),
            prefixes=layout.prefixes(self._definition),
            start={str(partition): first for partition, (first, _) in bounds.items()},
            level={str(partition): end for partition, (_, end) in bounds.items()},
            topic_ids=dict(topic_ids),
        )
        await reached(self._redis.set(layout.generation_key(self._definition.name, FIRST), record.encode(), nx=True))
        opened = await self.current()
        if opened is None:
            raise StoreUnavailable("Redis lost the generation's record at once")
        return opened

    async def _opened(self, record: Generation) -> Generation:
        """Write the headers, then say so. Several projectors may do this at once: what is there is left as it is."""
        keys = layout.Layout(self._definition.name, record.name, record.shards)
        pipeline = self._redis.pipeline(transaction=False)
        for header in keys.headers:
            for partition, offset in record.start.items():
                topic = partition.rpartition(":")[0]
                pipeline.hsetnx(header, partition, Watermark(offset, 0, record.topic_ids.get(topic, "")).encode())
            pipeline.hsetnx(header, layout.BUILD, record.build.encode())
            pipeline.hsetnx(header, layout.STATE, layout.BUILDING)
        await reached(pipeline.execute())
        opened = msgspec.structs.replace(record, state="building")
        key = layout.generation_key(self._definition.name, record.name)
        await reached(self._redis.eval(_OPENED, 1, key, record.encode(), opened.encode()))
        return await self.read(record.name) or opened

    async def restore(self, record: Generation) -> None:
        """Write a record that was lost, unless there is one again."""
        await reached(self._redis.set(layout.generation_key(self._definition.name, record.name), record.encode(), nx=True))

    async def promote(self, record: Generation, reached_offsets: Mapping[str, int]) -> Generation | None:
        """Let readers see it: headers first, then record and pointer. May be repeated. None: it has been opened anew meanwhile."""
        keys = layout.Layout(self._definition.name, record.name, record.shards)
        pipeline = self._redis.pipeline(transaction=False)
        for header in keys.headers:
            pipeline.eval(_PROMOTE_HEADER, 1, header, record.build)
        await reached(pipeline.execute())
        live = msgspec.structs.replace(record, state="live", promoted=dict(reached_offsets))
        view = self._definition.name
        names = (layout.generation_key(view, record.name), layout.live_key(view))
        done = await reached(self._redis.eval(_PROMOTE, 2, *names, record.build, live.encode(), record.name))
        return live if done else None


class RedisBuild:
    """A Build in Redis."""

    def __init__(self, generations: Generations, store: Store, record: Generation) -> None:
        self._generations, self._store, self.record = generations, store, record
        self._promoted = False

    def doubt(self) -> None:
        self._promoted = False

    async def refresh(self) -> None:
        record = await self._generations.read(self.record.name)
        if record is None:
            await self._restore()
        else:
            self._generations.check(record)
            self.record = record

    async def settle(self) -> None:
        live = await self._generations.live()
        await self.refresh()
        if live is not None and (self._promoted or live != self.record.name):
            return
        offsets = _reached(self.record, [header.watermarks for header in await self._present()])
        if all(offsets[partition] >= end for partition, end in self.record.level.items()):
            promoted = await self._generations.promote(self.record, self.record.promoted or offsets)
            self.record, self._promoted = promoted or self.record, promoted is not None

    async def _restore(self) -> None:
        """The record alone was lost, with the node that held it: what every shard still bears is as it was."""
        if any(header.build != self.record.build for header in await self._present()):
            raise ShardLost(f"the record of generation {self.record.name} is gone from Redis. Run `viewgate rebuild`.")
        await self._generations.restore(self.record)

    async def _present(self) -> list[Header]:
        headers = list(await self._store.headers())
        absent = [shard for shard, header in enumerate(headers) if header.state is None]
        if absent:
            raise ShardLost(f"{len(absent)} of {len(headers)} shards of generation {self.record.name} are gone from Redis")
        return headers


def _reached(record: Generation, headers: list[Mapping[str, Watermark]]) -> dict[str, int]:
    """By partition, the offset below which every shard has everything; -1 where a shard tells none."""
    nothing = Watermark(-1, 0, "")
    return {partition: min(header.get(partition, nothing).offset for header in headers) for partition in record.start}
