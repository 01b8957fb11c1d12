"""A partition of a view topic as it is being read: where reading begins, and what a batch tells of each shard. Does no I/O."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from projectors.copies import Held
from projectors.view_topic import Told
from schema.positions import Watermark

NOTHING = Watermark(0, 0, "")
# generation and shard
Place = tuple[str, int]


@dataclass(slots=True)
class Portion:
    """What a batch tells of one shard. then: with `filled` as it is before the batch but for the version."""

    then: Held
    is_anew: bool = False
    hashes: dict[str, Sequence[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Reading:
    """One partition. level_at: its end when reading began. watermarks: by shard, told and not yet filled in. level: that of all shards."""

    topic_id: str
    next: int
    level_at: int
    watermarks: dict[Place, dict[str, str]] = field(default_factory=dict)
    level: Told | None = None


class Beginning(NamedTuple):
    """anew: whatever the shards hold, they are told of from their beginning."""

    offset: int
    anew: bool


class Kept(NamedTuple):
    """A copy's shards of one partition, and up to when readers have it; 0: none has yet."""

    shards: Collection[Held]
    as_of_ms: int

    @property
    def filled(self) -> list[Watermark]:
        return [held.filled or NOTHING for held in self.shards]

    @property
    def newest(self) -> int:
        return max((one.ts_ms for one in self.filled), default=0)

    @property
    def since_ms(self) -> int:
        """It was read then; of one that no reader has, its oldest shard may not have been."""
        return self.as_of_ms or min((one.ts_ms for one in self.filled), default=0) // 1000


def beginning(copies: Mapping[str, Kept], first: int, end: int, topic_id: str, now_ms: int, window_ms: int) -> Beginning:
    """From the lowest shard of the newest copy; from the first record if a shard has nothing, or cannot go on.

    window_ms: who was away for longer may have missed tombstones: what was deleted is told of no more. So with another topic.
    """
    newest = max(copies.values(), key=lambda kept: kept.newest, default=Kept((), 0))
    if not newest.newest:
        return Beginning(first, anew=False)
    offsets = [one.offset for one in newest.filled]
    is_other = topic_id != "" and {one.topic_id for one in newest.filled} - {topic_id, ""} != set()
    was_away = min(offsets) < end and now_ms - newest.since_ms > window_ms
    if is_other or was_away or max(offsets) > end:
        return Beginning(first, anew=True)
    return Beginning(max(min(offsets), first), anew=False)
