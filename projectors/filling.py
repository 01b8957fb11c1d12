"""Rows from SQL, written into a generation that nobody reads yet, or into lost shards: what lay before the log that is then read."""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence

from redis.asyncio import Redis

from projectors.apply import Header, reached
from projectors.building import Filled
from projectors.calls import Packing
from projectors.captured import NotCaptured
from projectors.fold import Claim
from projectors.generations import Bounds, GenerationRefused
from projectors.replay import partition_of
from projectors.rows_at import Counted, NoOffsets, RowsAt, RowsSource
from schema import layout
from schema.definition import Definition
from schema.generation import Generation
from schema.positions import Partition, Watermark

# when a row of SQL has claimed its name is not known
LONG_AGO = "0:0"


class Filling:
    """redis: answers bytes. told: how many rows have just been written."""

    def __init__(self, redis: Redis, definition: Definition, told: Callable[[int], None]) -> None:
        self._redis, self._definition, self._told = redis, definition, told

    async def lost(self, record: Generation, shards: Sequence[int], source: RowsSource) -> Filled:
        """These shards, each under a build of its own. Raises GenerationRefused, StoreUnavailable."""
        builds = {shard: secrets.token_hex(2) for shard in shards}
        try:
            async with source.open() as rows:
                offsets = offsets_of(rows, record)
                await self.fill(rows, record, builds)
            level = await source.level(rows)
        except (NoOffsets, NotCaptured) as reason:
            raise GenerationRefused(f"lost shards of {record.name} cannot be written from SQL again: {reason}") from reason
        headers = {shard: Header(layout.BUILDING, build, offsets, rows.seen) for shard, build in builds.items()}
        return Filled(headers, {str(partition): offset for partition, offset in level.items()})

    async def fill(self, rows: RowsAt, record: Generation, builds: Mapping[int, str]) -> None:
        """Every row and claim of the shards in `builds`, at most `record.rate` rows a second."""
        packing = Packing(self._definition, record)
        began, written = time.monotonic(), 0
        async for page in rows.pages():
            pipeline = self._redis.pipeline(transaction=False)
            for counted in page:
                for key, fields in self._hashes(packing, builds, counted):
                    pipeline.hset(key, mapping=fields)  # type: ignore[arg-type]  # its stub wants bytes among the values
            if len(pipeline):
                await reached(pipeline.execute())
            written += len(page)
            self._told(len(page))
            if record.rate:
                await asyncio.sleep(max(0.0, began + written / record.rate - time.monotonic()))

    def _hashes(self, packing: Packing, builds: Mapping[int, str], counted: Counted) -> list[tuple[str, dict[str, str]]]:
        found = []
        text = str(counted.key)
        shard = packing.layout.shard(text)
        flat = packing.row(counted.row, counted.amounts)
        if shard in builds and flat:
            found.append((packing.layout.rows_prefix(shard, builds[shard]) + text, dict(zip(flat[::2], flat[1::2], strict=True))))
        if counted.row is not None:
            for lookup in self._definition.lookups:
                claim = Claim(lookup.name, getattr(counted.row, lookup.name), counted.key)
                home = packing.layout.shard(claim.value)
                if home in builds:
                    found.append((packing.claim_key(claim, builds[home]), {text: LONG_AGO}))
        return found


def start_of(rows: RowsAt, bounds: Bounds) -> dict[Partition, int]:
    """Where the log goes on after these rows. Raises GenerationRefused where Kafka no longer has it."""
    start = {partition: rows.offsets.get(partition, 0) for partition in bounds}
    cut = [str(partition) for partition, (first, _) in bounds.items() if first > start[partition]]
    if cut:
        raise GenerationRefused(
            f"the rows in SQL stand at offsets that Kafka no longer has in {', '.join(cut)}: see that the sink runs, and try again."
        )
    return start


def offsets_of(rows: RowsAt, record: Generation) -> dict[str, Watermark]:
    """The watermarks of a shard that has these rows and nothing more."""
    found = {}
    for name in record.start:
        partition = partition_of(name)
        found[name] = Watermark(rows.offsets.get(partition, 0), 0, record.topic_ids.get(partition.topic, ""))
    return found
