"""One partition as a projector reads it: where it is, and what it believes is stored of it on each shard. Does no I/O."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from projectors.apply import Header, Outcome, judge
from projectors.calls import Advance
from projectors.fold import Covered
from projectors.generations import ShardLost
from projectors.log import RetentionPassed
from schema.fields import Row
from schema.generation import Generation
from schema.positions import Partition, Watermark


class SourceChanged(Exception):
    """The source is not what the generation was built from; the message names the rebuild command."""


@dataclass(slots=True)
class Reading:
    """began: where contiguous reading began. next: the offset to fold next. ts_ms: the newest source time folded.
    watermarks: what is believed to be stored, by shard. checkpointed: the offset that the last checkpoint wrote everywhere."""

    partition: Partition
    row: type[Row]
    watermarks: dict[int, Watermark]
    began: int
    next: int
    ts_ms: int
    checkpointed: int = -1

    @classmethod
    def begin(cls, partition: Partition, row: type[Row], headers: Mapping[int, Header]) -> "Reading":
        """Go on from the lowest watermark. headers: of the shards that are written, one at least. Raises ShardLost where one has none."""
        stored = {shard: header.watermarks.get(str(partition)) for shard, header in headers.items()}
        watermarks = {shard: watermark for shard, watermark in stored.items() if watermark is not None}
        if len(watermarks) < len(stored):
            raise ShardLost(f"{len(stored) - len(watermarks)} of {len(stored)} shards have no watermark of {partition}")
        began = min(watermark.offset for watermark in watermarks.values())
        return cls(partition, row, watermarks, began, began, max(watermark.ts_ms for watermark in watermarks.values()))

    def check(self, record: Generation, topic_id: str, bounds: tuple[int, int]) -> None:
        """Hold the watermarks against the topic as it is now. Raises SourceChanged, RetentionPassed."""
        known = {watermark.topic_id for watermark in self.watermarks.values()}
        if known - {topic_id}:
            raise SourceChanged(
                f"topic {self.partition.topic} was deleted and made anew (id {topic_id}, was {', '.join(sorted(known))}): "
                "what is counted no longer matches it. Run `viewgate rebuild`."
            )
        first, end = bounds
        newest = max(watermark.offset for watermark in self.watermarks.values())
        if newest > end:
            raise SourceChanged(
                f"{self.partition} ends at offset {end}, but generation {record.name} has it up to {newest}: "
                "the log was cut short. Run `viewgate rebuild`."
            )
        if self.began < first:
            raise RetentionPassed(
                f"{self.partition} begins at offset {first}, but generation {record.name} needs it from {self.began}: "
                "retention has passed the watermark. Run `viewgate rebuild`."
            )

    @property
    def mixed(self) -> bool:
        """Whether some shard already has part of what comes next, as after a restart."""
        return any(watermark.offset > self.next for watermark in self.watermarks.values())

    @property
    def lowest(self) -> int:
        """Where someone else would go on from."""
        return min(watermark.offset for watermark in self.watermarks.values())

    def covered(self, shard_of: Callable[[str], int]) -> Covered:
        """Whether the shard of a text has an offset already, or is not written here."""
        return lambda name, offset: (stored := self.watermarks.get(shard_of(name))) is None or offset < stored.offset

    def advance(self, shard: int, offset: int, ts_ms: int) -> Advance:
        """The step of one shard's watermark."""
        expected = self.watermarks[shard]
        if expected.offset < self.began:
            raise AssertionError(f"shard {shard} of {self.partition} is at {expected.offset}, but reading began at {self.began}")
        return Advance(self.partition, expected, expected.advanced(offset, ts_ms))

    def is_behind(self, advance: Advance, stored: Watermark | None) -> bool:
        """Whether a refused call found less than was acknowledged, or nothing. Raises SourceChanged where no rewind helps."""
        outcome = judge(advance, stored)
        if outcome is Outcome.ABSENT:
            return True
        if outcome is Outcome.OTHER_TOPIC:
            raise SourceChanged(f"another projector writes {self.partition} of another topic of that name. Run `viewgate rebuild`.")
        return outcome is Outcome.BEHIND

    def adopt(self, shard: int, advance: Advance, stored: Watermark | None) -> bool:
        """Believe what a refused call found. Whether it was someone else's, so that the rest is still to be sent."""
        if stored is not None:
            self.watermarks[shard] = stored
        return judge(advance, stored) is Outcome.AHEAD
