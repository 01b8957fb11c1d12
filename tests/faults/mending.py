"""A repair on a world of tests/faults/arranged.py: its log and its base in memory, its store one that halts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from projectors.audit import Mismatch
from projectors.calls import Packing
from projectors.fold import Effects, Key, fold
from projectors.generations import Generations
from projectors.log import Batch
from projectors.records.envelope import decoder
from projectors.repair import LogBase, Repair
from projectors.replay import Basis, Offsets
from projectors.rows_at import Counted
from projectors.stored import RedisShards
from schema import layout
from schema.positions import Partition
from tests.faults.arranged import DEFINITION, Owner, World, follow, user
from tests.faults.memory import HandClock, MemoryLog, Topics
from tests.faults.stores import Halting

PEOPLE = range(1, 16)
FOLLOWERS, NAME = layout.codes(DEFINITION)["follower_count"], layout.codes(DEFINITION)["name"]
MALLORY = layout.cut(b'"Mallory"', layout.prefixes(DEFINITION).get("name", ""))


async def stand_still() -> None:
    """Nothing happens."""


class MemoryTail:
    """The log of tests/faults/memory.py, as a repair reads it. first: its first offset. asked: awaited when the bounds are asked for."""

    def __init__(self, topics: Topics, limit: int = 5) -> None:
        self._topics, self._log = topics, MemoryLog(topics, limit, mine=set(topics.partitions))
        self.clock = HandClock()
        self.first, self.asked = 0, stand_still

    async def bounds(self) -> Mapping[Partition, tuple[int, int]]:
        await self.asked()
        return {partition: (self.first, end) for partition, end in self._topics.ends.items()}

    def begin(self, offsets: Offsets) -> None:
        for partition, offset in offsets.items():
            self._log.seek(partition, offset)

    async def fetch(self) -> Sequence[Batch]:
        self.clock.seconds += 0.02
        return (await self._log.fetch()).batches


class MemoryBase:
    """What the log counts to as it is now, as a database would hold it."""

    def __init__(self, world: World) -> None:
        self.offsets, self._effects = dict(world.topics.ends), Effects()
        for partition, records in world.topics.records.items():
            row = DEFINITION.topics[partition.topic]
            self._effects.add(fold(DEFINITION, row, [(r.offset, decoder(row)(r.value)) for r in records if r.value is not None]))

    async def of(self, keys: Iterable[Key]) -> Basis:
        counts, names = self._effects.counts, [f.name for f in DEFINITION.aggregates]
        amounts = {key: {name: counts.get(name, {}).get(key, 0) for name in names} for key in keys}
        return Basis(self.offsets, [Counted(key, self._effects.profiles.get(key), found) for key, found in amounts.items()])


@dataclass(slots=True)
class Mender:
    """A repair on the world's generation, with what it was given."""

    world: World
    repair: Repair
    store: Halting
    tail: MemoryTail

    async def run(self, ids: Iterable[int | str]) -> list[Mismatch]:
        """What this run mended."""
        before = len(self.repair.mended)
        await self.repair.run(map(str, ids))
        return self.repair.mended[before:]


async def mender(world: World, base: MemoryBase | None = None, limit: int = 5) -> Mender:
    record = await Generations(world.redis, DEFINITION).read("g1")
    assert record is not None
    store = Halting(world.redis, world.keys, "0")
    shards = RedisShards(world.redis, Packing(DEFINITION, record))
    tail = MemoryTail(world.topics, limit)
    return Mender(world, Repair(DEFINITION, record, store, shards, base or LogBase(record), tail, tail.clock), store, tail)


async def populated(world: World) -> Owner:
    owner = await world.owner()
    for number in PEOPLE:
        world.put(user(number, f"user{number}", f"Name {number}"))
        world.put(follow(number, number, number % 4 + 1))
    world.put(user(3, "renamed"))
    # followed, and no user
    world.put(follow(100, 1, 70))
    await owner.level()
    await world.exact()
    return owner


def row(world: World, number: int | str) -> str:
    return world.keys.rows_prefix(world.keys.shard(str(number)), "0") + str(number)


def claims(world: World, name: str) -> str:
    (lookup,) = DEFINITION.lookups
    return world.keys.claims_prefix(world.keys.shard(name), "0", lookup) + name


async def strays(world: World) -> list[str]:
    """Rows of nobody: the log has neither a profile nor anything that counts them, and they are not of zeros alone."""
    keys = [key.decode() async for key in world.redis.scan_iter(world.keys.rows_pattern())]
    nobody = [key for key in keys if (row_id := world.keys.row_id(key)) is not None and row_id not in map(str, world.users)]
    return [key for key in nobody if set(await world.redis.hvals(key)) != {b"0"}]
