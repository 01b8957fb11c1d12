"""A Redis in memory, as far as the projector and generations use it: shards on nodes that forget, the register, calls that are sent again.

What apply.lua does is done here in Python; tests/simulation/test_same_as_redis.py holds the two against each other.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from projectors.apply import Applied, Found, Header, Reply, ShardFailed
from projectors.calls import Call, Packing
from projectors.fold import Claim
from projectors.stored import Look
from schema import layout
from schema.generation import Generation
from schema.positions import Partition, Watermark

Hash = dict[str, str]
Pause = Callable[[str], Awaitable[None]]
NODES = 2


async def go_on(_: str) -> None:
    """Nothing happens, but whoever waits may go on."""
    await asyncio.sleep(0)


@dataclass(slots=True)
class Shard:
    """Everything in one slot. header: its fields, empty if there is none. hashes: rows and claimants by key."""

    header: Hash = field(default_factory=dict)
    hashes: dict[str, Hash] = field(default_factory=dict)


@dataclass(slots=True)
class Node:
    """What is kept together, replicated together and lost together. The register lies on the first."""

    shards: dict[tuple[str, int], Shard] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    records: dict[str, bytes] = field(default_factory=dict)
    pointer: str | None = None


class Cluster:
    """The nodes, and what each of them was like at earlier moments."""

    def __init__(self) -> None:
        self.nodes = [Node() for _ in range(NODES)]
        self._earlier: list[tuple[int, Node]] = []
        # generation, shard and build of what readers may still look for
        self.gone: set[tuple[str, int, str]] = set()

    def shard(self, generation: str, number: int) -> Shard:
        return self.nodes[number % NODES].shards.setdefault((generation, number), Shard())

    def replicate(self, node: int) -> None:
        """What a failover of this node may go back to."""
        self._earlier = [*[(n, kept) for n, kept in self._earlier if n != node][-3:], (node, copy.deepcopy(self.nodes[node]))]

    def fail_over(self, node: int) -> bool:
        """Lose what was written to the node since it was replicated. Whether it ever was."""
        kept = next((kept for n, kept in reversed(self._earlier) if n == node), None)
        if kept is not None:
            self.nodes[node] = copy.deepcopy(kept)
        return kept is not None

    def empty(self, node: int) -> None:
        """It comes back with nothing; a failover cannot bring back what was before that."""
        self.gone |= {
            (*place, shard.header["build"]) for place, shard in self.nodes[node].shards.items() if shard.header.get("state") == "live"
        }
        self.nodes[node] = Node()
        self._earlier = [(n, kept) for n, kept in self._earlier if n != node]


@dataclass(slots=True)
class MemoryStore:
    """A Store. pause is awaited before and after each call, at "call" and "answer", and before headers are read."""

    cluster: Cluster
    record: Generation
    marker: str
    pause: Pause = go_on
    sent: list[Call] = field(default_factory=list)

    async def headers(self) -> Sequence[Header]:
        await self.pause("headers")
        return [_header(self._shard(number).header) for number in range(self.record.shards)]

    async def apply(self, calls: Sequence[Call]) -> Sequence[Reply]:
        replies: list[Reply] = []
        for call in calls:
            await self.pause("call")
            self.sent.append(call)
            replies.append(self.carry_out(call))
            await self.pause("answer")
        return replies

    async def report(self, as_of_ms: Mapping[Partition, int]) -> None:
        await self.pause("report")

    async def open(self, headers: Mapping[int, Header]) -> None:
        for number, header in headers.items():
            await self.pause("open")
            shard = self._shard(number)
            if not shard.header:
                fields = {partition: watermark.encode().decode() for partition, watermark in header.watermarks.items()}
                shard.header = {"state": (header.state or b"").decode(), "build": header.build or "", **fields}

    async def finish(self, builds: Mapping[int, str]) -> None:
        for number, build in builds.items():
            await self.pause("finish")
            header = self._shard(number).header
            if header.get("state") == "building" and header["build"] == build:
                header["state"] = "live"

    def _shard(self, number: int) -> Shard:
        return self.cluster.shard(self.record.name, number)

    def carry_out(self, call: Call) -> Reply:
        """One call, as apply.lua does it."""
        shard = self._shard(call.shard)
        stored = [shard.header.get(str(advance.partition)) for advance in call.advances]
        if shard.header.get("state") == "failed":
            raise ShardFailed(f"shard {call.shard} failed earlier")
        expected = [advance.expected.encode().decode() for advance in call.advances]
        if shard.header.get("build") != call.build or stored != expected:
            return Found(shard.header.get("build"), [Watermark.decode(text.encode()) if text else None for text in stored])
        self._check(shard.hashes, call)
        shard.header |= {str(advance.partition): advance.new.encode().decode() for advance in call.advances}
        self._write(shard.hashes, call)
        return Applied()

    def _check(self, hashes: dict[str, Hash], call: Call) -> None:
        """Refused where Redis will not add to a count. Those before it are as they were, but 0 where there was none."""
        keys, passed = iter(call.keys), list[tuple[str, str]]()
        for code, *deltas in msgspec.msgpack.decode(call.effects)["counts"]:
            for delta in deltas:
                key = next(keys)
                amount = int(hashes.get(key, {}).get(code, "0")) + int(delta)
                if not -(2**63) <= amount < 2**63:
                    for one, its in passed:
                        hashes.setdefault(one, {}).setdefault(its, "0")
                    self._sweep(hashes, [one for one, _ in passed])
                    raise ShardFailed(f"{code} of {key} would be {amount}")
                passed.append((key, code))

    def _write(self, hashes: dict[str, Hash], call: Call) -> None:
        effects = msgspec.msgpack.decode(call.effects)
        keys, emptied = iter(call.keys), []
        for code, *deltas in effects["counts"]:
            for delta in deltas:
                key = next(keys)
                stored = hashes.setdefault(key, {})
                stored[code] = str(int(stored.get(code, "0")) + int(delta))
                if stored[code] == "0":
                    emptied.append(key)
        for profile in effects["profiles"]:
            key = next(keys)
            if profile:
                stored = hashes.setdefault(key, {})
                stored |= dict(zip(profile[::2], profile[1::2], strict=True))
                for code in effects["zeros"]:
                    stored.setdefault(code, "0")
            else:
                for code in effects["columns"]:
                    hashes.get(key, {}).pop(code, None)
                emptied.append(key)
        for row_id, *when in effects["claims"]:
            key = next(keys)
            if when:
                hashes.setdefault(key, {})[row_id] = when[0]
            else:
                hashes.get(key, {}).pop(row_id, None)
        for row in effects["rows"]:
            hashes[next(keys)] = dict(zip(row[::2], row[1::2], strict=True))
        self._sweep(hashes, emptied)
        # Redis keeps no hash without fields
        for key in call.keys:
            if not hashes.get(key, {"": ""}):
                del hashes[key]

    def _sweep(self, hashes: dict[str, Hash], keys: Iterable[str]) -> None:
        """A row without a profile, all of whose counts are 0, reads as one that never was."""
        for key in keys:
            if self.marker not in hashes.get(key, {}) and all(value == "0" for value in hashes.get(key, {}).values()):
                hashes.pop(key, None)


class MemoryShards:
    """The Shards of projectors/stored.py, of one generation."""

    def __init__(self, cluster: Cluster, record: Generation, packing: Packing) -> None:
        self._cluster, self._record, self._packing = cluster, record, packing

    async def look(self, shard: int, build: str, ids: Sequence[str], claims: Sequence[Claim]) -> Look:
        stored = self._cluster.shard(self._record.name, shard)
        rows = self._packing.layout.rows_prefix(shard, build)
        found = {row_id: stored.hashes.get(rows + row_id, {}) for row_id in ids}
        made = {claim: stored.hashes.get(self._packing.claim_key(claim, build), {}).get(str(claim.key)) for claim in claims}
        return Look(
            _header(stored.header),
            {row_id: {code.encode(): value.encode() for code, value in row.items()} for row_id, row in found.items()},
            {claim: None if when is None else when.encode() for claim, when in made.items()},
        )


class MemoryRegister:
    """A Register, on the first node."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def _node(self) -> Node:
        return self._cluster.nodes[0]

    async def live(self) -> str | None:
        return self._node.pointer

    async def names(self) -> set[str]:
        return set(self._node.names)

    async def read(self, name: str) -> Generation | None:
        stored = self._node.records.get(name)
        return Generation.decode(stored) if stored else None

    async def add(self, record: Generation, known: int) -> bool:
        if len(self._node.names) != known or record.name in self._node.records:
            return False
        self._node.names.add(record.name)
        self._node.records[record.name] = record.encode()
        return True

    async def replace(self, old: Generation, new: Generation) -> bool:
        if self._node.records.get(old.name) != old.encode():
            return False
        self._node.records[old.name] = new.encode()
        return True

    async def restore(self, record: Generation) -> None:
        self._node.names.add(record.name)
        self._node.records.setdefault(record.name, record.encode())

    async def promote(self, record: Generation, instead_of: Generation | None) -> bool:
        stored = await self.read(record.name)
        if stored is None or stored.build != record.build:
            return False
        if self._node.pointer not in {record.name, instead_of.name if instead_of else None}:
            return False
        old = await self.read(instead_of.name) if instead_of else None
        if instead_of and old and old.build == instead_of.build:
            self._node.records[old.name] = instead_of.encode()
        self._node.records[record.name] = record.encode()
        self._node.pointer = record.name
        return True

    async def remove(self, name: str) -> None:
        self._node.records.pop(name, None)


def _header(stored: Hash) -> Header:
    own = (layout.STATE.decode(), layout.BUILD.decode())
    watermarks = {name: Watermark.decode(value.encode()) for name, value in stored.items() if name not in own}
    state = stored.get("state")
    return Header(state.encode() if state else None, stored.get("build"), watermarks)
