"""Which master of a Redis Cluster has which slot, and connections to each. Knows no key and no command of ours."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from redis._parsers import Encoder
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.cluster import parse_cluster_slots
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.cluster.url import Address
from app.pool import Pool
from projectors.exchange import connection_of

# how often the cluster is asked again while nodes say that slots have moved
ASK_SECONDS = 1.0
# and while one of them cannot be reached
DOUBT_SECONDS = 0.1
NO_CLUSTER = "it is no node of a Redis Cluster: write redis:// in place of redis+cluster://, or rediss:// of rediss+cluster://"


async def ask(node: Redis, *command: Any, **options: Any) -> Any:
    """What one node answers."""
    return await node.execute_command(*command, **options)  # type: ignore[no-untyped-call]  # redis-py left it untyped


class Nodes:
    """Stands where a client of one Redis has its pool. seeds: nodes that are asked first. options: of each node's pool.

    met: how often a connection met another server than the one before at its address: see Pool.
    """

    def __init__(self, seeds: Sequence[Address], options: Mapping[str, Any]) -> None:
        self._seeds, self.connection_kwargs = list(seeds), dict(options)
        self._pools: dict[Address, Pool] = {}
        self._owners: dict[int, Address] = {}
        self._masters: set[Address] = set()
        self._silent: set[Address] = set()
        self._ask_at, self._asked_at = 0.0, -math.inf
        self._asking: asyncio.Task[None] | None = None

    @property
    def met(self) -> int:
        return sum(pool.met for pool in self._pools.values())

    @property
    def run_ids(self) -> frozenset[bytes]:
        """Of the masters, as far as they were met."""
        return frozenset(pool.run_id for address in self._masters if (pool := self._pools.get(address)) and pool.met)

    def get_encoder(self) -> Encoder:
        return Encoder("utf-8", "strict", False)  # type: ignore[no-untyped-call]  # redis-py left it untyped

    def owner(self, slot: int) -> Address:
        """Raises RedisConnectionError where no master has it."""
        try:
            return self._owners[slot]
        except KeyError:
            self.doubt()
            raise RedisConnectionError(f"no master of the Redis Cluster has slot {slot}") from None

    def moved(self, slot: int, owner: Address) -> None:
        """A node said that this one has the slot by now."""
        if owner not in self._masters:
            # one that is new, or was promoted: others of its slots have moved too
            self.doubt()
        self._owners[slot] = owner
        self._ask_at = min(self._ask_at, time.monotonic() + ASK_SECONDS)

    def doubt(self) -> None:
        """Ask the cluster soon who has what."""
        self._ask_at = min(self._ask_at, self._asked_at + DOUBT_SECONDS)

    async def known(self) -> None:
        """Return when it is known who has what, or had a moment ago: what is in doubt is asked beside, for one master may be away for long.

        Raises RedisConnectionError, RedisTimeoutError.
        """
        if time.monotonic() >= self._ask_at:
            asking = self._begin()
            if not self._owners:
                await asyncio.shield(asking)

    async def masters(self) -> list[Redis]:
        """A client of each, in the order of their addresses. Raises RedisConnectionError, RedisTimeoutError."""
        await asyncio.shield(self._begin())
        return [Redis(connection_pool=self._pool(address)) for address in sorted(self._masters)]

    async def master_of(self, slot: int) -> Redis:
        """Raises RedisConnectionError, RedisTimeoutError."""
        await asyncio.shield(self._begin())
        return Redis(connection_pool=self._pool(self.owner(slot)))

    @asynccontextmanager
    async def connected(self, addresses: Iterable[Address]) -> AsyncIterator[dict[Address, AbstractConnection]]:
        """One connection to each. They are closed where the block fails: replies not yet read would answer somebody else."""
        async with AsyncExitStack() as stack:
            # all in one order, so that two who wait for connections do not wait for each other
            yield {address: await stack.enter_async_context(self._connection(address)) for address in sorted(addresses)}

    async def aclose(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        await asyncio.gather(*(pool.aclose() for pool in self._pools.values()))

    async def disconnect(self) -> None:
        await asyncio.gather(*(pool.disconnect() for pool in self._pools.values()))

    @asynccontextmanager
    async def _connection(self, address: Address) -> AsyncIterator[AbstractConnection]:
        try:
            async with connection_of(self._pool(address)) as connection:
                yield connection
        except (RedisConnectionError, RedisTimeoutError):
            self.doubt()
            raise

    def _pool(self, address: Address) -> Pool:
        if address not in self._pools:
            self._pools[address] = Pool(in_cluster=True, host=address[0], port=address[1], **self.connection_kwargs)
        return self._pools[address]

    def _begin(self) -> "asyncio.Task[None]":
        """Several wait for one, and who is cancelled takes it from none: shield it."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._ended)
        return self._asking

    async def _ask(self) -> None:
        """Of all nodes that are known, the first that answers; those that did not the last time come last."""
        last: RedisError | None = None
        for address in sorted({*self._masters, *self._seeds}, key=lambda address: (address in self._silent, address)):
            self._asked_at = time.monotonic()
            try:
                told = await ask(Redis(connection_pool=self._pool(address)), "CLUSTER SLOTS")
            except (RedisConnectionError, RedisTimeoutError) as away:
                last = away
                self._silent.add(address)
                continue
            except ResponseError as refused:
                if "cluster support disabled" in str(refused):
                    raise RedisConnectionError(NO_CLUSTER) from refused
                raise
            # a node that does not know its own address leaves it out
            ranges = parse_cluster_slots(told, current_host=address[0])
            self._owners = {
                slot: (str(nodes["primary"][0]), int(nodes["primary"][1]))
                for (first, last), nodes in ranges.items()
                for slot in range(first, last + 1)
            }
            self._masters, self._ask_at = set(self._owners.values()), math.inf
            self._silent.discard(address)
            return
        raise last or RedisConnectionError("the Redis Cluster has no node")

    def _ended(self, ended: "asyncio.Task[None]") -> None:
        self._asking = None
        # seen, even if everybody who waited was cancelled
        _ = ended.cancelled() or ended.exception()
