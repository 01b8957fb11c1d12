"""Reads rows from a cache in Redis, those that are not there from `source`, and keeps them: the two modes with a cache.

One request at a time asks SQL for a row: the others of this process wait with it, and those of other processes for its lease. A row is
asked for again a little before it is stale, by one request that does not wait for it (XFetch, Vattani et al. 2015). docs/caching.md
says what each setting prevents.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import msgspec

from loaders.cache import AWAY, Cache, Entry, Key, Leases, Unleased, now_ms
from loaders.cache_policy import Policy
from schema import layout
from schema.definition import Definition
from schema.loader import Loader, LoadError, Mode, Read, Row, Rows

# between two looks for what another process is getting, and how long that is waited for where there is something stale to take
LOOK_SECONDS, WAIT_SECONDS = 0.01, 0.2

Outcome = Literal["hit", "stale", "shared", "waited", "miss", "error"]


class Tally(Protocol):
    """Counts what a cache was good for."""

    def count(self, mode: Mode, outcome: Outcome, rows: int) -> None:
        """hit: entries that were there; stale: that were there and out of date; shared: that another request was getting already;
        waited: that another process was; miss; error: not looked for or not kept, since Redis was away."""
        ...

    def refilled(self, mode: Mode, seconds: float) -> None:
        """What one load of the source took."""
        ...


_Found = Mapping[Key, Entry]
_Flights = dict[Key, asyncio.Future[Entry]]


class CacheAsideLoader:
    """mode: cache-aside or cache-invalidate, whose entries others delete when a row changes. source: asked for what is not there, one
    load for all that a request lacks."""

    def __init__(
        self, cache: Cache, source: Loader, definition: Definition, policy: Policy, tally: Tally, mode: Mode = "cache-aside"
    ) -> None:
        self._cache, self._source, self._definition, self._policy = cache, source, definition, policy
        self._tally, self._mode = tally, mode
        self._fields = ("id", *(f.name for f in definition.fields))
        self._places = {name: place for place, name in enumerate(self._fields)}
        self._flights: _Flights = {}
        self._refreshing: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self, reads: Sequence[Read]) -> Rows:
        """as_of_ms is the oldest entry's read time. Raises what the source raises."""
        now = now_ms()
        found = await self._found(dict.fromkeys((read.by, read.value) for read in reads))
        rows = [self._project(found[read.by, read.value], read.fields) for read in reads]
        return self._rows(rows, found.values(), now)

    def begin(self, reads: Sequence[Read], done: Callable[[Rows | None], None]) -> bool:
        """As ImmediateLoader has it: where all is asked for by its id. None: something is not there, or is to be asked for again."""
        keys = [(read.by, read.value) for read in reads]
        if any(by != "id" for by, _ in keys):
            return False
        return self._cache.begin(keys, partial(self._begun, reads, done))

    async def ready(self) -> None:
        """Raises what the source raises: without it only kept rows would be answered."""
        await self._source.ready()

    def _begun(self, reads: Sequence[Read], done: Callable[[Rows | None], None], entries: Sequence[Entry | None] | None) -> None:
        now = now_ms()
        known = [entry for entry in entries or () if entry is not None and entry.row is not None and not self._policy.is_due(entry, now)]
        if len(known) < len(reads):
            done(None)
            return
        self._tally.count(self._mode, "hit", len(known))
        rows = [self._project(entry, read.fields) for entry, read in zip(known, reads, strict=True)]
        done(self._rows(rows, known, now))

    def _rows(self, rows: Sequence[Row | None], entries: Iterable[Entry], now: int) -> Rows:
        return Rows(rows, self._mode, None, min((entry.read_ms for entry in entries), default=now))

    def _project(self, entry: Entry, fields: Sequence[str]) -> Row | None:
        return None if entry.row is None else [entry.row[self._places[name]] for name in fields]

    async def _found(self, keys: Iterable[Key]) -> dict[Key, Entry]:
        """The row of each. What is kept of a lookup value is an id, and its row under that."""
        wanted = list(keys)
        ids = await self._entries([key for key in wanted if key[0] != "id"])
        rows = [key if key[0] == "id" else _row_of(ids[key]) for key in wanted]
        found = await self._entries(list(dict.fromkeys(row for row in rows if row)))
        # one of the two is older than the other
        moved = [key for key, entry in ids.items() if (row := _row_of(entry)) and not self._bears(found[row], key)]
        if moved:
            ids |= await self._entries(moved, anew=True)
            found |= await self._entries([row for key in moved if (row := _row_of(ids[key]))], anew=True)
        for key, entry in ids.items():
            row = _row_of(entry)
            bears = row is not None and self._bears(found[row], key)
            found[key] = found[row] if row is not None and bears else msgspec.structs.replace(entry, row=None)
        return found

    def _bears(self, entry: Entry, key: Key) -> bool:
        by, value = key
        return entry.row is not None and entry.row[self._places[by]] == layout.encode(value)

    async def _entries(self, keys: Sequence[Key], *, anew: bool = False) -> dict[Key, Entry]:
        """anew: whatever is there is too old."""
        flights = self._board(keys, anew=anew)
        if flights:
            # unlike an await of each, it leaves them alone when this request is cancelled: others wait for them too
            await asyncio.wait(flights.values())
        return {key: flight.result() for key, flight in flights.items()}

    def _board(self, keys: Sequence[Key], *, anew: bool) -> _Flights:
        """The flight of each key; those that are not under way take off together."""
        loop = asyncio.get_running_loop()
        mine: _Flights = {key: loop.create_future() for key in keys if key not in self._flights}
        self._flights |= mine
        if shared := len(keys) - len(mine):
            self._tally.count(self._mode, "shared", shared)
        if mine:
            self._start(self._fly(mine, anew=anew), partial(self._ended, mine))
        return {key: self._flights[key] for key in keys}

    def _start(self, doing: Coroutine[Any, Any, None], ended: Callable[[asyncio.Task[None]], None]) -> None:
        task = asyncio.get_running_loop().create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(ended)

    async def _fly(self, mine: _Flights, *, anew: bool) -> None:
        there = await self._get(list(mine))
        now = now_ms()
        answering = {} if anew else {key: entry for key, entry in there.items() if self._policy.may_answer(entry, now)}
        _land(mine, answering)
        fresh = sum(self._policy.is_fresh(entry, now) for entry in answering.values())
        self._count("hit", fresh)
        self._count("stale", len(answering) - fresh)
        due = {key: entry for key, entry in answering.items() if key not in self._refreshing and self._policy.is_due(entry, now)}
        if due:
            self._refreshing.update(due)
            self._start(self._refresh(due), lambda _: self._refreshing.difference_update(due))
        missing = [key for key in mine if key not in answering]
        if missing:
            await self._refill(missing, mine, there)

    async def _refill(self, missing: Sequence[Key], mine: _Flights, old: _Found) -> None:
        """Read what nobody is reading, and wait for what another process is. old: what is there of them, too old to answer with."""
        wait_until = time.monotonic() + WAIT_SECONDS
        left = list(missing)
        while left:
            try:
                leases, there = await self._cache.lease(left)
                reading = [key for key in left if key in leases]
            except Unleased:
                leases, there, reading = {}, {}, left
            came = {key: entry for key, entry in there.items() if entry != old.get(key)}
            if time.monotonic() > wait_until:
                came = {key: old[key] for key in left if key not in reading and self._policy.may_replace(old.get(key), now_ms())} | came
            self._count("waited", len(came))
            _land(mine, came)
            await self._cache.release({key: token for key, token in leases.items() if key in came})
            if reading := [key for key in reading if key not in came]:
                await self._read(reading, leases, mine, old)
            left = [key for key in left if key not in came and key not in reading]
            if left:
                await asyncio.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - it spreads

    async def _read(self, keys: Sequence[Key], leases: Leases, mine: _Flights, old: _Found) -> None:
        """From the source, into the flights and the cache. Raises what the source raises where nothing old may stand in for it."""
        self._count("miss", len(keys))
        try:
            read = await self._from_source(keys)
        except LoadError:
            await self._cache.release(leases)
            now = now_ms()
            instead = {key: old[key] for key in keys if self._policy.may_replace(old.get(key), now)}
            self._count("stale", len(instead))
            _land(mine, instead)
            if len(instead) < len(keys):
                raise
            return
        _land(mine, read)
        # until it is kept its flight stays: who comes now shall not ask SQL again
        await self._keep(read, leases)

    async def _refresh(self, due: _Found) -> None:
        """For nobody who waits. A source that does not answer is none of their trouble, as long as there is something to answer with."""
        leases: Leases = {}
        try:
            leases, there = await self._cache.lease(list(due))
            # others were faster, or have deleted it
            changed = {key: token for key, token in leases.items() if there.get(key) != due[key]}
            await self._cache.release(changed)
            if reading := [key for key in leases if key not in changed]:
                await self._keep(await self._from_source(reading), leases)
        except Unleased:
            self._count("error", len(due))
        except LoadError:
            await self._cache.release(leases)

    async def _from_source(self, keys: Sequence[Key]) -> dict[Key, Entry]:
        read_ms, began = now_ms(), time.perf_counter()
        rows = await self._source.load([Read(by, value, self._fields if by == "id" else ("id",)) for by, value in keys])
        self._tally.refilled(self._mode, time.perf_counter() - began)
        made = (self._policy.entry(self._definition.fingerprint, read_ms, row) for row in rows.rows)
        return dict(zip(keys, made, strict=True))

    async def _get(self, keys: Sequence[Key]) -> dict[Key, Entry]:
        try:
            return await self._cache.get(keys)
        except AWAY:
            self._count("error", len(keys))
            return {}

    async def _keep(self, entries: Mapping[Key, Entry], leases: Leases) -> None:
        try:
            await self._cache.fill(entries, leases, self._policy.keep_ms)
        except AWAY:
            self._count("error", len(entries))

    def _count(self, outcome: Outcome, rows: int) -> None:
        if rows:
            self._tally.count(self._mode, outcome, rows)

    def _ended(self, mine: _Flights, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        for key, flight in mine.items():
            if self._flights.get(key) is flight:
                del self._flights[key]
            if error and not flight.done():
                flight.set_exception(error)
                flight.exception()  # seen, even if everybody who waited was cancelled
            flight.cancel()  # which does nothing to one that has landed


def _row_of(entry: Entry) -> Key | None:
    """Where the row of a lookup value lies."""
    return None if entry.row is None else ("id", msgspec.json.decode(entry.row[0], type=str))


def _land(flights: _Flights, found: _Found) -> None:
    for key, entry in found.items():
        if not flights[key].done():
            flights[key].set_result(entry)
