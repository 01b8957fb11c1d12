"""Up to when the view has a partition, as projectors tell readers. Text only, no I/O.

Of a Redis Cluster it says too which masters the projector knows, by their run ids: what another one has may be older than that.
"""

from collections.abc import Mapping
from typing import NamedTuple

# of a run id, enough to tell the masters of one cluster apart
LETTERS = 12


class Progress(NamedTuple):
    """ms: Unix ms. masters: None where there is one Redis."""

    ms: int
    masters: frozenset[bytes] | None

    @classmethod
    def decode(cls, stored: bytes) -> "Progress":
        ms, *masters = stored.split()
        return cls(int(ms), frozenset(masters) if masters else None)

    def knows(self, run_ids: frozenset[bytes]) -> bool:
        """Whether these masters are all among those that the projector knew."""
        return self.masters is None or {run_id[:LETTERS] for run_id in run_ids} <= self.masters


def encode(ms: int, run_ids: frozenset[bytes] | None) -> bytes:
    return b" ".join([b"%d" % ms, *sorted(run_id[:LETTERS] for run_id in run_ids or ())])


def times_ms(stored: Mapping[bytes, bytes]) -> dict[str, int]:
    """By partition, up to when the view has it."""
    return {partition.decode(): Progress.decode(value).ms for partition, value in stored.items()}
