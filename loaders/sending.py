"""How a loader asks Redis: the two ways to it that a loader is given, and redis-py's pipeline where there is none. Knows no key."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis

Command = tuple[str | bytes, ...]
# commands to Redis in one round trip; the replies in their order, an error among them raised
Send = Callable[[Sequence[Command]], Awaitable[list[Any]]]
# so many commands as bytes, and what is called with the replies, some of which may be errors, or with why there are none.
# False: nothing was sent, and nothing will be called
Begin = Callable[[bytes, int, Callable[[list[Any] | Exception], None]], bool]


def by_pipeline(redis: Redis) -> Send:
    """By one of redis-py, on a connection of its pool."""

    async def send(commands: Sequence[Command]) -> list[Any]:
        pipeline = redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        # redis-py closes the connection of an await that is cancelled: a wave of time-outs would become a wave of connects
        return await asyncio.shield(pipeline.execute())

    return send
