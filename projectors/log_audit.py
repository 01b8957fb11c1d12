"""The view held against a fold of the log: rows and claims of a sample of keys, each at exactly the watermarks that it was read with."""

import asyncio
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence

from projectors.apply import Store
from projectors.audit import Mismatch, Report
from projectors.calls import Packing
from projectors.clock import Clock
from projectors.fold import Claim, Effects
from projectors.repair import Base
from projectors.replay import Replay, Tail, WritesLost, offsets_of
from projectors.stored import Comparison, Look, Shards, is_judged, known_ids
from schema.definition import Definition
from schema.generation import Generation

LOOKS = 2
RESTARTS = 5
PAGE = 500
ABREAST = 16


class Sample:
    """A share of all keys, by their hash: of what is in the view and of what only the log knows alike. share: 1.0 is all of them."""

    def __init__(self, share: float, salt: str) -> None:
        self._limit, self._salt = int(share * 2**32), salt

    def __contains__(self, row_id: object) -> bool:
        return zlib.crc32(f"{self._salt}{row_id}".encode()) < self._limit


class LogAudit:
    """Of one generation. told: how many records of the log were just read.

    A mismatch counts if a second look finds it too. `unjudged` has the shards that are being rebuilt, or failed: nothing is said of them.
    """

    def __init__(
        self,
        definition: Definition,
        record: Generation,
        store: Store,
        shards: Shards,
        base: Base,
        tail: Tail,
        clock: Clock,
        sample: Sample,
        told: Callable[[int], None],
    ) -> None:
        self._definition, self._record, self._store, self._shards, self._base = definition, record, store, shards, base
        self._sample = sample
        self._packing = Packing(definition, record)
        self._comparison = Comparison(definition, record, self._packing)
        self._replay = Replay(definition, self._packing.layout, tail, clock, sample.__contains__, told)
        self.unjudged: set[int] = set()

    async def reports(self, in_view: AsyncIterable[Sequence[str]]) -> AsyncIterator[Report]:
        """One round, shard by shard; the first reads the log from its beginning, the next ones only what has come.

        in_view: pages of the ids that the view has. Raises ReplayImpossible, WritesLost, StoreUnavailable, and what the base raises.
        """
        by_shard: dict[int, set[str]] = {}
        async for page in in_view:
            for row_id in page:
                if row_id in self._sample:
                    by_shard.setdefault(self._packing.layout.shard(row_id), set()).add(row_id)
        await self._begin()
        self.unjudged = {number for number, shard in enumerate(self._replay.shards) if not shard.is_judged}
        judged = [number for number in range(self._record.shards) if number not in self.unjudged]
        for at in range(0, len(judged), ABREAST):
            for report in await self._group(judged[at : at + ABREAST], by_shard):
                yield report

    async def _group(self, numbers: Sequence[int], by_shard: Mapping[int, set[str]]) -> Sequence[Report]:
        """Some shards abreast: the log is waited for once and not for each."""
        for _ in range(RESTARTS):
            found = await asyncio.gather(*(self._compared(n, by_shard.get(n, set())) for n in numbers), return_exceptions=True)
            errors = [one for one in found if isinstance(one, BaseException)]
            if not errors:
                return [one for one in found if isinstance(one, Report)]
            if failed := [error for error in errors if not isinstance(error, WritesLost)]:
                raise failed[0]
            await self._begin(anew=True)
        raise WritesLost(
            f"some of the shards {numbers[0]} to {numbers[-1]} lose writes, or come and go, all the time: see `viewgate doctor`."
        )

    async def _begin(self, *, anew: bool = False) -> None:
        """Read the log from where it begins, unless it was read already and for the same shards."""
        headers = await self._store.headers()
        watermarks = [offsets_of(header.watermarks) if is_judged(self._record, header) else None for header in headers]
        if anew or [shard.is_judged for shard in self._replay.shards] != [offsets is not None for offsets in watermarks]:
            await self._replay.begin(await self._base.of(()), watermarks)

    async def _compared(self, number: int, in_view: set[str]) -> Report:
        report, effects = Report(), self._replay.shards[number].effects
        ids, claims = sorted(in_view | known_ids(effects)), list(effects.claims)
        for at in range(0, max(len(ids), len(claims)), PAGE):
            await self._compare(report, number, ids[at : at + PAGE], claims[at : at + PAGE])
        return report

    async def _compare(self, report: Report, number: int, ids: Sequence[str], claims: Sequence[Claim]) -> None:
        report.rows += len(ids)
        report.fields += len(ids) * len(self._definition.fields) + len(claims)
        found: list[Mismatch] = []
        for _ in range(LOOKS):
            look, effects = await self._look(number, ids, claims)
            rows = {row_id: self._comparison.row(row_id, row, effects) for row_id, row in look.rows.items()}
            claimed = {claim: self._comparison.claim(claim, when, effects) for claim, when in look.claims.items()}
            ids, claims = [row_id for row_id in ids if rows[row_id]], [claim for claim in claims if claimed[claim]]
            found = [mismatch for mismatches in _of(rows.values(), claimed.values()) for mismatch in mismatches]
            if not found:
                break
        report.mismatches += found

    async def _look(self, number: int, ids: Sequence[str], claims: Sequence[Claim]) -> tuple[Look, Effects]:
        """And what it must show. Raises WritesLost where the shard is not what it was."""
        build = ""
        while True:
            look = await self._shards.look(number, build, ids, claims)
            if not is_judged(self._record, look.header):
                raise WritesLost
            if look.header.build == build:
                break
            build = look.header.build or ""
        offsets = offsets_of(look.header.watermarks)
        await self._replay.reach(offsets)
        return look, self._replay.at(number, offsets)


def _of(*found: Iterable[list[Mismatch]]) -> Iterable[list[Mismatch]]:
    for mismatches in found:
        yield from mismatches
