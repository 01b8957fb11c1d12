"""People and their likes in a view that projectors of yesterday's and of today's decoders keep, and a replay of what they buried."""

from dataclasses import dataclass, field

from redis.asyncio import Redis

from loaders.view import ViewLoader
from projectors.audit import Mismatch
from projectors.calls import Packing
from projectors.dead_letters import DeadLetterTopic
from projectors.generations import Generations
from projectors.letters import Today, read_letters, share_of
from projectors.repair import LogBase, Repair
from projectors.stored import RedisShards
from schema.loader import Read
from tests.faults.arranged import Owner, World
from tests.faults.letter_topic import LetterTopic
from tests.faults.mending import MemoryTail
from tests.faults.stores import Halting, Pause, go_on
from tests.faults.stricter import TODAY, YESTERDAY, People

FIELDS = ("name", "like_count")


@dataclass(slots=True)
class Town:
    """People and their likes in a view, kept by projectors of yesterday and of today; and what they buried."""

    world: World
    letters: LetterTopic = field(default_factory=LetterTopic)
    owners: list[Owner] = field(default_factory=list)
    calls: int = 0

    @classmethod
    async def open(cls, redis: Redis, partitions: int = 2) -> "Town":
        town = cls(World(redis, partitions=partitions, definition=TODAY))
        await town.world.begin()
        await (await town.owner(of_today=True)).level()
        return town

    async def owner(self, *, of_today: bool, store: Halting | None = None, limit: int = 7) -> Owner:
        self.world.definition = TODAY if of_today else YESTERDAY
        self.owners.append(await self.world.owner(store, limit=limit))
        self.world.definition = TODAY
        return self.owners[-1]

    async def replay(self, pause: Pause = go_on) -> list[Mismatch]:
        """As `viewgate dead-letters replay` does. What it put right."""
        await self._collect()
        record = await Generations(self.world.redis, TODAY).read("g1")
        assert record is not None
        letters = [letter for letter in await read_letters(self.letters, Today(TODAY)) if letter.decodes]
        store = Halting(self.world.redis, self.world.keys, "0", pause)
        tail, shards = MemoryTail(self.world.topics), RedisShards(self.world.redis, Packing(TODAY, record))
        repair = Repair(TODAY, record, store, shards, LogBase(record), tail, tail.clock)
        try:
            await repair.run(share_of(record, letters).ids)
        finally:
            self.calls += len(store.sent)
        return repair.mended

    async def _collect(self) -> None:
        """What projectors buried, into the topic."""
        topic = DeadLetterTopic(self.letters, str(self.letters.partition))
        for owner in self.owners:
            for partition, offset, reason in owner.buried.letters:
                (record,) = [record for record in self.world.topics.records[partition] if record.offset == offset]
                await topic.bury(partition, record, reason)
            owner.buried.letters.clear()

    async def shown(self) -> dict[str, tuple[bytes | None, ...] | None]:
        ids = [str(key) for key in sorted(self.world.users)]
        rows = (await ViewLoader(self.world.redis, TODAY).load([Read("id", key, FIELDS) for key in ids])).rows
        return {key: None if row is None else tuple(row) for key, row in zip(ids, rows, strict=True)}

    async def exact(self) -> None:
        counted = self.world.counted()
        assert await self.shown() == {key: row and tuple(row[name] for name in FIELDS) for key, row in counted.items()}
        keys: list[bytes] = await self.world.redis.keys("*@name:*")  # type: ignore[assignment]  # this client answers bytes
        claimed = {(key.rpartition(b":")[2].decode(), int(id_)) for key in keys for id_ in await self.world.redis.hkeys(key.decode())}
        assert claimed == {(row.name, key) for key, row in self.world.rows[People].items() if isinstance(row, People)}
