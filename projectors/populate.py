"""Keeps a second Redis from a view topic alone: reads, fills copies (projectors/copies.py), puts them live. Opens nothing.

Each shard's header says how far the topic is in it, so a restart goes on from the lowest, and reading again changes nothing. A compacted
log is a right one only as a whole: until what was its end at the start is reached, rows are filled in and watermarks are not, so that a
shard never says that it has what it lacks.
"""

import asyncio
import secrets
from collections.abc import Sequence

import msgspec
import structlog
from redis.asyncio import Redis

from projectors.apply import RedisStore, StoreUnavailable, reached
from projectors.clock import Clock
from projectors.copies import Copy, Fill, Held
from projectors.generations import GenerationRefused, Generations
from projectors.log import Batch, Log
from projectors.portions import NOTHING, Kept, Place, Portion, Reading, beginning
from projectors.reading import SourceChanged
from projectors.view_topic import Stamp, Told, UnreadableTopic, read
from schema import progress, servers
from schema.definition import Definition
from schema.generation import Generation
from schema.layout import Layout
from schema.positions import Partition, Watermark

RETRY_SECONDS = 0.5
# clocks of two nodes do not differ by more: versions of two shards are compared by it
OLDER_US = 1_000_000
log = structlog.stdlib.get_logger()


