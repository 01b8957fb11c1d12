"""A client of a Redis Cluster with the face of a client of one Redis, so that who uses it need not know. Knows no key of ours.

redis-py's own client of a cluster asks for a moving slot (ASKING) on another connection than the one it sends the command by, closes
every connection that is in use when a slot has moved, raises where all connections are in use, and sends a command that was
redirected after those that came behind it: readers would see errors, and rows older than their watermark.
"""

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import hiredis
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, NoScriptError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from app.cluster.commands import EVERYWHERE, SPLIT, key_of
from app.cluster.nodes import Nodes, ask
from app.cluster.url import Address
from app.cluster.walk import Walks
from projectors.exchange import Check, Packed, exchange

# a slot on its way, until its last key has come over
PAUSE_SECONDS = 0.01
AT_ONCE = 2
_ASKING = hiredis.pack_command(("ASKING",))
Args = tuple[Any, ...]


class Unit(NamedTuple):
    """What goes to one slot in one piece: a command, or a transaction with so many replies."""

    slot: int
    packed: bytes
    replies: int = 1


class ClusterClient(Redis):
    """seconds: how long a command is sent again while its slot is on its way.

    redirected: how often a node answered MOVED, ASK or TRYAGAIN; nothing of the command was done then. Commands of one slot are
    carried out in their order, also then; those of several are not. A command that names no key, and is none of EVERYWHERE, is refused:
    ask one of the `masters`.
    """

    def __init__(self, nodes: Nodes, seconds: float) -> None:
        super().__init__(connection_pool=nodes)  # type: ignore[arg-type]  # has what a client asks of its pool
        self._nodes, self._seconds = nodes, seconds
        self._scripts: dict[str, str] = {}
        self._walks = Walks(self.masters)
        self.redirected: Counter[str] = Counter()

    async def masters(self) -> list[Redis]:
        return await self._nodes.masters()

    async def master_of(self, key: str) -> Redis:
        return await self._nodes.master_of(key_slot(key.encode()))

    async def exchange(self, commands: Sequence[Packed], check: Check) -> list[Any]:
        """See Exchange."""
        return await self._carry_out([Unit(key_slot(key.encode()), packed) for key, packed in commands], check)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        name = str(args[0]).upper()
        if name == "SCAN":
            return await self._walks.page(int(args[1]), args[2:])
        if name in EVERYWHERE:
            if name == "SCRIPT LOAD":
                digest = await self._everywhere(args, options, EVERYWHERE[name])
                self._scripts[digest] = args[1]
                return digest
            return await self._everywhere(args, options, EVERYWHERE[name])
        if name in SPLIT and len(args) > 2:
            one, joined = SPLIT[name]
            return joined(await self.run([(one, key) for key in args[1:]]))
        (reply,) = await self.run([args])
        if isinstance(reply, Exception):
            raise reply
        return await self.read(args, options, reply)

    async def run(self, commands: Sequence[Args]) -> list[Any]:
        """The reply to each, as it came over the wire. Those that are refused are a ResponseError in their place."""
        replies = await self._carry_out([Unit(self._slot(args), _packed(args)) for args in commands], _nothing)
        unknown = {place: script for place, script in enumerate(map(self._script, commands, replies)) if script is not None}
        if unknown:
            # a master that is new, or was restarted
            again = [("EVAL", script, *commands[place][2:]) for place, script in unknown.items()]
            for place, reply in zip(unknown, await self.run(again), strict=True):
                replies[place] = reply
        return replies

    async def run_as_one(self, commands: Sequence[Args]) -> list[Any]:
        """The same in one transaction. All of them name keys of one slot."""
        slot, *others = {self._slot(args) for args in commands}
        if others:
            raise TypeError("a transaction in a Redis Cluster is of one slot: its keys must have one hash tag")
        packed = b"".join(map(_packed, (("MULTI",), *commands, ("EXEC",))))
        (told,) = await self._carry_out([Unit(slot, packed, len(commands) + 2)], _nothing)
        done = told[-1]
        if isinstance(done, ResponseError):
            raise next(reply for reply in told if isinstance(reply, ResponseError))
        return list(done)

    async def read(self, args: Args, options: Mapping[str, Any], reply: Any) -> Any:
        """A reply as a client of one Redis has it."""
        callback = self.response_callbacks.get(args[0])
        if callback is None:
            return reply
        read = callback(reply, **{name: value for name, value in options.items() if name != "keys"})
        return await read if inspect.isawaitable(read) else read

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "ClusterPipeline":
        return ClusterPipeline(self, transaction, shard_hint)

    def knows(self, scripts: Mapping[str, str]) -> None:
        """By their digests, in case that a master does not."""
        self._scripts |= scripts

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self._nodes.aclose()

    async def _everywhere(self, args: Args, options: Mapping[str, Any], joined: Callable[[list[Any]], Any]) -> Any:
        masters = await self._nodes.masters()
        return joined(await asyncio.gather(*(ask(master, *args, **options) for master in masters)))

    def _slot(self, args: Args) -> int:
        key = key_of(args)
        return key_slot(key if isinstance(key, bytes) else str(key).encode())

    def _script(self, args: Args, reply: Any) -> str | None:
        return self._scripts.get(_text(args[1])) if isinstance(reply, NoScriptError) else None

    async def _carry_out(self, units: Sequence[Unit], check: Check) -> list[Any]:
        replies: list[Any] = [None] * len(units)
        left: dict[int, list[int]] = {}
        for place, unit in enumerate(units):
            left.setdefault(unit.slot, []).append(place)
        asking: dict[int, Address] = {}
        clock = asyncio.get_running_loop().time
        ends, idle = clock() + self._seconds, 0
        while left:
            await self._nodes.known()
            sent = {slot: list(takewhile(asking.__contains__, places)) or places for slot, places in left.items()}
            await self._round(units, sent, asking, replies, check)
            asking.clear()
            if sum([self._take(slot, places, left, asking, replies) for slot, places in sent.items()]):
                ends, idle = clock() + self._seconds, 0
            elif clock() > ends:
                reply = next(_redirect(replies[places[0]]) for places in left.values())
                raise RedisConnectionError(f"slots of the Redis Cluster were on their way for {self._seconds:g} s: {reply}")
            else:
                # told where to, and told where to again: the masters do not agree yet
                idle += 1
            if idle > AT_ONCE or any(isinstance(_redirect(replies[places[0]]), TryAgainError) for places in left.values()):
                await asyncio.sleep(PAUSE_SECONDS)
        return replies

    async def _round(
        self, units: Sequence[Unit], sent: Mapping[int, Sequence[int]], asking: Mapping[int, Address], replies: list[Any], check: Check
    ) -> None:
        """What is sent of each slot to its node, all nodes at a time."""
        places: dict[Address, list[int]] = {}
        for slot, some in sent.items():
            places.setdefault(asking.get(some[0]) or self._nodes.owner(slot), []).extend(some)
        async with self._nodes.connected(places) as connections:
            check()
            sending = [_send(connections[at], units, some, asking, replies) for at, some in places.items()]
            # each to its end: one that failed takes no others along
            problems = [problem for problem in await asyncio.gather(*sending, return_exceptions=True) if problem is not None]
        if problems:
            self._nodes.doubt()
            raise problems[0]

    def _take(self, slot: int, sent: Sequence[int], left: dict[int, list[int]], asking: dict[int, Address], replies: Sequence[Any]) -> int:
        """Leave what was redirected and all behind it, so that a slot's commands keep their order; how many were done.

        A node that answers ASK has no such key any more, and may have others of the slot: the next is asked for by itself.
        """
        done = next((number for number, place in enumerate(sent) if _redirect(replies[place])), len(sent))
        left[slot] = left[slot][done:]
        if not left[slot]:
            del left[slot]
        for place in sent[done:]:
            reply = _redirect(replies[place])
            if reply is None:
                break
            self.redirected[_word(reply)] += 1
            if isinstance(reply, MovedError):
                self._nodes.moved(slot, self._address(reply, slot))
            if isinstance(reply, MovedError) or not isinstance(reply, AskError):
                break
            asking[place] = self._address(reply, slot)
        return done

    def _address(self, reply: AskError, slot: int) -> Address:
        # a node that does not know the other's address leaves it out: it is at the same host
        return str(reply.host or self._nodes.owner(slot)[0]), int(reply.port)


