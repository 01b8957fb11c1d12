"""A batch's records to changes: what is no change is buried, what may not be added to the generation stops the projector."""

import asyncio
from typing import Any

from projectors.building import Build
from projectors.dead_letters import DeadLetters
from projectors.fold import Changes
from projectors.log import Batch
from projectors.observing import Observer
from projectors.reading import SourceChanged
from projectors.records import decoders
from projectors.records.envelope import Change, Undecodable
from schema.definition import Definition
from schema.positions import Partition

# records between two looks at what else there is to do: some milliseconds
AT_ONCE = 2_000


class BeginningUnknown(Exception):
    """Whether a snapshot's row may be counted depends on what came before it in its partition, which has to be read again."""


class Decoding:
    """For one generation."""

    def __init__(self, definition: Definition, build: Build, dead_letters: DeadLetters, observer: Observer) -> None:
        self._build, self._dead_letters, self._observer = build, dead_letters, observer
        self._decoders = decoders(definition)
        # whether a change has come before, where that is known
        self._changed: dict[Partition, bool] = {}

    def begin(self, partition: Partition, *, at_start: bool) -> None:
        """Reading begins anew. at_start: where the generation began."""
        self._changed.pop(partition, None)
        if at_start:
            self._changed[partition] = False

    async def changes(self, batch: Batch) -> Changes:
        """Each with its offset; records that change nothing are left out. Raises SourceChanged, BeginningUnknown."""
        decoded = await self._decoded(batch)
        changes: list[tuple[int, Change[Any]]] = []
        is_settled = False
        for record, change in zip(batch.records, decoded, strict=True):
            if change is None:
                continue
            if isinstance(change, Undecodable):
                self._observer.dead_letter(batch.partition)
                await self._dead_letters.bury(batch.partition, record, str(change))
                continue
            if change.op in "rt":
                if not (is_settled or self._build.record.promoted):
                    # whether it is promoted by now; nothing of this batch is applied yet, so one look is as good as one for each row
                    await self._build.settle()
                is_settled = True
                self._admit(batch.partition, record.offset, change.op)
            else:
                self._changed[batch.partition] = True
            changes.append((record.offset, change))
        return changes

    async def _decoded(self, batch: Batch) -> list[Change[Any] | Undecodable | None]:
        """Some at a time, so that others' answers are read meanwhile; nothing is decided and nothing kept."""
        decode = self._decoders[batch.partition.topic]
        decoded: list[Change[Any] | Undecodable | None] = []
        for number, record in enumerate(batch.records):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                decoded.append(decode(record))
            except Undecodable as reason:
                decoded.append(reason)
        return decoded

    def _admit(self, partition: Partition, offset: int, op: str) -> None:
        """A snapshot builds a generation from its first row on, and is never added to anything; a truncate cannot be counted at all."""
        if op == "t":
            raise SourceChanged(f"the table of topic {partition.topic} was truncated at {partition}:{offset}. Run `viewgate rebuild`.")
        record = self._build.record
        if not record.promoted and partition not in self._changed:
            raise BeginningUnknown
        is_late = offset >= record.promoted[str(partition)] if record.promoted else self._changed[partition] or record.origin == "sql"
        if is_late:
            raise SourceChanged(
                f"a snapshot's row came at {partition}:{offset}, onto generation {record.name}, which has it already. "
                "Run `viewgate rebuild --from snapshot`, or `--from sql`."
            )