class Populate:
    """All partitions of one topic into one Redis; several at once do the work twice, and no harm. window_ms: how long tombstones are kept.

    Raises what a restart does not heal (SourceChanged, GenerationRefused, UnreadableTopic) with its sentence; Redis is waited for.
    """

    def __init__(
        self, redis: Redis, definition: Definition, log_: Log, partitions: Sequence[Partition], clock: Clock, window_ms: int
    ) -> None:
        self._redis, self._definition, self._log, self._clock, self._window_ms = redis, definition, log_, clock, window_ms
        self._partitions, self._met = list(partitions), 0
        self._generations = Generations(redis, definition)
        self._copies: dict[str, Copy] = {}
        self._readings: dict[Partition, Reading] = {}
        # partitions all of whose shards a generation has as a whole, and up to when
        self._level: dict[str, dict[Partition, Told]] = {}
        # shards that are begun anew, whatever they hold
        self._anew: set[Place] = set()
        # something may be left of a generation or a build that nobody reads any more
        self.strays = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self.step()
            except StoreUnavailable as away:
                log.warning("redis_away", error=str(away))
                self._readings.clear()
                await self._clock.sleep(RETRY_SECONDS)

    async def step(self) -> None:
        """One round. Raises StoreUnavailable, and see the class."""
        if not self._readings:
            await self._take()
        fetched = await self._log.fetch()
        if fetched.assigned:
            self._readings.clear()
        for batch in fetched.batches:
            reading = self._readings.get(batch.partition)
            if reading is not None and batch.start == reading.next:
                await self._fill(batch, reading)

    async def _take(self) -> None:
        """Read how far every shard is, and go on from the lowest of each partition."""
        self._met = servers.met(self._redis)
        records = await self._generations.all()
        if kept := [record.name for record in records if not record.copied]:
            raise GenerationRefused(
                f"generation {kept[0]} in this Redis is kept by `viewgate project`: VIEWGATE_REDIS_URL must name another Redis, "
                "for `viewgate populate` alone."
            )
        mine = [record for record in records if record.definition == self._definition.fingerprint and record.state != "dropping"]
        self._copies = {record.name: Copy(self._redis, self._definition, record) for record in mine}
        self._level.clear()
        for copy in self._copies.values():
            await copy.look(range(copy.record.shards))
        bounds, ids = await self._log.bounds(self._partitions), await self._log.ids({partition.topic for partition in self._partitions})
        for partition in self._partitions:
            reading = self._readings[partition] = self._begin(partition, bounds[partition], ids.get(partition.topic, ""))
            self._log.seek(partition, reading.next)
        self.strays.set()
        log.info("view_topic_taken", at={str(p): (self._readings[p].next, bounds[p][1]) for p in self._partitions})

    def _begin(self, partition: Partition, bounds: tuple[int, int], topic_id: str) -> Reading:
        held = {name: self._held_of(copy, partition) for name, copy in self._copies.items()}
        kept = {name: Kept(shards.values(), self._copies[name].as_of_ms) for name, shards in held.items()}
        begun = beginning(kept, *bounds, topic_id, self._clock.now_ms(), self._window_ms)
        places = {(name, shard) for name, shards in held.items() for shard in shards}
        self._anew = self._anew | places if begun.anew else self._anew - places
        if begun.anew:
            log.warning("copy_begun_anew", partition=str(partition), shards=len(places))
        return Reading(topic_id, begun.offset, bounds[1])

    def _held_of(self, copy: Copy, partition: Partition) -> dict[int, Held]:
        """Its shards that lie in the partition."""
        return {shard: held for shard, held in copy.held.items() if shard % len(self._partitions) == partition.number}

    async def _fill(self, batch: Batch, reading: Reading) -> None:
        portions = await self._portions(batch, reading)
        is_level = batch.end >= reading.level_at
        if is_level:
            await self._add_told(portions, batch.partition, reading)
        for name, copy in list(self._copies.items()):
            told = {shard: portion for (of, shard), portion in portions.items() if of == name}
            fills = [self._fill_of(copy, shard, portion, batch, reading) for shard, portion in told.items()]
            done = await copy.fill(fills)
            self._anew -= {(name, shard) for shard in done}
            if len(done) < len(fills):
                log.warning("copy_differs", generation=name, partition=str(batch.partition), shards=len(fills) - len(done))
                self._readings.clear()
                return
        reading.next = batch.end
        if is_level and reading.level is not None:
            level, reading.level = reading.level, None
            await self._settle(batch.partition, level, reading)

    async def _add_told(self, portions: dict[Place, Portion], partition: Partition, reading: Reading) -> None:
        """Shards whose watermarks are filled in now; once all are whole, also those that nothing was told of: their headers are compared,
        and so a Redis that lost something is noticed."""
        for name, shard in reading.watermarks:
            if not self._copies[name].held[shard].owed:
                portions.setdefault((name, shard), Portion(self._copies[name].held[shard]))
        if reading.level is not None and reading.level.stamp.definition == self._definition.fingerprint:
            copy = await self._copy(reading.level.stamp)
            for shard, held in self._held_of(copy, partition).items():
                if held.build and (copy.record.name, shard) not in self._anew:
                    portions.setdefault((copy.record.name, shard), Portion(held))

    async def _portions(self, batch: Batch, reading: Reading) -> dict[Place, Portion]:
        """By generation and shard, what is newer than what is there."""
        portions: dict[Place, Portion] = {}
        for record in batch.records:
            try:
                told = read(record)
            except UnreadableTopic as why:
                raise UnreadableTopic(f"in {batch.partition} {why}") from why
            stamp, place = told.stamp, (told.stamp.generation, told.stamp.shard)
            if stamp.shard < 0:
                reading.level = told
            if stamp.definition != self._definition.fingerprint or stamp.shard < 0:
                continue
            self._check_place(batch.partition, stamp)
            held = self._known(await self._copy(stamp), stamp.shard)
            portion = portions.get(place) or Portion(held)
            filled = portion.then.filled or NOTHING
            if record.offset < (held.filled or NOTHING).offset:
                continue
            if stamp.version < filled.ts_ms:
                # its rows were filled in by a start that was broken off; its watermarks were not
                if told.watermarks is not None and stamp.series == portion.then.series:
                    reading.watermarks[place] = dict(told.watermarks)
                continue
            if stamp.series != portion.then.series:
                # published from its beginning again: nothing of before is part of it
                portion = Portion(self._begun(stamp), is_anew=True)
                reading.watermarks.pop(place, None)
                reading.level = None
                self._level.get(stamp.generation, {}).pop(batch.partition, None)
            portion.then = portion.then._replace(filled=(portion.then.filled or NOTHING)._replace(ts_ms=stamp.version))
            portions[place] = portion
            if told.at is not None:
                portion.hashes[told.at] = self._copies[stamp.generation].hash(told)
            elif told.watermarks is not None:
                reading.watermarks[place] = dict(told.watermarks)
        return portions

    def _known(self, copy: Copy, shard: int) -> Held:
        return Held() if (copy.record.name, shard) in self._anew else copy.held[shard]

    def _begun(self, stamp: Stamp) -> Held:
        """A shard at the beginning of a series: under its build, if it is there; else under one that no key of it can have."""
        copy = self._copies[stamp.generation]
        build = copy.held[stamp.shard].build
        new = copy.record.build if copy.record.state == "building" else secrets.token_hex(2)
        return Held(build or new, NOTHING, stamp.series, owed=bool(build))

    def _fill_of(self, copy: Copy, shard: int, portion: Portion, batch: Batch, reading: Reading) -> Fill:
        known, is_level = portion.then.filled or NOTHING, batch.end >= reading.level_at
        # until then watermarks are withheld, and a restart has to read them again
        offset = max(batch.end, known.offset) if is_level and not portion.then.owed else known.offset
        then = portion.then._replace(filled=Watermark(offset, known.ts_ms, reading.topic_id))
        watermarks = reading.watermarks.pop((copy.record.name, shard), {}) if is_level and not then.owed else {}
        return Fill(shard, copy.held[shard], then, watermarks, portion.hashes, anew=portion.is_anew)

    async def _copy(self, stamp: Stamp) -> Copy:
        """The one of this generation, begun where there is none. Raises StoreUnavailable."""
        copy = self._copies.get(stamp.generation)
        if copy is None:
            copy = Copy.of(self._redis, self._definition, stamp)
            await self._generations.register.restore(copy.record)
            record = await self._generations.read(stamp.generation)
            copy = self._copies[stamp.generation] = Copy(self._redis, self._definition, record or copy.record)
            await copy.look(range(stamp.shards))
        return copy

    def _check_place(self, partition: Partition, stamp: Stamp) -> None:
        if stamp.shard % len(self._partitions) != partition.number:
            raise SourceChanged(
                f"partitions were added to topic {partition.topic}, so shards have moved between them: delete the topic, start "
                "`viewgate project` again, and then `viewgate populate`."
            )

    async def _settle(self, partition: Partition, told: Told, reading: Reading) -> None:
        """The partition is level and whole: let readers see its shards, and once all are, the generation."""
        stamp, record = told.stamp, told.record
        if record is None or stamp.definition != self._definition.fingerprint:
            raise GenerationRefused(
                f"topic {partition.topic} has generation {stamp.generation} of another definition of {self._definition.name} "
                f"({stamp.definition}, here it is {self._definition.fingerprint}): run the version of viewgate that publishes it."
            )
        copy = await self._copy(stamp)
        held = self._held_of(copy, partition)
        if any((copy.record.name, shard) in self._anew for shard in held):
            return
        owed = [shard for shard, one in held.items() if one.owed]
        if not all(one.build for one in held.values()) or (owed and not await self._complete(copy, owed, partition, reading)):
            self._readings.clear()
            return
        await RedisStore.of(self._redis, self._definition, copy.record).finish({shard: one.build for shard, one in held.items()})
        level = self._level.setdefault(stamp.generation, {})
        level[partition] = told
        if len(level) == len(self._partitions) and await self._show(copy, record):
            await self._report(copy, level)
            await self._drop_older(copy)

    async def _complete(self, copy: Copy, shards: Sequence[int], partition: Partition, reading: Reading) -> bool:
        """What of shards that were begun anew has not been told of again is no more. Whether nobody was faster."""
        ids = await self._log.ids({partition.topic})
        if ids.get(partition.topic, "") != reading.topic_id:
            # what lies before where this was read from was never told
            return False
        gone = await copy.sift(shards)
        log.info("copy_told_anew", generation=copy.record.name, shards=len(shards), gone=gone)
        fills = []
        for shard in shards:
            at = copy.held[shard]
            filled = (at.filled or NOTHING)._replace(offset=reading.next)
            watermarks = reading.watermarks.pop((copy.record.name, shard), {})
            fills.append(Fill(shard, at, at._replace(filled=filled, owed=False), watermarks, {}, whole=True))
        return len(await copy.fill(fills)) == len(fills)

    async def _show(self, copy: Copy, record: Generation) -> bool:
        """Promote it if it is not live. Whether it is."""
        mine = copy.record
        wanted = msgspec.structs.replace(record, build=mine.build, codes=mine.codes, prefixes=mine.prefixes, by_itself=False, copied=True)
        if mine == wanted and await self._generations.live() == wanted.name and await self._generations.read(wanted.name) == wanted:
            return True
        store = RedisStore.of(self._redis, self._definition, wanted)
        promoted = await self._generations.promote(wanted, store, await store.headers())
        if promoted is None:
            # gone, or begun anew by another: it is read again
            self._readings.clear()
            return False
        log.info("copy_shown", generation=promoted.name)
        copy.record = promoted
        return True

    async def _drop_older(self, copy: Copy) -> None:
        """Nothing else is kept but what may be on its way to be shown. Compaction has kept some rows of generations of long ago."""
        for other in await self._generations.all():
            if other.name != copy.record.name:
                older = Copy(self._redis, self._definition, other)
                await older.look(range(other.shards))
                if 0 < older.newest < copy.newest - OLDER_US or other.state == "dropping":
                    await self._drop(other)

    async def _drop(self, record: Generation) -> None:
        await self._generations.mark_dropping(record)
        keys = Layout(self._definition.name, record.name, record.shards)
        await reached(self._redis.unlink(*keys.headers, keys.progress))
        await self._generations.register.remove(record.name)
        self._copies.pop(record.name, None)
        self.strays.set()

    async def _report(self, copy: Copy, level: dict[Partition, Told]) -> None:
        """What is published of every partition of the topic is no older than the oldest of them says."""
        names = set().union(*(told.as_of for told in level.values()))
        as_of = {name: min(told.as_of.get(name, 0) for told in level.values()) for name in names}
        run_ids = servers.run_ids(self._redis)
        if run_ids is not None and servers.met(self._redis) != self._met:
            raise StoreUnavailable("another master has been met: what the one before it had acknowledged may be lost")
        if as_of:
            told = {name: progress.encode(ms, run_ids) for name, ms in as_of.items()}
            await reached(self._redis.hset(copy.layout.progress, mapping=told))  # type: ignore[arg-type]  # its stub wants bytes as names
