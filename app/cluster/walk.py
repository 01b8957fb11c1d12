"""SCAN over all masters of a Redis Cluster, as if they were one. Reads names of keys, and nothing else."""

import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from app.cluster.nodes import ask

# walks that were left off in the middle are forgotten, the oldest first
MOST = 64
Masters = Callable[[], Awaitable[list[Redis]]]
Page = tuple[int, list[bytes]]


@dataclass(slots=True)
class Walk:
    """assigned: which master had which slots when it began, None if some were on their way. cursor: in the master that it is at."""

    masters: list[Redis]
    assigned: object
    at: int = 0
    cursor: int = 0


@dataclass(slots=True)
class Walks:
    """A cursor is a walk's number. One whose walk is not known begins anew: keys come more than once, as they may from one Redis."""

    masters: Masters
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _walks: dict[int, Walk] = field(default_factory=dict)

    async def page(self, cursor: int, options: Sequence[Any]) -> Page:
        """Some keys, and where to go on; 0: every key that was there all the time has come.

        A key moves with its slot, from a master still to come to one that was left: so where a slot has moved, the walk begins again.
        """
        walk = self._walks.pop(cursor, None) or await self._begun()
        number = cursor or next(self._numbers)
        # last in the order in which they are forgotten; and kept should the command fail, to be asked for again
        self._walks[number] = walk
        after, keys = await ask(walk.masters[walk.at], "SCAN", walk.cursor, *options)
        walk.cursor = int(after)
        if walk.cursor == 0:
            walk.at += 1
        if walk.at == len(walk.masters):
            del self._walks[number]
            if walk.assigned is not None and walk.assigned == await _assigned(walk.masters):
                return 0, keys
            self._walks[number] = await self._begun()
        while len(self._walks) > MOST:
            del self._walks[next(iter(self._walks))]
        return number, keys

    async def _begun(self) -> Walk:
        masters = await self.masters()
        return Walk(masters, await _assigned(masters))


async def _assigned(masters: Sequence[Redis]) -> object:
    """What each master says of its own slots, and since when; None while one is on its way."""
    told = []
    for master in masters:
        nodes: dict[str, Any] = await ask(master, "CLUSTER NODES")
        (own,) = [node for node in nodes.values() if "myself" in node["flags"]]
        if own["migrations"]:
            return None
        told.append((own["node_id"], own["epoch"], own["slots"]))
    return told
