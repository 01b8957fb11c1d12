"""The law once more, through Redis: what apply.lua keeps and ViewLoader reads equals SQL, and nothing is left over."""

from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from redis.asyncio import Redis

from loaders.sql import SqlLoader
from loaders.view import ViewLoader
from projectors.apply import Applied, Found, RedisStore
from projectors.calls import Advance, Call, Packing
from projectors.generations import Generations
from schema import layout
from schema.definition import read_definition
from schema.generation import Generation
from schema.layout import Layout
from schema.positions import Watermark
from schema.user import UserView
from tests.message.histories import History, histories, reads, write_tables
from tests.message.model import folded
from tests.message.shop import CustomerView
from tests.message.turns import SHARDS, TURNS, Step, Turn, steps

pytestmark = pytest.mark.servers

USERS, CUSTOMERS = read_definition(UserView), read_definition(CustomerView)
# without shrinking: it takes minutes here; what test_fold.py finds is shrunk there in seconds
LAW = settings(
    max_examples=60,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
Hashes = dict[str, dict[str, bytes]]


class Kept:
    """One live generation of few shards."""

    def __init__(self, redis: Redis, history: History) -> None:
        self._redis, self._definition = redis, history.definition
        codes, prefixes = layout.codes(self._definition), layout.prefixes(self._definition)
        start = {str(partition): 0 for partition in history.logs}
        self.record = Generation("g1", "0", self._definition.fingerprint, SHARDS, codes, prefixes, start, {}, {})
        self._packing = Packing(self._definition, self.record)
        self._store = RedisStore(redis, self._packing.layout, self._packing.marker)

    async def open(self) -> None:
        await self._redis.flushall()
        await self._redis.set(layout.generation_key(self._definition.name, "g1"), self.record.encode())
        generations = Generations(self._redis, self._definition)
        opened = await generations.opened(self.record, self._store)
        await generations.promote(opened, self._store, await self._store.headers())

    async def take(self, step: Step) -> None:
        """Send the step's calls, and send them again, as a client does that has lost the answer."""
        calls = self._calls(step)
        assert await self._store.apply(calls) == [Applied()] * len(calls)
        for call, reply in zip(calls, await self._store.apply(calls), strict=True):
            (advance,) = call.advances
            assert reply == (Applied() if advance.new == advance.expected else Found("0", [advance.new]))

    def _calls(self, step: Step) -> list[Call]:
        packed = self._packing.shards(step.effects, ["0"] * SHARDS)
        calls = []
        for shard in range(SHARDS):
            expected, new = Watermark(step.expected[shard], 0, ""), Watermark(step.new[shard], 0, "")
            if step.mask >> shard & 1 and (shard in packed or expected != new):
                keys, effects = packed.get(shard, ((), self._packing.nothing))
                calls.append(Call(shard, "0", [Advance(step.partition, expected, new)], keys, effects))
        return calls

    async def rows(self) -> Hashes:
        """Every row's hash, by id and field, as fragments."""
        names = {code.encode(): name for name, code in self.record.codes.items()}
        found: Hashes = {}
        async for key in self._redis.scan_iter("*"):
            if ".0:{" in key.decode() and (row_id := Layout.row_id(key.decode())) is not None:
                hash_: dict[Any, Any] = await self._redis.hgetall(key)
                found[row_id] = {names[code]: self._uncut(names[code], value) for code, value in hash_.items()}
        return found

    def _uncut(self, name: str, value: bytes) -> bytes:
        return layout.uncut(value, self.record.prefixes[name]) if name in self.record.prefixes else value

    async def claimants(self) -> set[str]:
        """Every hash of claimants, as the field and the value that its key ends with."""
        keys = [key.decode() async for key in self._redis.scan_iter("*")]
        return {key.split("}@", 1)[1] for key in keys if "}@" in key}


async def holds(history: History, turns: Sequence[Turn], redis: Redis, pool: asyncpg.Pool) -> None:
    kept = Kept(redis, history)
    await kept.open()
    for step in steps(history, turns):
        await kept.take(step)
    await write_tables(pool, history.definition, history.tables)
    await _read_alike(history, redis, pool)
    model = folded(history, turns)
    assert await kept.rows() == model.rows
    assert await kept.claimants() == {f"{name}:{value}" for name, value in model.bearers()}


async def _read_alike(history: History, redis: Redis, pool: asyncpg.Pool) -> None:
    asked = reads(history)
    in_view = (await ViewLoader(redis, history.definition).load(asked)).rows
    in_sql = (await SqlLoader(pool, history.definition).load(asked)).rows
    for read, mine, theirs in zip(asked, in_view, in_sql, strict=True):
        assert mine == theirs, read


@LAW
@given(history=histories(USERS), turns=TURNS)
async def test_the_users_in_redis_equal_sql_after_any_history(
    redis: Redis, users: asyncpg.Pool, history: History, turns: list[Turn]
) -> None:
    await holds(history, turns, redis, users)


@LAW
@given(history=histories(CUSTOMERS), turns=TURNS)
async def test_conditions_sums_and_nulls_in_redis_equal_sql_after_any_history(
    redis: Redis, customers: asyncpg.Pool, history: History, turns: list[Turn]
) -> None:
    await holds(history, turns, redis, customers)
