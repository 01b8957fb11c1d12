"""A store that fails on purpose, between two calls of one batch. Built on the production store; what it sends is what that sends."""

from collections.abc import Awaitable, Callable, Sequence

from redis.asyncio import Redis

from projectors.apply import Header, RedisStore, Reply
from projectors.calls import Call
from schema.layout import Layout

Pause = Callable[[str], Awaitable[None]]


class Crashed(Exception):
    """The projector ended here: nothing in its memory is used again."""


async def go_on(_: str) -> None:
    """Nothing happens."""


class Halting(RedisStore):
    """One call at a time. `pause` is awaited at "headers", "call" and "answer", and may let others run, or raise."""

    def __init__(self, redis: Redis, keys: Layout, marker: str, pause: Pause = go_on) -> None:
        super().__init__(redis, keys, marker)
        self.pause = pause
        self.sent: list[Call] = []

    async def headers(self) -> Sequence[Header]:
        await self.pause("headers")
        return await super().headers()

    async def apply(self, calls: Sequence[Call]) -> Sequence[Reply]:
        replies: list[Reply] = []
        for call in calls:
            await self.pause("call")
            self.sent.append(call)
            replies += await super().apply([call])
            await self.pause("answer")
        return replies
