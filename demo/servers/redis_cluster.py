"""A Redis Cluster of the redis-server of this machine, 7 or newer: masters alone, whose slots can be moved while they are used."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from redis.asyncio import Redis

from demo.servers import redis as redis_server
from demo.servers.process import NotReadyError, free_port, until
from demo.servers.server import Say, Server

SLOTS = 16384
NODE_TIMEOUT_MS = 2000
OPTIONS = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-require-full-coverage", "no")
MIGRATE_MS = 5000
START_SECONDS = 20


class Step(Protocol):
    """Moves so many keys of a slot, and says how many there were; then waits."""

    def __call__(self, keys: int, pause_seconds: float = 0.0, /) -> Awaitable[int]: ...


@dataclass(frozen=True, slots=True)
class Cluster:
    """masters: each a server of its own. server: all of them as one, by the address that names every master."""

    masters: Sequence[Server]
    server: Server

    async def owners(self) -> Mapping[int, Server]:
        """Who has each slot, by the word of each master itself."""
        found: dict[int, Server] = {}
        for master in self.masters:
            async with Redis.from_url(master.address) as client:
                for first, last in await _own(client):
                    found |= dict.fromkeys(range(first, last + 1), master)
        return found

    async def move(self, slot: int, to: Server, keys: int = 50, pause_seconds: float = 0.0) -> bool:
        """As `redis-cli --cluster reshard` does, so many keys at a time. Whether it was not there already.

        pause_seconds: after each time: then the slot is half here and half there.
        """
        if (await self.owners())[slot] is to:
            return False
        async with self.moving(slot, to) as step:
            while await step(keys, pause_seconds):
                pass
        return True

    @asynccontextmanager
    async def moving(self, slot: int, to: Server) -> AsyncIterator[Step]:
        """The slot is on its way until the block ends. Yields what moves its keys."""
        source = (await self.owners())[slot]
        async with Redis.from_url(source.address) as old, Redis.from_url(to.address) as new:
            old_id, new_id = await _id(old), await _id(new)
            await _ask(new, "CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
            await _ask(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)

            async def step(keys: int, pause_seconds: float = 0.0) -> int:
                names = await _ask(old, "CLUSTER", "GETKEYSINSLOT", slot, keys)
                if names:
                    await _ask(old, "MIGRATE", "127.0.0.1", port_of(to), "", 0, MIGRATE_MS, "KEYS", *names)
                await asyncio.sleep(pause_seconds)
                return len(names)

            yield step
            while await step(50):
                pass
            # the one that has it by now first: else it would be nobody's for a moment
            for client in (new, old):
                await _ask(client, "CLUSTER", "SETSLOT", slot, "NODE", new_id)
        for other in self.masters:
            if other not in (source, to):
                async with Redis.from_url(other.address) as client:
                    await _ask(client, "CLUSTER", "SETSLOT", slot, "NODE", new_id)


@asynccontextmanager
async def start(folder: Path, cache: Path, masters: int = 3, *, options: Sequence[str] = (), say: Say) -> AsyncIterator[Cluster]:
    """So many masters with even shares of the slots, that agree on who has what. options: more of redis-server's."""
    async with AsyncExitStack() as stack:
        nodes, buses = [], [free_port() for _ in range(masters)]
        for number, bus in enumerate(buses):
            more = (*OPTIONS, "--cluster-port", str(bus), *options)
            node = redis_server.start(folder / f"master{number}", cache, options=more, prefer="installed", say=say)
            nodes.append(await stack.enter_async_context(node))
        await _joined(nodes, buses[0])
        address = "redis+cluster://" + ",".join(f"127.0.0.1:{port_of(node)}" for node in nodes)
        yield Cluster(nodes, Server("redis", nodes[0].kind, f"{masters} masters of {nodes[0].what}", address, None))


async def serves(master: Server) -> None:
    """Raises NotReadyError until it answers for its slots, which one that was restarted does after two seconds."""
    async with Redis.from_url(master.address) as client:
        told = await _ask(client, "CLUSTER INFO")
    if told["cluster_state"] != "ok":
        raise NotReadyError(f"{master.address}: {told['cluster_state']}")


def port_of(master: Server) -> int:
    return int(urlsplit(master.address).port or 0)


async def _joined(masters: Sequence[Server], first_bus: int) -> None:
    share = SLOTS // len(masters)
    for number, master in enumerate(masters):
        last = SLOTS - 1 if number == len(masters) - 1 else (number + 1) * share - 1
        async with Redis.from_url(master.address) as client:
            # two of one epoch that claim one slot would be a long time about it
            await _ask(client, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            await _ask(client, "CLUSTER", "ADDSLOTS", *range(number * share, last + 1))
            await _ask(client, "CLUSTER", "MEET", "127.0.0.1", port_of(masters[0]), first_bus)
    for master in masters:
        await until(partial(_agrees, master, len(masters)), START_SECONDS)


async def _agrees(master: Server, masters: int) -> None:
    """Raises NotReadyError until it knows of a master for every slot."""
    async with Redis.from_url(master.address) as client:
        told = await _ask(client, "CLUSTER INFO")
    if (told["cluster_state"], told["cluster_slots_ok"], told["cluster_size"]) != ("ok", str(SLOTS), str(masters)):
        raise NotReadyError(f"{master.address}: {told}")


async def _ask(client: Redis, *command: str | int | bytes) -> Any:
    return await client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py left it untyped


async def _id(client: Redis) -> str:
    told: bytes = await _ask(client, "CLUSTER", "MYID")
    return told.decode()


async def _own(client: Redis) -> list[tuple[int, int]]:
    nodes = await _ask(client, "CLUSTER NODES")
    (own,) = [node for node in nodes.values() if "myself" in node["flags"]]
    return [(int(ends[0]), int(ends[-1])) for ends in own["slots"]]
