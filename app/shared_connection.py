"""One connection to Redis for all readers of a process: what they ask within a tick of the event loop goes out in one write.

redis-py opens it, with its handshake, its TLS and its passwords; then its bytes are ours. Against a pipeline of redis-py for each request
this is a quarter of the CPU with one reader, and an eighth with 16 (docs/decisions.md).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import hiredis
from redis._parsers.base import BaseParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.pool import Pool
from loaders.sending import Command

# is called once, with the replies, some of which may be errors, or with what ended the connection
Done = Callable[[list[Any] | Exception], None]
# of commands whose replies are awaited: more than Redis answers in a second are too many
MOST_AWAITED = 50_000
STALL_SECONDS = 0.1


class _Asked:
    """So many commands, whose replies come one after another. replies: those that are here."""

    __slots__ = ("count", "done", "replies", "until")

    def __init__(self, count: int, done: Done, until: float) -> None:
        self.count, self.done, self.until = count, done, until
        self.replies: list[Any] = []


class _Link(asyncio.Protocol):
    """One open connection. Replies come in the order of what was asked; whatever puts that into doubt ends the connection.

    seconds: how long a reply may take. Who waits when it ends gets RedisConnectionError, or RedisTimeoutError where it ended for that.
    """

    def __init__(self, connection: AbstractConnection, pool: Pool, seconds: float) -> None:
        self._connection, self._pool, self._seconds = connection, pool, seconds
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=BaseParser.parse_error)
        self._waiting: deque[_Asked] = deque()
        self._awaited = 0
        self._unsent: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._end: Exception | None = None
        self.open = True
        writer = connection._writer  # redis-py shows no other way to it
        assert writer is not None  # noqa: S101 - it has just connected
        self._transport: Any = writer.transport
        self._before = self._transport.get_protocol()
        self._transport.set_protocol(self)

    def begin(self, packed: bytes, count: int, done: Done) -> bool:
        """packed: so many commands. False, and nothing is done: more is awaited than can be answered in time."""
        if self._awaited >= MOST_AWAITED:
            return False
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(packed)
        asked = _Asked(count, done, self._loop.time() + self._seconds)
        self._waiting.append(asked)
        self._awaited += count
        if self._timer is None:
            self._timer = self._loop.call_at(asked.until, self._look)
        return True

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                if isinstance(reply, hiredis.PushNotification):
                    raise InvalidResponse("it tells what nobody has asked for")
                self._take(reply)
        except Exception as error:  # noqa: BLE001 - no reply may ever go to who has not asked
            self._abort(RedisConnectionError(f"what Redis answers cannot be read: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._before.connection_lost(exc)
        self.open = False
        if self._timer:
            self._timer.cancel()
        error = self._end or RedisConnectionError("Redis has closed the connection")
        for asked in self._waiting:
            # one of its own: whoever raises it adds a traceback
            self._tell(asked, type(error)(*error.args))
        self._waiting.clear()
        self._released = self._loop.create_task(self._release())

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()

    def _flush(self) -> None:
        packed, self._unsent = b"".join(self._unsent), []
        self._transport.write(packed)

    def _take(self, reply: Any) -> None:
        asked = self._waiting[0]
        asked.replies.append(reply)
        self._awaited -= 1
        if len(asked.replies) == asked.count:
            self._waiting.popleft()
            self._tell(asked, asked.replies)

    def _tell(self, asked: _Asked, found: list[Any] | Exception) -> None:
        try:
            asked.done(found)
        except Exception as error:  # noqa: BLE001 - a mistake of one who asks is none of the others
            self._loop.call_exception_handler({"message": "what comes after a reply of Redis has failed", "exception": error})

    def _look(self) -> None:
        """Whether the oldest has waited too long: then nobody behind it will be answered any sooner."""
        self._timer = None
        now = self._loop.time()
        if self._waiting and now - self._waiting[0].until > STALL_SECONDS:
            # the loop has stood still, and what Redis has answered meanwhile is not read yet
            self._waiting[0].until = now + STALL_SECONDS
        if self._waiting and self._waiting[0].until <= now:
            self._abort(RedisTimeoutError(f"Redis has not answered for {self._seconds:g} s"))
        elif self._waiting:
            self._timer = self._loop.call_at(self._waiting[0].until, self._look)

    def _abort(self, error: Exception) -> None:
        if self.open:
            self.open, self._end = False, error
            self._transport.abort()

    async def _release(self) -> None:
        await self._connection.disconnect(nowait=True)
        await self._pool.release(self._connection)


class SharedConnection:
    """Opened when it is first needed, and again when it was lost. pool: one of its connections is taken. seconds: see _Link."""

    def __init__(self, pool: Pool, seconds: float) -> None:
        self._pool, self._seconds = pool, seconds
        self._link: _Link | None = None
        self._opening: asyncio.Task[_Link] | None = None

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The reply to each. Raises the first that is an error, and what `_Link` tells; RedisConnectionError where too much is awaited."""
        link = self._link
        if link is None or not link.open:
            link = await self._opened()
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        # its stub means a tuple of one, it takes any
        packed = b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type]
        if not link.begin(packed, len(commands), partial(_settle, future, commands)):
            raise RedisConnectionError(f"{MOST_AWAITED:,} replies of Redis are awaited already")
        return await future

    def begin(self, packed: bytes, count: int, done: Done) -> bool:
        """Without awaiting: see `_Link.begin`. False, and nothing is done, where it is not open, too."""
        link = self._link
        return link is not None and link.open and link.begin(packed, count, done)

    async def _opened(self) -> _Link:
        """By one attempt for all who wait: each of its own would wait for those before it. Who stops waiting stops it for nobody."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._tried)
        return await asyncio.shield(self._opening)

    async def _open(self) -> _Link:
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py left it untyped
        self._link = _Link(connection, self._pool, self._seconds)
        return self._link

    def _tried(self, opening: "asyncio.Task[_Link]") -> None:
        self._opening = None
        if not opening.cancelled():
            # there may be nobody left to hear of it
            opening.exception()


def _settle(future: "asyncio.Future[list[Any]]", commands: Sequence[Command], found: list[Any] | Exception) -> None:
    # who has stopped waiting gets nothing; the replies were read all the same
    if future.done():
        return
    refused = found if isinstance(found, Exception) else next((one for one in found if isinstance(one, Exception)), None)
    if refused is not None:
        future.set_exception(refused)
    else:
        future.set_result([_shaped(command, reply) for command, reply in zip(commands, found, strict=True)])  # type: ignore[arg-type]


def _shaped(command: Command, reply: Any) -> Any:
    """As redis-py has it: a hash is a mapping, also where the protocol has only lists."""
    if command[0] == "HGETALL" and isinstance(reply, list):
        return dict(zip(reply[::2], reply[1::2], strict=True))
    return reply
