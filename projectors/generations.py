"""A generation's life: opened, built, promoted, retired, dropped. What it holds is apply.py's; how readers find it is loaders/view.py's."""

import secrets
from collections.abc import Callable, Mapping, Sequence

import msgspec
from redis.asyncio import Redis

from projectors.apply import Header, Store, StoreUnavailable
from projectors.clock import Clock, SystemClock
from projectors.register import RedisRegister, Register
from schema import layout
from schema.definition import Definition
from schema.generation import Generation, Origin
from schema.positions import Partition, Watermark
from schema.seen import Seen

FIRST = "g1"
FED = ("building", "live", "retired")
Bounds = Mapping[Partition, tuple[int, int]]


class GenerationRefused(Exception):
    """The generation cannot be written by this projector; the message says what to do."""


class ShardLost(Exception):
    """A shard, or a whole generation, is no longer in Redis."""


class GenerationDropped(Exception):
    """The generation is being dropped: nothing is to be written to it."""


class Generations:
    """The generations of one view. redis: answers bytes."""

    def __init__(self, redis: Redis | None, definition: Definition, register: Register | None = None, clock: Clock | None = None) -> None:
        self._definition, self._clock = definition, clock or SystemClock()
        if register is None and redis is None:
            raise ValueError("generations are in a Redis, or in a register that is given")
        self.register: Register = register if register is not None else RedisRegister(redis, definition.name)  # type: ignore[arg-type]

    async def live(self) -> str | None:
        """The name of the live generation."""
        return await self.register.live()

    async def read(self, name: str) -> Generation | None:
        return await self.register.read(name)

    async def all(self) -> list[Generation]:
        """Every record that there is, in the order of their numbers."""
        live = await self.live()
        names = await self.register.names() | {FIRST} | ({live} if live else set())
        records = [await self.read(name) for name in sorted(names, key=number)]
        return [record for record in records if record is not None]

    async def current(self) -> Generation | None:
        """The live one, else the first that is promoted by itself, else None. Raises ShardLost."""
        name = await self.live()
        if name is None:
            return next((record for record in await self.all() if record.by_itself), None)
        record = await self.read(name)
        if record is None:
            raise ShardLost(f"generation {name} is live but its record is gone from Redis. Run `viewgate rebuild`.")
        return record

    def check(self, record: Generation) -> None:
        """Raises GenerationRefused where it is of another definition, or a copy; GenerationDropped."""
        if record.state == "dropping":
            raise GenerationDropped(f"generation {record.name} is being dropped")
        if record.copied:
            raise GenerationRefused(
                f"generation {record.name} in this Redis is filled from a view topic, by `viewgate populate`: VIEWGATE_REDIS_URL of "
                "`viewgate project` must name the Redis that is published."
            )
        if record.definition != self._definition.fingerprint:
            raise GenerationRefused(
                f"generation {record.name} was built with another definition of {self._definition.name}. "
                "Run this projector on a generation of its own: `viewgate rebuild`."
            )

    async def add(
        self,
        store_of: Callable[[Generation], Store],
        bounds: Bounds,
        topic_ids: Mapping[str, str],
        start: Mapping[Partition, int],
        origin: Origin = "beginning",
        rate: int | None = None,
        *,
        by_itself: bool = False,
        shards: int = layout.SHARDS,
        slot: str = "",
        seen: Seen | None = None,
    ) -> Generation | None:
        """Register a generation under a name never used before. None: somebody else has opened one at the same time, or before `by_itself`.

        bounds: first and end offset of every partition. start: where reading begins in each. Raises GenerationRefused.
        """
        _check_start(bounds, start)
        names = await self.register.names()
        # after the names: what another adds from now on is one more of them, and `register.add` refuses
        present = await self._present()
        if by_itself and present:
            return None
        record = Generation(
            name=f"g{max(map(number, names | present), default=0) + 1}",
            build=secrets.token_hex(2),
            definition=self._definition.fingerprint,
            shards=shards,
            codes=layout.codes(self._definition),
            prefixes=layout.prefixes(self._definition),
            start={str(partition): offset for partition, offset in start.items()},
            level={str(partition): end for partition, (_, end) in bounds.items()},
            topic_ids=dict(topic_ids),
            state="filling" if origin == "sql" else "opening",
            origin=origin,
            by_itself=by_itself or not present,
            rate=rate,
            opened_ms=self._clock.now_ms(),
            slot=slot,
            seen=seen,
        )
        # a failover may have undone the name of one whose shards are still there
        while any(header.state is not None for header in await store_of(record).headers()):
            record = msgspec.structs.replace(record, name=f"g{number(record.name) + 1}")
        return record if await self.register.add(record, len(names)) else None

    async def open_first(self, store_of: Callable[[Generation], Store], bounds: Bounds, topic_ids: Mapping[str, str]) -> Generation:
        """Begin a generation from Kafka's beginning, to be promoted by itself. Raises GenerationRefused."""
        start = dict.fromkeys(bounds, 0)
        await self.add(store_of, bounds, topic_ids, start, by_itself=True)
        opened = await self.current()
        if opened is None:
            raise StoreUnavailable("Redis lost the generation's record at once")
        return await self.opened(opened, store_of(opened))

    async def opened(self, record: Generation, store: Store) -> Generation:
        """Write the headers, then say so. Several projectors may do this at once: what is there is left as it is."""
        if record.state != "opening":
            return record
        await store.open(dict.fromkeys(range(record.shards), first_header(record, record.build)))
        await self.register.replace(record, msgspec.structs.replace(record, state="building"))
        return await self.read(record.name) or record

    async def filled(self, record: Generation, ends: Mapping[Partition, int]) -> Generation:
        """Its rows from SQL are all there, and right once the log was read up to these ends.

        Raises GenerationRefused where somebody has begun to write them anew.
        """
        level = record.level | {str(partition): max(end, record.level[str(partition)]) for partition, end in ends.items()}
        opening = msgspec.structs.replace(record, state="opening", level=level)
        if not await self.register.replace(record, opening):
            raise GenerationRefused(f"somebody else writes {record.name} anew: look at `viewgate generations`.")
        return opening

    async def refill(self, record: Generation, start: Mapping[Partition, int], slot: str, seen: Seen | None) -> Generation:
        """Begin again to write its rows, under another build: what is left of the old one is to be swept. Raises GenerationRefused."""
        begins = {str(partition): offset for partition, offset in start.items()}
        anew = msgspec.structs.replace(record, build=secrets.token_hex(2), start=begins, slot=slot, seen=seen)
        if not await self.register.replace(record, anew):
            raise GenerationRefused(f"somebody else writes {record.name} too: look at `viewgate generations`.")
        return anew

    async def promote(self, record: Generation, store: Store, headers: Sequence[Header]) -> Generation | None:
        """Let readers see it: headers first, then record and pointer. May be repeated. None: not done, others have changed something.

        headers: as they were when they were found level.
        """
        live = await self.live()
        old = await self.read(live) if live and live != record.name else None
        await store.finish({shard: header.build for shard, header in enumerate(headers) if header.build})
        now = self._clock.now_ms()
        promoted = msgspec.structs.replace(
            record,
            state="live",
            promoted=record.promoted or reached_offsets(record, headers),
            promoted_ms=record.promoted_ms or now,
            retired_ms=0,
        )
        retired = msgspec.structs.replace(old, state="retired", retired_ms=now) if old else None
        return promoted if await self.register.promote(promoted, retired) else None

    async def mark_dropping(self, record: Generation) -> None:
        """From now on nobody writes it. Raises StoreUnavailable where it has just been changed by somebody else."""
        dropping = msgspec.structs.replace(record, state="dropping")
        if record.state != "dropping" and not await self.register.replace(record, dropping):
            raise StoreUnavailable(f"generation {record.name} is being changed by somebody else: try again")

    async def _present(self) -> set[str]:
        return {record.name for record in await self.all()}


