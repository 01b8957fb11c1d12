"""Rows and claims as they lie in Redis, read in one step with their shard's header, and how they differ from what they must be."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from projectors.apply import Header, reached, read_header
from projectors.audit import Mismatch
from projectors.calls import Packing
from projectors.fold import Claim, Effects, Key
from projectors.replay import LONG_AGO
from schema import layout
from schema.definition import Definition
from schema.generation import Generation


class OtherType(NamedTuple):
    """What lies at a key that is no hash."""

    said: str


class Look(NamedTuple):
    """One shard at one moment. rows: by id, empty where there is none. claims: when each was made, None where it is not there."""

    header: Header
    rows: Mapping[str, Mapping[bytes, bytes] | OtherType]
    claims: Mapping[Claim, bytes | OtherType | None]


class Shards(Protocol):
    """Where the rows of one generation lie."""

    async def look(self, shard: int, build: str, ids: Sequence[str], claims: Sequence[Claim]) -> Look:
        """In one step. Rows and claims are looked for under this build. Raises StoreUnavailable."""
        ...


class RedisShards:
    """Shards in Redis. redis: answers bytes."""

    def __init__(self, redis: Redis, packing: Packing) -> None:
        self._redis, self._packing, self._keys = redis, packing, packing.layout

    async def look(self, shard: int, build: str, ids: Sequence[str], claims: Sequence[Claim]) -> Look:
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hgetall(self._keys.headers[shard])
        rows = self._keys.rows_prefix(shard, build)
        for row_id in ids:
            pipeline.hgetall(rows + row_id)
        for claim in claims:
            pipeline.hget(self._packing.claim_key(claim, build), str(claim.key))
        first, *replies = await reached(pipeline.execute(raise_on_error=False))
        found = [_read(reply) for reply in replies]
        return Look(read_header(first), dict(zip(ids, found[: len(ids)], strict=True)), dict(zip(claims, found[len(ids) :], strict=True)))


class Comparison:
    """Of one generation's rows and claims with the effects that they must be."""

    def __init__(self, definition: Definition, record: Generation, packing: Packing) -> None:
        self._definition, self._packing, self._prefixes = definition, packing, record.prefixes
        self._names = {code: name for name, code in record.codes.items()}
        self._columns = {record.codes[f.name] for f in definition.columns}

    def key(self, row_id: str) -> Key | None:
        """None for a text that can be no key."""
        try:
            layout.canonical(self._definition.key_type, row_id)
        except layout.InvalidKey:
            return None
        return int(row_id) if self._definition.key_type is int else row_id

    def right(self, row_id: str, effects: Effects) -> list[str]:
        """The row as it must be stored: code, fragment, …; empty for none."""
        key = self.key(row_id)
        if key is None:
            return []
        amounts = {f.name: effects.counts.get(f.name, {}).get(key, 0) for f in self._definition.aggregates}
        return self._packing.row(effects.profiles.get(key), amounts)

    def row(self, row_id: str, stored: Mapping[bytes, bytes] | OtherType, effects: Effects) -> list[Mismatch]:
        """How a row differs. A row without profile may lack counts of 0, and have them."""
        right = self.right(row_id, effects)
        wanted = {code: value.encode() for code, value in zip(right[::2], right[1::2], strict=True)}
        id_ = layout.encode(row_id)
        if isinstance(stored, OtherType):
            return [Mismatch(row_id, "key", stored.said.encode(), id_ if wanted else None)]
        mine = {code.decode(): value for code, value in stored.items()}
        if not self._columns & wanted.keys():
            mine = {code: value for code, value in mine.items() if value != b"0" or code in self._columns}
        if mine == wanted:
            return []
        # readers see no row, or one that is none: the fields would be so many lines of the same
        borne, is_wanted = self._columns & mine.keys(), self._columns & wanted.keys()
        if bool(borne) != bool(is_wanted):
            return [Mismatch(row_id, "id", id_ if borne else None, id_ if is_wanted else None)]
        differing = sorted(code for code in mine.keys() | wanted.keys() if mine.get(code) != wanted.get(code))
        return [Mismatch(row_id, self._names.get(code, code), self._shown(code, mine), self._shown(code, wanted)) for code in differing]

    def claim(self, claim: Claim, stored: bytes | OtherType | None, effects: Effects) -> list[Mismatch]:
        """How a claim differs; when it was made counts where that is known."""
        when, id_ = effects.claims[claim], layout.encode(str(claim.key))
        name = f"by {claim.field}"
        if isinstance(stored, OtherType):
            return [Mismatch(claim.value, name, stored.said.encode(), id_ if when else None)]
        if (stored is None) is not (when is None):
            return [Mismatch(claim.value, name, id_ if stored else None, id_ if when else None)]
        if stored is not None and when not in {None, LONG_AGO} and stored != b"%d:%d" % when:
            return [Mismatch(claim.value, name, id_ + b" at " + stored, id_ + b" at %d:%d" % when)]
        return []

    def _shown(self, code: str, row: Mapping[str, bytes]) -> bytes | None:
        prefix = self._prefixes.get(self._names.get(code, ""), "")
        return None if code not in row else layout.uncut(row[code], prefix)


def is_judged(record: Generation, found: Header) -> bool:
    """Whether a shard has what its watermarks say, all of it: not one that is lost, being rebuilt under a live generation, or failed."""
    states = {layout.LIVE, layout.BUILDING} if record.state == "building" else {layout.LIVE}
    return found.state in states and found.build is not None


def known_ids(effects: Effects) -> set[str]:
    """Keys whose row is there, or counts something."""
    counted = {key for deltas in effects.counts.values() for key, amount in deltas.items() if amount}
    return {str(key) for key in counted | {key for key, row in effects.profiles.items() if row is not None}}


def _read(reply: Any) -> Any:
    if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
        return OtherType("of another type")
    if isinstance(reply, Exception):
        raise reply
    return reply
