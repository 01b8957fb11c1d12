"""A generation made level, compared, put live, dropped: what the commands of generations do. Prints nothing."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from app.clients import Clients
from app.feeds import open_log
from app.settings import Settings
from loaders.sql import SqlLoader, keys
from loaders.view import ViewLoader
from projectors import durability
from projectors.apply import Header, RedisStore, reached
from projectors.audit import Audit, Report, ids_in_view
from projectors.clock import SystemClock
from projectors.generations import Generations, reached_offsets
from projectors.sweeping import sweep
from schema import layout
from schema.definition import Definition
from schema.generation import Generation
from schema.loader import Loader, SourceUnavailable
from schema.positions import Partition

SAMPLE = 1000
LOOK_SECONDS = 0.2
clock = SystemClock()


class SwitchRefused(Exception):
    """The generation is not put live, or not dropped; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Switch:
    """The generations of one view, as the commands handle them."""

    settings: Settings
    definition: Definition
    clients: Clients

    @property
    def generations(self) -> Generations:
        return Generations(self.clients.redis, self.definition)

    def store(self, record: Generation) -> RedisStore:
        return RedisStore.of(self.clients.redis, self.definition, record)

    async def named(self, name: str) -> Generation:
        """Raises SwitchRefused."""
        record = await self.generations.read(name)
        if record is None:
            there = ", ".join(record.name for record in await self.generations.all()) or "none"
            raise SwitchRefused(f"There is no generation {name} (there is {there}): `viewgate generations` lists them.")
        return record

    async def ends(self, record: Generation) -> Mapping[str, int]:
        """Kafka's end offset of every partition that the generation reads. Raises KafkaError."""
        async with open_log(self.settings, None) as log_:
            await log_.start({topic_of(partition) for partition in record.start})
            bounds = await log_.bounds([Partition(topic_of(p), int(p.rpartition(":")[2])) for p in record.start])
        return {str(partition): end for partition, (_, end) in bounds.items()}

    async def level(self, record: Generation, ends: Mapping[str, int], seconds: float) -> Sequence[Header]:
        """Its headers, once every shard has everything below the ends. Raises SwitchRefused when it has not in so many seconds."""
        since = time.monotonic()
        while True:
            headers = await self.store(record).headers()
            behind = behind_by(record, headers, ends)
            if not behind and all(header.state in {layout.BUILDING, layout.LIVE} for header in headers):
                return headers
            if time.monotonic() - since > seconds:
                raise SwitchRefused(
                    f"{record.name} is not level: it is {behind:,} records behind. See that `viewgate project` of its definition runs, "
                    "and try again; --force switches all the same."
                )
            await clock.sleep(LOOK_SECONDS)

    async def compared(
        self, record: Generation, against: Loader, pages: AsyncIterator[Sequence[str]], advanced: Callable[[int], None]
    ) -> Report:
        """A sample of rows, every field and lookup, against another loader. Raises LoadError, AuditStuck."""
        mine = ViewLoader(self.clients.redis, self.definition, generation=record.name)
        return await Audit(self.definition, mine, against, clock, advanced).run(pages, nothing())

    async def other(self, record: Generation) -> tuple[Loader, str]:
        """What to compare with: SQL, else the live generation. Raises SwitchRefused where there is neither."""
        sql = SqlLoader(self.clients.postgres, self.definition)
        try:
            await sql.ready()
        except SourceUnavailable:
            live = await self.generations.live()
            if live is None or live == record.name:
                raise SwitchRefused("There is nothing to compare it with: PostgreSQL cannot be reached, and no other is live.") from None
            return ViewLoader(self.clients.redis, self.definition), f"the live {live}"
        return sql, "SQL"

    def sample(self, record: Generation, source: str) -> AsyncIterator[Sequence[str]]:
        """Ids of up to SAMPLE rows."""
        redis, view = self.clients.redis, self.definition.name
        return first(keys(self.clients.postgres, self.definition) if source == "SQL" else ids_in_view(redis, view, record), SAMPLE)

    async def promote(self, record: Generation, headers: Sequence[Header]) -> None:
        """Raises SwitchRefused where somebody else has switched meanwhile."""
        if await self.generations.promote(record, self.store(record), headers) is None:
            raise SwitchRefused(f"Somebody else has switched, or dropped {record.name}, at the same time: look at `viewgate generations`.")

    async def drop(self, record: Generation, advanced: Callable[[int], None]) -> int:
        """Headers first, then its rows and claimants, slowly; how many keys. May be run again. Raises SwitchRefused, NotDurable."""
        generations, redis = self.generations, self.clients.redis
        if await generations.live() == record.name:
            raise SwitchRefused(f"{record.name} is live: promote another first.")
        await durability.confirm(redis, layout.live_key(self.definition.name))
        await generations.mark_dropping(record)
        keys_ = layout.Layout(self.definition.name, record.name, record.shards)
        await reached(redis.unlink(*keys_.headers, keys_.progress))
        swept = await sweep(redis, keys_.all_pattern(), lambda name: name.startswith(keys_.rows_start()), advanced)
        # a projector that had not heard of it yet may have opened one again
        await reached(redis.unlink(*keys_.headers, keys_.progress))
        await generations.register.remove(record.name)
        return swept


def behind_by(record: Generation, headers: Sequence[Header], ends: Mapping[str, int]) -> int:
    """Records that the shard furthest behind has not, over all partitions."""
    offsets = reached_offsets(record, headers)
    return sum(max(0, end - max(offsets.get(partition, 0), 0)) for partition, end in ends.items())


async def first(pages: AsyncIterator[Sequence[str]], count: int) -> AsyncIterator[Sequence[str]]:
    """The first pages, with so many ids at most."""
    async for page in pages:
        yield page[:count]
        count -= len(page)
        if count <= 0:
            return


async def nothing() -> AsyncIterator[Sequence[str]]:
    """No page at all."""
    return
    yield


def topic_of(partition: str) -> str:
    """users of users:0."""
    return partition.rpartition(":")[0]
