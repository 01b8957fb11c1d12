"""A batch's records to changes: what is no change is buried, what may not be added to the generation stops the projector."""

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
        decode = self._decoders[batch.partition.topic]
        changes: list[tuple[int, Change[Any]]] = []
        is_settled = False
        for record in batch.records:
            try:
                change = decode(record)
            except Undecodable as reason:
                self._observer.dead_letter(batch.partition)
                await self._dead_letters.bury(batch.partition, record, str(reason))
                continue
            if change is None:
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
