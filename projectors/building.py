"""What of a generation a projector writes: all of it, or those of its shards that were lost; and when that is level. Sends no effects."""

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from projectors.apply import Header, Store
from projectors.generations import FED, GenerationDropped, Generations, ShardLost, first_header, level, number
from schema import layout
from schema.generation import Generation


class Filled(NamedTuple):
    """What shards begin with, and the end offsets that they have to reach before they are right."""

    headers: Mapping[int, Header]
    level: Mapping[str, int]


# writes what lay before the log into these shards
Fill = Callable[[Generation, Sequence[int]], Awaitable[Filled]]


# so many checkpoints long lost shards are kept that readers see again: until the projector of the others has taken them, at its next
GIVEN_TIMES = 3


class Build(Protocol):
    """What a projector asks of it."""

    @property
    def record(self) -> Generation: ...

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to write, ever."""
        ...

    def holds(self, header: Header) -> bool:
        """Whether the shard is one of those to be written."""
        ...

    async def take(self) -> Sequence[Header]:
        """The headers as they are, after opening anew what was lost and is ours to open.

        Another projector may have begun the whole generation anew.
        Raises StoreUnavailable, GenerationRefused, GenerationDropped, ShardLost.
        """
        ...

    async def settle(self) -> None:
        """If it is level, let readers see it. Raises what `take` raises."""
        ...

    def doubt(self) -> None:
        """Redis has lost writes, or may have: what was promoted may have to be promoted again."""
        ...


class WholeBuild:
    """All shards of a generation; once it was promoted, those that were not lost since."""

    finished = False

    def __init__(self, generations: Generations, store: Store, record: Generation) -> None:
        self._generations, self._store, self.record = generations, store, record
        self._builds = {record.build}
        self._promoted = False

    def holds(self, header: Header) -> bool:
        if header.state is None:
            return False
        # one that bears the first build was never lost, but may have lost its promotion
        return self.record.state == "building" or header.state != layout.BUILDING or header.build == self.record.build

    async def take(self) -> Sequence[Header]:
        headers = await self._store.headers()
        # after the headers: should another generation have been opened under this name, it is that one's record
        await self._refresh()
        lost = [shard for shard, header in enumerate(headers) if header.state is None]
        if lost and self.record.state == "building":
            # nobody reads it yet: all of it is read again
            await self._store.open((await _begun(self.record, lost, None)).headers)
            headers = await self._store.headers()
        self._builds = {self.record.build} | {header.build for header in headers if header.build and self.holds(header)}
        return headers

    async def settle(self) -> None:
        live = await self._generations.live()
        await self._refresh()
        if self.record.promoted:
            await self._show_again(live)
        elif live is None and await self._is_heir():
            headers = await self._store.headers()
            if all(header.state for header in headers) and level(self.record, headers, self.record.level):
                await self._promote(headers)

    async def _is_heir(self) -> bool:
        """Whether it is the one that readers get where none is live: then there is nobody to wait for, and nothing to compare it with."""
        records = [record for record in await self._generations.all() if record.state in {*FED, "opening"}]
        return bool(records) and max(records, key=_precedence).name == self.record.name

    async def _show_again(self, live: str | None) -> None:
        """A failover may have undone the promotion: of some shards alone, or of the pointer."""
        if self._promoted and live is not None:
            return
        headers = await self._store.headers()
        held = {shard: header for shard, header in enumerate(headers) if self.holds(header)}
        if not level(self.record, list(held.values()), self.record.promoted):
            return
        if hidden := {shard: h.build for shard, h in held.items() if h.state == layout.BUILDING and h.build}:
            await self._store.finish(hidden)
        self._promoted = True
        if live is None and await self._is_heir():
            await self._promote([held.get(shard, _NOTHING) for shard in range(len(headers))])

    async def _promote(self, headers: Sequence[Header]) -> None:
        promoted = await self._generations.promote(self.record, self._store, headers)
        self.record, self._promoted = promoted or self.record, promoted is not None

    def doubt(self) -> None:
        self._promoted = False

    async def _refresh(self) -> None:
        record = await self._generations.read(self.record.name)
        if record is None:
            await self._restore()
        else:
            self._generations.check(record)
            self.record = record

    async def _restore(self) -> None:
        """The record alone was lost, with the node that held it: what the shards that are left still bear is as it was."""
        builds = {header.build for header in await self._store.headers() if header.state is not None}
        if not builds or builds - self._builds:
            raise ShardLost(f"the record of generation {self.record.name} is gone from Redis. Run `viewgate rebuild`.")
        await self._generations.register.restore(self.record)


class LostShards:
    """Those shards of a promoted generation that were lost, each under a new build. level: the end offsets that they have to reach."""

    def __init__(self, generations: Generations, store: Store, record: Generation, ends: Mapping[str, int], fill: Fill | None) -> None:
        self._generations, self._store, self.record, self._ends, self._fill = generations, store, record, ends, fill
        self._given: set[str | None] = set()
        self._times = 0

    @property
    def finished(self) -> bool:
        return self._times >= GIVEN_TIMES

    def holds(self, header: Header) -> bool:
        return (header.state == layout.BUILDING and header.build != self.record.build) or header.build in self._given

    async def take(self) -> Sequence[Header]:
        headers = await self._store.headers()
        record = await self._generations.read(self.record.name)
        if record is None or record.build != self.record.build:
            raise GenerationDropped(f"generation {self.record.name} is there no more")
        self._generations.check(record)
        self.record = record
        lost = [shard for shard, header in enumerate(headers) if header.state is None]
        if not lost:
            return headers
        begun = await _begun(self.record, lost, self._fill)
        self._ends = {p: max(self._ends.get(p, 0), begun.level.get(p, 0)) for p in self._ends.keys() | begun.level.keys()}
        await self._store.open(begun.headers)
        return await self._store.headers()

    async def settle(self) -> None:
        headers = await self.take()
        held = {shard: header for shard, header in enumerate(headers) if self.holds(header)}
        headers_held = list(held.values())
        if not held or (level(self.record, headers_held, self._ends) and level(self.record, headers_held, self.record.promoted)):
            await self._store.finish({shard: header.build for shard, header in held.items() if header.build})
            self._given |= {header.build for header in held.values()}
            self._times += 1

    def doubt(self) -> None:
        """Shards that lose writes are level later."""


_NOTHING = Header(None, None, {})


def _precedence(record: Generation) -> tuple[bool, int, bool, int]:
    """The highest is the heir: what was live, then what was before it, then what is promoted by itself, then the oldest."""
    return record.state == "live", record.promoted_ms, record.by_itself, -number(record.name)


async def _begun(record: Generation, shards: Sequence[int], fill: Fill | None) -> Filled:
    """These shards again, each with a build of its own: what an old owner or reader remembers of them is then another one."""
    if fill is not None:
        return await fill(record, shards)
    if record.origin == "sql":
        raise ShardLost(
            f"{len(shards)} shards of generation {record.name} are gone from Redis, and its rows came from SQL. Run `viewgate rebuild`."
        )
    return Filled({shard: first_header(record, secrets.token_hex(2)) for shard in shards}, {})