def number(name: str) -> int:
    """2 of g2."""
    digits = name.removeprefix("g")
    return int(digits) if digits.isdigit() else 0


def first_header(record: Generation, build: str) -> Header:
    """A shard as it is before anything of the log is applied."""
    watermarks = {
        partition: Watermark(offset, 0, record.topic_ids.get(partition.rpartition(":")[0], ""))
        for partition, offset in record.start.items()
    }
    return Header(layout.BUILDING, build, watermarks, record.seen)


def _check_start(bounds: Bounds, start: Mapping[Partition, int]) -> None:
    cut = [str(partition) for partition, (first, _) in bounds.items() if first > start[partition]]
    if cut:
        raise GenerationRefused(
            f"Kafka no longer has the beginning of {', '.join(cut)}: build from SQL, `viewgate rebuild --from sql`, or from a "
            "connector's snapshot, `viewgate rebuild --from snapshot`."
        )


def level(record: Generation, headers: Sequence[Header], ends: Mapping[str, int]) -> bool:
    """Whether all these shards have everything below the ends."""
    offsets = reached_offsets(record, headers)
    return all(offsets.get(partition, -1) >= end for partition, end in ends.items())


def reached_offsets(record: Generation, headers: Sequence[Header]) -> dict[str, int]:
    """By partition, the offset below which every shard has everything; -1 where a shard tells none."""
    nothing = Watermark(-1, 0, "")
    return {partition: min((h.watermarks.get(partition, nothing).offset for h in headers), default=-1) for partition in record.start}
