"""Changes to users, follows, likes and tweets, at random from a seed: creates, updates that move rows, deletes, re-creates."""

import random

from schema.fields import Row
from tests.faults.arranged import follow, like, tweet, user
from tests.road import Road

MS = 1_767_323_045_000


class Traffic:
    """The rows as they are after what was published, over a road."""

    def __init__(self, road: Road, seed: int, users: int = 400) -> None:
        self.road, self._rng, self._users = road, random.Random(seed), users
        self._rows: dict[tuple[type[Row], int], Row] = {}
        self.published = 0
        for number in range(users):
            self._publish(user(number, f"user{number}"))

    def publish(self, changes: int) -> None:
        """So many changes more; returns when Kafka has them all."""
        for _ in range(changes):
            self._publish(self._row())
        self.road.publisher.flush()

    def _publish(self, row: Row) -> None:
        key = getattr(row, type(row).source.key)
        before = self._rows.get((type(row), key))
        self.published += 1
        if before is not None and self._rng.random() < 0.4:
            del self._rows[type(row), key]
            self.road.publisher.publish("d", before, None, MS + self.published)
        else:
            self._rows[type(row), key] = row
            self.road.publisher.publish("u" if before else "c", before, row, MS + self.published)

    def _row(self) -> Row:
        rng = self._rng
        someone, other, key = rng.randrange(self._users), int(self._users * rng.random() ** 3), rng.randrange(6000)
        kind = rng.random()
        if kind < 0.1:
            return user(someone, f"user{someone}" if kind < 0.05 else f"user{someone}x{self.published}", f"name {self.published}")
        return follow(key, someone, other) if kind < 0.5 else like(key, someone) if kind < 0.8 else tweet(key, someone)
