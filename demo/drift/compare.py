"""How far a view and its database are apart, once both have everything. Reads only."""

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import asyncpg
import msgspec
from redis.asyncio import Redis

from demo.servers.process import ServerError
from loaders.sql import SqlLoader, keys
from loaders.view import ViewLoader
from projectors.audit import Audit, Report, ids_in_view
from projectors.clock import SystemClock
from schema.definition import Definition
from schema.generation import Generation
from schema.loader import FieldMissing, Read, Row

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Apart:
    """users: how many were compared, those that only one side has included.

    differing: by id, the fields that differ; `id` where a side has no such user. largest: of all counts, how
    far one is off. right_percent: of reads as heavy-tailed as the changes are, those that are answered right.
    """

    users: int
    differing: Mapping[str, tuple[str, ...]]
    largest: int
    right_percent: float

    @property
    def fields(self) -> int:
        return sum(map(len, self.differing.values()))


class Compared:
    """One view and one database."""

    def __init__(self, definition: Definition, redis: Redis, pool: asyncpg.Pool, seeded: int) -> None:
        self._definition, self._redis, self._pool, self._seeded = definition, redis, pool, seeded
        self._names = tuple(f.name for f in definition.fields)
        self._counts = tuple(f.name for f in definition.aggregates)

    async def look(self, record: Generation) -> Apart:
        """Every field of every user on either side. Only where nothing is written and all has arrived: it looks once."""
        ids = await self._ids(record)
        in_sql = (await SqlLoader(self._pool, self._definition).load(self._reads(ids))).rows
        in_view = await self._in_view(record, ids)
        differing, largest = {}, 0
        for key, mine, theirs in zip(ids, in_view, in_sql, strict=True):
            if fields := self._fields(mine, theirs):
                differing[key] = fields
                largest = max([largest, *self._off(mine, theirs)])
        return Apart(len(ids), differing, largest, right_percent(differing, self._seeded))

    async def audit(self, record: Generation) -> Report:
        """The same as `viewgate audit` says it, lookups included."""
        view, sql = ViewLoader(self._redis, self._definition), SqlLoader(self._pool, self._definition)
        audit = Audit(self._definition, view, sql, SystemClock(), lambda _: None)
        return await audit.run(keys(self._pool, self._definition, PAGE), ids_in_view(self._redis, self._definition.name, record, PAGE))

    async def _ids(self, record: Generation) -> Sequence[str]:
        """Users that a side has: a hash without a profile, of counts that came alone, is none."""
        in_sql = await _all(keys(self._pool, self._definition, PAGE))
        known = set(in_sql)
        others = [key for key in await _all(ids_in_view(self._redis, self._definition.name, record, PAGE)) if key not in known]
        shown = await self._in_view(record, others)
        return [*in_sql, *(key for key, row in zip(others, shown, strict=True) if row is not None)]

    async def _in_view(self, record: Generation, ids: Sequence[str]) -> Sequence[Row | None]:
        view = ViewLoader(self._redis, self._definition, generation=record.name)
        try:
            return (await view.load(self._reads(ids))).rows if ids else []
        except FieldMissing as missing:
            raise ServerError(f"the view has a row that no projector writes: {missing}. That is a bug: please report it.") from missing

    def _reads(self, ids: Sequence[str]) -> list[Read]:
        return [Read("id", key, self._names) for key in ids]

    def _fields(self, mine: Row | None, theirs: Row | None) -> tuple[str, ...]:
        if mine is None or theirs is None:
            return () if mine is theirs else ("id",)
        return tuple(name for name, one, other in zip(self._names, mine, theirs, strict=True) if one != other)

    def _off(self, mine: Row | None, theirs: Row | None) -> list[int]:
        if mine is None or theirs is None:
            return []
        pairs = dict(zip(self._names, zip(mine, theirs, strict=True), strict=True))
        return [abs(msgspec.json.decode(pairs[name][0], type=int) - msgspec.json.decode(pairs[name][1], type=int)) for name in self._counts]


async def _all(pages: AsyncIterator[Sequence[str]]) -> list[str]:
    return [key async for page in pages for key in page]


def right_percent(differing: Mapping[str, object], seeded: int) -> float:
    """Of reads of seeded users that are drawn as `popular` draws: the first percent of users gets about a third of them."""
    ids = [int(key) for key in differing if int(key) <= seeded]
    wrong = math.fsum(math.sqrt(math.sqrt(number / seeded)) - math.sqrt(math.sqrt((number - 1) / seeded)) for number in ids)
    return 100 * (1 - wrong)
