"""Packed commands to Redis and their replies, by one connection to each server. Knows no call and no watermark.

Packed in C: redis-py's own packing costs more than all the rest (docs/decisions.md).
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

Check = Callable[[], None]


class Packed(NamedTuple):
    """A command as it goes over the wire. key: one that it names; all that it names are on one slot."""

    key: str
    command: bytes


class Exchange(Protocol):
    """Redis, as far as packed commands go."""

    async def exchange(self, commands: Sequence[Packed], check: Check) -> list[Any]:
        """The reply to each; what Redis refuses is a ResponseError in its place. A command may be carried out twice.

        check: called when there are connections, and before anything is sent by them; what it raises is raised.
        """
        ...


@runtime_checkable
class Cluster(Exchange, Protocol):
    """Several masters that are one Redis (app/cluster/client.py)."""

    async def masters(self) -> Sequence[Redis]:
        """A client of each."""
        ...

    async def master_of(self, key: str) -> Redis:
        """A client of the one that has this key."""
        ...


class OneServer:
    """An Exchange with a Redis that is one server. Its own retry is used."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def exchange(self, commands: Sequence[Packed], check: Check) -> list[Any]:
        packed = b"".join([command for _, command in commands])
        async with connection_of(self._redis.connection_pool) as connection:
            check()
            return await connection.retry.call_with_retry(
                lambda: exchange(connection, packed, len(commands)), lambda _: connection.disconnect()
            )


@asynccontextmanager
async def connection_of(pool: ConnectionPool) -> AsyncIterator[AbstractConnection]:
    """One of a pool's; closed where the block fails, for replies not yet read would answer the next command of whoever gets it."""
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py left it untyped
    try:
        yield connection
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)


def exchange_of(redis: Redis) -> Exchange:
    return redis if isinstance(redis, Cluster) else OneServer(redis)


async def masters_of(redis: Redis) -> Sequence[Redis]:
    """A client of each server that holds keys."""
    return await redis.masters() if isinstance(redis, Cluster) else [redis]


async def server_of(redis: Redis, key: str) -> Redis:
    """A client of the server that holds this key."""
    return await redis.master_of(key) if isinstance(redis, Cluster) else redis


async def exchange(connection: AbstractConnection, packed: bytes, count: int) -> list[Any]:
    """So many replies to what was packed; what is refused is a ResponseError in its place."""
    await connection.send_packed_command(packed)
    replies: list[Any] = []
    for _ in range(count):
        try:
            replies.append(await connection.read_response(disable_decoding=True))
        except (RedisConnectionError, RedisTimeoutError):
            raise
        except ResponseError as refused:
            replies.append(refused)
    return replies
