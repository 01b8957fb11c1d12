"""Positions in a source and the watermarks kept of them: what has been applied, and how two of them compare.

Position kind `offset`: the Kafka offset. `debezium` (LSN pairs of an at-least-once connector) has its place here.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Partition(NamedTuple):
    """A Kafka partition; `str()` is its field in a shard's header."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.number}"


@dataclass(frozen=True, slots=True)
class Watermark:
    """Every record of one partition below `offset` has been applied to one shard.

    ts_ms: the source's time of the newest of them, 0 when none had one. topic_id: Kafka's id of the topic ("" when the
    broker tells none): a topic that was deleted and made anew has another.
    """

    offset: int
    ts_ms: int
    topic_id: str

    def encode(self) -> bytes:
        return b"%d|%d|%s" % (self.offset, self.ts_ms, self.topic_id.encode())

    @classmethod
    def decode(cls, stored: bytes) -> "Watermark":
        """Raises ValueError for bytes that no `encode` made."""
        offset, ts_ms, topic_id = stored.decode().split("|")
        return cls(int(offset), int(ts_ms), topic_id)

    def advanced(self, offset: int, ts_ms: int) -> "Watermark":
        """The running maximum: never behind this one."""
        return Watermark(max(self.offset, offset), max(self.ts_ms, ts_ms), self.topic_id)
