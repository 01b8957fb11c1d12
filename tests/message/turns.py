"""A history taken in random turns: batches of any size from any partition, crashes half-way, redelivery of any stretch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from projectors.fold import Effects, fold, fold_rest
from schema import layout
from schema.positions import Partition
from tests.message.histories import History

SHARDS = 3


@dataclass(frozen=True, slots=True)
class Turn:
    """One batch: which of the partitions that have more, how many changes, and what becomes of it.

    crash: only the shards of this bit mask have got it, and a new projector goes on `back` changes before what it must.
    checkpoint: idle shards are brought up to it.
    """

    partition: int
    changes: int
    crash: int | None
    back: int
    checkpoint: bool


TURNS = st.lists(
    st.builds(
        Turn, st.integers(0, 7), st.integers(1, 8), st.none() | st.none() | st.integers(0, 2**SHARDS - 1), st.integers(0, 4), st.booleans()
    ),
    max_size=15,
)


@dataclass(frozen=True, slots=True)
class Step:
    """What one turn does: effects on the shards in the mask, and each shard's watermark before and after."""

    partition: Partition
    effects: Effects
    mask: int
    expected: Sequence[int]
    new: Sequence[int]


class Reader:
    """One partition as a projector reads it: where it is, and what each shard has of it."""

    def __init__(self, partition: Partition, history: History) -> None:
        self._partition, self._definition, self._log = partition, history.definition, history.logs[partition]
        self._row = history.definition.topics[partition.topic]
        self._shard_of = layout.Layout("any", "g1", SHARDS).shard
        self.next, self.watermarks = 0, [0] * SHARDS

    @property
    def is_done(self) -> bool:
        return self.next == len(self._log)

    def take(self, turn: Turn) -> Step:
        """What this turn sends, if it is sent."""
        changes = list(enumerate(self._log))[self.next : self.next + turn.changes]
        end = self.next + len(changes)
        whole = 2**SHARDS - 1
        mask = whole if turn.crash is None else turn.crash
        effects, expected = self._fold(changes), self.watermarks
        touched = {shard for offset, change in changes for shard in self._touched(offset, change)}
        moved = range(SHARDS) if turn.checkpoint and mask == whole else touched
        self.watermarks = [max(w, end) if shard in moved and mask >> shard & 1 else w for shard, w in enumerate(self.watermarks)]
        self.next = end if turn.crash is None else max(0, min(self.watermarks) - turn.back)
        return Step(self._partition, effects, mask, expected, self.watermarks)

    def _fold(self, changes: list[tuple[int, Any]]) -> Effects:
        if any(watermark > self.next for watermark in self.watermarks):
            return fold_rest(self._definition, self._row, changes, lambda text, offset: offset < self.watermarks[self._shard_of(text)])[0]
        return fold(self._definition, self._row, changes)

    def _touched(self, offset: int, change: Any) -> set[int]:
        effects = fold(self._definition, self._row, [(offset, change)])
        counted = [key for deltas in effects.counts.values() for key in deltas]
        texts = [*map(str, counted), *map(str, effects.profiles), *(claim.value for claim in effects.claims)]
        return {self._shard_of(text) for text in texts}


def steps(history: History, turns: Sequence[Turn]) -> Iterator[Step]:
    """The history in these turns, and then the rest of it."""
    readers = [Reader(partition, history) for partition in sorted(history.logs)]
    for turn in turns:
        if waiting := [reader for reader in readers if not reader.is_done]:
            yield waiting[turn.partition % len(waiting)].take(turn)
    for reader in readers:
        while not reader.is_done:
            yield reader.take(Turn(0, 7, None, 0, False))
