"""The service that is written in each way of publishing: what it does with one act. Each as it is commonly written, and no worse."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Protocol

import asyncpg
import msgspec

from demo.drift.outbox import post
from demo.drift.plan import Act, Edit
from demo.drift.rows import Changed, described, write
from demo.publish import Publisher
from schema.fields import Row


class Way(Protocol):
    async def do(self, act: Act) -> None:
        """Return when the client is told that it is done."""
        ...


class DualWrite:
    """Commits to PostgreSQL, then publishes, and awaits both. Whoever kills it in between has a database without a message."""

    def __init__(self, pool: asyncpg.Pool, publisher: Publisher) -> None:
        self._pool, self._publisher = pool, publisher

    async def do(self, act: Act) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            changed = await write(connection, act)
        if changed is not None:
            # librdkafka tries again by itself what a broker refuses for a while; idempotent, so that it stays one record
            await self._publisher.acknowledged(*changed)


class PublishFirst:
    """Publishes within the transaction, then commits. Whoever kills it in between has a message without a row."""

    def __init__(self, pool: asyncpg.Pool, publisher: Publisher) -> None:
        self._pool, self._publisher = pool, publisher

    async def do(self, act: Act) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            changed = await write(connection, act)
            if changed is not None:
                await self._publisher.acknowledged(*changed)


class SingleWrite:
    """Writes Kafka alone; a sink brings it into PostgreSQL, where it reads what it has not written itself.

    A change tells the row as it was, so nobody else may edit the same user meanwhile, and edits of one wait for each other (plan.owned).
    """

    def __init__(self, pool: asyncpg.Pool, publisher: Publisher) -> None:
        self._pool, self._publisher = pool, publisher
        self._published: dict[int, Row] = {}
        self._turns: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def do(self, act: Act) -> None:
        if isinstance(act, Edit):
            async with self._turns[act.user_id]:
                await self._edit(act)
        elif changed := await self._described(act):
            await self._publisher.acknowledged(*changed)

    async def _edit(self, act: Edit) -> None:
        changed = await self._described(act)
        if changed is None or changed.before is None:
            return
        # PostgreSQL may not have it yet
        before = self._published.get(act.user_id, changed.before)
        after = msgspec.structs.replace(before, **act.columns)
        await self._publisher.acknowledged("u", before, after, changed.ts_ms)
        self._published[act.user_id] = after

    async def _described(self, act: Act) -> Changed | None:
        async with self._pool.acquire() as connection:
            return await described(connection, act)


class Captured:
    """Writes PostgreSQL, and knows of no Kafka. Debezium publishes what was committed."""

    def __init__(self, pool: asyncpg.Pool, _: Publisher) -> None:
        self._pool = pool

    async def do(self, act: Act) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            await write(connection, act)


class Outbox:
    """Writes its row and the message into PostgreSQL, in one transaction. Debezium publishes the messages."""

    def __init__(self, pool: asyncpg.Pool, _: Publisher) -> None:
        self._pool = pool

    async def do(self, act: Act) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            changed = await write(connection, act)
            if changed is not None:
                await post(connection, changed)


WAYS: Mapping[str, Callable[[asyncpg.Pool, Publisher], Way]] = {
    "dual-write": DualWrite,
    "publish-first": PublishFirst,
    "single-write": SingleWrite,
    "cdc": Captured,
    "outbox": Outbox,
}
