"""Effects packed into one call per touched shard. Pure; apply.py sends them, apply.lua reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from projectors.fold import Claim, Effects
from schema import layout
from schema.definition import Definition
from schema.fields import Row
from schema.generation import Generation
from schema.positions import Partition, Watermark


@dataclass(frozen=True, slots=True)
class Advance:
    """A watermark's step: what is expected to be stored, and what is to be."""

    partition: Partition
    expected: Watermark
    new: Watermark


@dataclass(frozen=True, slots=True)
class Call:
    """One shard's compare-and-set. keys: what the effects touch, in their order. effects: MessagePack, see apply.lua."""

    shard: int
    build: str
    advances: Sequence[Advance]
    keys: Sequence[str]
    effects: bytes


@dataclass(slots=True)
class _Shard:
    rows: str
    count_keys: list[str] = field(default_factory=list)
    counts: list[list[Any]] = field(default_factory=list)
    profile_keys: list[str] = field(default_factory=list)
    profiles: list[list[str]] = field(default_factory=list)
    claim_keys: list[str] = field(default_factory=list)
    claims: list[list[str]] = field(default_factory=list)
    hash_keys: list[str] = field(default_factory=list)
    hashes: list[Sequence[str]] = field(default_factory=list)


class Packing:
    """Packs effects for one generation of one view."""

    def __init__(self, definition: Definition, generation: Generation) -> None:
        self.layout = layout.Layout(definition.name, generation.name, generation.shards)
        self._codes, self._prefixes = generation.codes, generation.prefixes
        self._lookups = {f.name: f for f in definition.lookups}
        self._columns = [(f.name, self._codes[f.name], self._prefixes.get(f.name, "")) for f in definition.columns]
        self.marker = self._columns[0][1]
        self._zeros = [self._codes[f.name] for f in definition.aggregates]
        self.nothing = self._pack(_Shard(""))

    def shards(self, effects: Effects, builds: Sequence[str]) -> dict[int, tuple[Sequence[str], bytes]]:
        """Keys and packed effects of each shard that is touched; builds: of each shard."""
        shards: dict[int, _Shard] = {}
        for name, deltas in effects.counts.items():
            self._add_counts(shards, builds, self._codes[name], deltas)
        for key, row in effects.profiles.items():
            shard, name = self._shard(shards, builds, str(key))
            shard.profile_keys.append(shard.rows + name)
            shard.profiles.append([] if row is None else self._profile(row))
        for claim, when in effects.claims.items():
            number = self.layout.shard(claim.value)
            shard, _ = self._shard(shards, builds, claim.value)
            self._add_claim(shard, builds[number], claim, when)
        return {number: (self._keys(shard), self._pack(shard)) for number, shard in shards.items()}

    def row(self, row: Row | None, amounts: Mapping[str, int]) -> list[str]:
        """A whole row as it is stored: code, fragment, … One without a profile has only the counts that are not 0."""
        counts = [(self._codes[name], amount) for name, amount in amounts.items() if amount or row is not None]
        return [*([] if row is None else self._profile(row)), *(text for code, amount in counts for text in (code, str(amount)))]

    def mend(
        self,
        shard: int,
        build: str,
        watermarks: Mapping[Partition, Watermark],
        hashes: Mapping[str, Sequence[str]],
        claims: Mapping[Claim, tuple[int, int] | None],
    ) -> Call:
        """Replace whole hashes and set claims of one shard while all its watermarks are exactly these, which stay as they are.

        hashes: by key of Redis, what is to be there instead, field and value in turn; nothing: no such key.
        """
        mended = _Shard("", hash_keys=list(hashes), hashes=list(hashes.values()))
        for claim, when in claims.items():
            self._add_claim(mended, build, claim, when)
        advances = [Advance(partition, watermark, watermark) for partition, watermark in watermarks.items()]
        return Call(shard, build, advances, self._keys(mended), self._pack(mended))

    def claim_key(self, claim: Claim, build: str) -> str:
        """Where the claimants of the claim's value are. build: of that value's shard."""
        return self.layout.claims_prefix(self.layout.shard(claim.value), build, self._lookups[claim.field]) + claim.value

    def _add_claim(self, shard: _Shard, build: str, claim: Claim, when: tuple[int, int] | None) -> None:
        shard.claim_keys.append(self.claim_key(claim, build))
        shard.claims.append([str(claim.key)] if when is None else [str(claim.key), f"{when[0]}:{when[1]}"])

    def _add_counts(self, shards: dict[int, _Shard], builds: Sequence[str], code: str, deltas: dict[Any, int]) -> None:
        by_shard: dict[int, tuple[list[Any], list[str], str]] = {}
        shard_of = self.layout.shard
        for key, delta in deltas.items():
            name = str(key)
            number = shard_of(name)
            if number not in by_shard:
                shard, _ = self._shard(shards, builds, name)
                shard.counts.append([code])
                by_shard[number] = (shard.counts[-1], shard.count_keys, shard.rows)
            if not delta:
                # the shard is called all the same: someone else may have applied only the first half of what cancels out
                continue
            list_, keys, rows = by_shard[number]
            # as text: a number of Lua's is a double, which Redis would have to write as digits again
            list_.append(str(delta))
            keys.append(rows + name)

    def _shard(self, shards: dict[int, _Shard], builds: Sequence[str], name: str) -> tuple[_Shard, str]:
        number = self.layout.shard(name)
        if number not in shards:
            shards[number] = _Shard(self.layout.rows_prefix(number, builds[number]))
        return shards[number], name

    def _profile(self, row: Row) -> list[str]:
        flat = []
        for name, code, prefix in self._columns:
            flat += [code, layout.cut(layout.encode(getattr(row, name)), prefix).decode()]
        return flat

    @staticmethod
    def _keys(shard: _Shard) -> Sequence[str]:
        return [*shard.count_keys, *shard.profile_keys, *shard.claim_keys, *shard.hash_keys]

    def _pack(self, shard: _Shard) -> bytes:
        return msgspec.msgpack.encode(
            {
                "counts": shard.counts,
                "zeros": self._zeros if shard.profiles else [],
                "columns": [code for _, code, _ in self._columns] if shard.profiles else [],
                "profiles": shard.profiles,
                "claims": shard.claims,
                "rows": shard.hashes,
            }
        )
