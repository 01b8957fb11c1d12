"""How long a cache keeps what, and when it is asked for again: pure, but for the dice. What each setting prevents: docs/caching.md."""

import math
import random
from dataclasses import dataclass

from loaders.cache import Entry, now_ms
from schema.loader import Row

JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Policy:
    """How long is kept what, in seconds.

    ttl: a row, give or take a tenth, so that those read together do not go together. unknown: that there is no such row. early: how much
    sooner than that it is asked for again: times what it took to read, at random; 0: never. stale_while_revalidate: after its ttl, still
    answered while it is asked for. stale_if_error: where it cannot be asked for. lease: after so long another may refill it.
    """

    ttl: float = 60.0
    unknown: float = 5.0
    early: float = 1.0
    stale_while_revalidate: float = 10.0
    stale_if_error: float = 300.0
    lease: float = 2.0

    @property
    def keep_ms(self) -> int:
        """How long it stays after its ttl."""
        return round(max(self.stale_while_revalidate, self.stale_if_error) * 1000)

    def is_fresh(self, entry: Entry, now: int) -> bool:
        return now < entry.fresh_until_ms

    def is_due(self, entry: Entry, now: int) -> bool:
        """Whether it shall be asked for again: it is stale, or will be soon."""
        if not self.early:
            return now >= entry.fresh_until_ms
        sooner = entry.took_ms * self.early * -math.log(1.0 - random.random())  # noqa: S311 - it spreads, it hides nothing
        return now + sooner >= entry.fresh_until_ms

    def may_answer(self, entry: Entry, now: int) -> bool:
        """While it is asked for."""
        return now < entry.fresh_until_ms + self.stale_while_revalidate * 1000

    def may_replace(self, entry: Entry | None, now: int) -> bool:
        """What cannot be had."""
        return entry is not None and now < entry.fresh_until_ms + self.stale_if_error * 1000

    def entry(self, fingerprint: str, read_ms: int, row: Row | None) -> Entry:
        """Of what was read just now."""
        seconds = (self.unknown if row is None else self.ttl) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - as above
        now = now_ms()
        return Entry(fingerprint, read_ms, read_ms + round(seconds * 1000), now - read_ms, None if row is None else list(row))