async def _send(
    connection: AbstractConnection, units: Sequence[Unit], places: Sequence[int], asking: Mapping[int, Address], replies: list[Any]
) -> None:
    """By one connection: what lets the next command find a slot that is on its way goes right before it."""
    pieces = [piece for place in places for piece in ((_ASKING, units[place].packed) if place in asking else (units[place].packed,))]
    try:
        told = iter(await exchange(connection, b"".join(pieces), sum(units[place].replies + (place in asking) for place in places)))
    except BaseException:
        # replies not yet read would answer the next command of whoever gets this connection
        await connection.disconnect(nowait=True)
        raise
    for place in places:
        if place in asking:
            next(told)
        replies[place] = next(told) if units[place].replies == 1 else [next(told) for _ in range(units[place].replies)]


class ClusterPipeline(Pipeline):
    """Several commands at a time: those of one slot in their order, and those of several side by side. A transaction is of one slot."""

    def __init__(self, client: ClusterClient, transaction: bool, shard_hint: str | None) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, shard_hint)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        stack = self.command_stack
        if not stack:
            return []
        self._client.knows({script.sha: script.script for script in self.scripts if isinstance(script.script, str)})
        run = self._client.run_as_one if self.is_transaction else self._client.run
        try:
            replies = await run([args for args, _ in stack])
            if raise_on_error:
                self.raise_first_error(stack, replies)
            pairs = zip(stack, replies, strict=True)
            return [reply if isinstance(reply, Exception) else await self._client.read(*one, reply) for one, reply in pairs]
        finally:
            await self.reset()  # type: ignore[no-untyped-call]  # redis-py left it untyped


def _redirect(reply: Any) -> ResponseError | None:
    told = reply if isinstance(reply, list) else (reply,)
    return next((one for one in told if isinstance(one, AskError | TryAgainError)), None)


def _word(reply: ResponseError) -> str:
    return "MOVED" if isinstance(reply, MovedError) else "ASK" if isinstance(reply, AskError) else "TRYAGAIN"


def _packed(args: Args) -> bytes:
    return bytes(hiredis.pack_command((*str(args[0]).split(), *args[1:])))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _nothing() -> None: ...
