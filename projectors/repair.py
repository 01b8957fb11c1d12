"""Rows and claims put right at exactly the watermarks that their shard has, while projectors write on. Looks for no mistakes of its own.

What is right at given watermarks is a function of the log alone, and is written only while the shard has exactly these: so a repair that
comes late, twice, or beside another one or a projector changes nothing that is right.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from projectors.apply import Applied, Header, Store
from projectors.audit import Mismatch
from projectors.calls import Call, Packing
from projectors.clock import Clock
from projectors.fold import Claim, Effects, Key
from projectors.replay import BaseAhead, Basis, Replay, ReplayImpossible, Tail, WritesLost, offsets_of, partition_of
from projectors.rows_at import RowsSource
from projectors.stored import Comparison, Look, OtherType, Shards, is_judged
from schema.definition import Definition
from schema.generation import Generation
from schema.positions import Partition

TRIES = 100
RESTARTS = 5
LATE_SECONDS, LOOK_SECONDS = 30.0, 0.1


class RepairStuck(Exception):
    """Something is not repaired, and may be when it is tried again; the message says why."""


class Base(Protocol):
    """What rows were at some offsets, from which the log is read."""

    async def of(self, keys: Iterable[Key]) -> Basis:
        """Raises ReplayImpossible, and what its source raises."""
        ...


class LogBase:
    """Nothing, where the generation's reading began."""

    def __init__(self, record: Generation) -> None:
        self._record = record

    async def of(self, keys: Iterable[Key]) -> Basis:
        if self._record.origin == "sql":
            raise ReplayImpossible(
                f"the rows of generation {self._record.name} came from SQL, so the log does not say what they count to: "
                "only a database that keeps Kafka's offsets beside its rows does, or one whose changes are captured. "
                "Else build it anew: `viewgate rebuild`."
            )
        return Basis(start_of(self._record))


class SqlBase:
    """The rows of a database of which it is known where the log goes on after them."""

    def __init__(self, source: RowsSource, record: Generation) -> None:
        self._source, self._record = source, record

    async def of(self, keys: Iterable[Key]) -> Basis:
        """Raises NoOffsets, NotCaptured, asyncpg's errors."""
        async with self._source.open() as rows:
            counted = await rows.of(keys)
        level = await self._source.level(rows)
        start = {partition: rows.offsets.get(partition, 0) for partition in start_of(self._record)}
        return Basis(start, counted, rows.seen, {partition: end for partition, end in level.items() if partition in start})


class Repair:
    """Of one generation. told: how many records of the log were just read."""

    def __init__(
        self,
        definition: Definition,
        record: Generation,
        store: Store,
        shards: Shards,
        base: Base,
        tail: Tail,
        clock: Clock,
        told: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._definition, self._record, self._store, self._shards = definition, record, store, shards
        self._base, self._tail, self._clock, self._told = base, tail, clock, told
        self._packing = Packing(definition, record)
        self._comparison = Comparison(definition, record, self._packing)
        self.mended: list[Mismatch] = []

    async def run(self, ids: Iterable[str]) -> None:
        """Put these rows right, and what they claim. `mended` has what was found and is no more.

        May be run again. Raises RepairStuck, ReplayImpossible, StoreUnavailable, ShardFailed, and what the base raises.
        """
        wanted = set(ids)
        for _ in range(RESTARTS):
            try:
                return await self._run(wanted)
            except WritesLost:
                continue
        raise RepairStuck("Redis loses writes all the time: nothing can be told of it. See `viewgate doctor`.")

    async def _run(self, wanted: set[str]) -> None:
        keys = [key for key in map(self._comparison.key, sorted(wanted)) if key is not None]
        replay = Replay(self._definition, self._packing.layout, self._tail, self._clock, wanted.__contains__, self._told)
        await self._begin(replay, await self._base.of(keys))
        by_shard: dict[int, list[str]] = {number: [] for number, shard in enumerate(replay.shards) if shard.effects.claims}
        for row_id in sorted(wanted):
            by_shard.setdefault(self._packing.layout.shard(row_id), []).append(row_id)
        for number, ids in sorted(by_shard.items()):
            await self._mend(replay, number, ids)

    async def _begin(self, replay: Replay, basis: Basis) -> None:
        """Once every shard has what the base has."""
        since = self._clock.monotonic()
        while True:
            headers = await self._store.headers()
            watermarks = [offsets_of(header.watermarks) if is_judged(self._record, header) else None for header in headers]
            try:
                return await replay.begin(basis, watermarks)
            except BaseAhead as ahead:
                if self._clock.monotonic() - since > LATE_SECONDS:
                    raise RepairStuck(
                        "the view is behind SQL and stands still: see that `viewgate project` runs, and try again."
                    ) from ahead
            await self._clock.sleep(LOOK_SECONDS)

    async def _mend(self, replay: Replay, number: int, ids: Sequence[str]) -> None:
        """Look, and write what is right at the watermarks that were seen, until nothing differs. Raises what `run` raises."""
        build = ""
        for _ in range(TRIES):
            # before the look, so that the log is as far as the shard, and the call goes out at once
            await replay.read_on()
            claims = list(replay.shards[number].effects.claims)
            look = await self._shards.look(number, build, ids, claims)
            if not is_judged(self._record, look.header):
                raise RepairStuck(f"shard {number} is {_state(look.header)}: its rows cannot be put right before it is built again.")
            if look.header.build != build:
                build = look.header.build or ""
                continue
            offsets = offsets_of(look.header.watermarks)
            await replay.reach(offsets)
            effects = replay.at(number, offsets)
            found: list[Mismatch] = []
            call = self._call(number, look, effects, found)
            if not found:
                return
            (reply,) = await self._store.apply([call])
            if isinstance(reply, Applied):
                self.mended += found
        raise RepairStuck(f"shard {number} moves faster than it can be put right: try again when fewer changes come.")

    def _call(self, number: int, look: Look, effects: Effects, found: list[Mismatch]) -> Call:
        """What puts right whatever differs; that is told to `found`."""
        build = look.header.build or ""
        hashes: dict[str, list[str]] = {}
        for row_id, row in look.rows.items():
            if mismatches := self._comparison.row(row_id, row, effects):
                found += mismatches
                hashes[self._packing.layout.rows_prefix(number, build) + row_id] = self._comparison.right(row_id, effects)
        claims: dict[Claim, tuple[int, int] | None] = {}
        for claim, when in look.claims.items():
            if mismatches := self._comparison.claim(claim, when, effects):
                found += mismatches
                right = effects.claims[claim]
                if isinstance(when, OtherType):
                    claimants = hashes.setdefault(self._packing.claim_key(claim, build), [])
                    claimants += [] if right is None else [str(claim.key), f"{right[0]}:{right[1]}"]
                else:
                    claims[claim] = right
        watermarks = {partition_of(name): watermark for name, watermark in look.header.watermarks.items()}
        return self._packing.mend(number, build, watermarks, hashes, claims)


def start_of(record: Generation) -> dict[Partition, int]:
    """Where the generation's reading began."""
    return {partition_of(name): offset for name, offset in record.start.items()}


def _state(header: Header) -> str:
    return "lost" if header.state is None else header.state.decode()
