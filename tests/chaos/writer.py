"""Changes to users, follows, likes and tweets at a steady rate, published to Kafka, each told to a history."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schema.fields import Row
from tests.chaos.history import History, Moment
from tests.chaos.readers import now_ms
from tests.faults.arranged import follow, like, tweet, user
from tests.road import Road

TICK_SECONDS = 0.02
ROWS = 20_000


class Writer:
    """`rate` changes a second: rows come, move, go and come again. published: how many so far."""

    def __init__(self, road: Road, history: History, users: int, rate: float, seed: int) -> None:
        self.road, self.rate, self.published = road, rate, 0
        self._history, self._users, self._rng = history, users, random.Random(seed)
        self._rows: dict[tuple[type[Row], int], Row] = {}

    def begin(self) -> None:
        """Every user, so that each can be asked for."""
        for number in range(self._users):
            self._publish(user(number, f"user{number}", "N"))

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Until the block ends."""
        running = asyncio.create_task(self._run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])
        if not running.cancelled():
            running.result()

    async def flush(self, seconds: float = 60) -> None:
        """Return when Kafka has everything."""
        await asyncio.to_thread(self.road.publisher.flush, seconds)

    def publish(self, changes: int) -> None:
        """So many at once, beside the steady ones."""
        for _ in range(changes):
            self._publish(self._row())

    async def _run(self) -> None:
        began, before = time.monotonic(), self.published
        while True:
            self.publish(int((time.monotonic() - began) * self.rate) - (self.published - before))
            # callbacks come by it
            self.road.publisher.poll()
            await asyncio.sleep(TICK_SECONDS)

    def _publish(self, row: Row) -> None:
        key = getattr(row, type(row).source.key)
        before = self._rows.get((type(row), key))
        after = None if before is not None and self._rng.random() < 0.4 else row
        if after is None:
            del self._rows[type(row), key]
        else:
            self._rows[type(row), key] = after
        self.published += 1
        moment = Moment(now_ms())
        self._history.change(before, after, moment)
        op = "d" if after is None else "c" if before is None else "u"
        self.road.publisher.publish(op, before, after, int(moment.begun), lambda: _done(moment))

    def _row(self) -> Row:
        rng = self._rng
        someone, other, key = rng.randrange(self._users), int(self._users * rng.random() ** 3), rng.randrange(ROWS)
        kind = rng.random()
        if kind < 0.05:
            return user(someone, f"user{someone}x{self.published % 3}", f"name {self.published}")
        return follow(key, someone, other) if kind < 0.5 else like(key, someone) if kind < 0.8 else tweet(key, someone)


def _done(moment: Moment) -> None:
    moment.done = now_ms()
