"""Changes to users, follows, likes and tweets at a steady rate, given to a publisher, each told to a history."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from schema.fields import Row
from tests.chaos.history import History, Moment
from tests.chaos.readers import now_ms
from tests.faults.arranged import follow, like, tweet, user

TICK_SECONDS = 0.02
ROWS = 20_000


class Publishing(Protocol):
    """Takes changes, and brings them to where the road begins: Kafka, or the tables that are captured."""

    def publish(self, op: str, before: Row | None, after: Row | None, ts_ms: int, arrived: Callable[[], None] | None = None) -> None:
        """Queue one. arrived: called once it is surely where the projector finds it."""
        ...

    def poll(self) -> None:
        """Hear of what has arrived."""
        ...

    def flush(self, seconds: float = 60) -> None:
        """Return when all is there; called in a thread of its own."""
        ...


class Writer:
    """`rate` changes a second: rows come, move, go and come again. published: how many so far."""

    def __init__(self, publisher: Publishing, history: History, users: int, rate: float, seed: int) -> None:
        self.publisher, self.rate, self.published = publisher, rate, 0
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
        """Return when everything has been taken."""
        await asyncio.to_thread(self.publisher.flush, seconds)

    def publish(self, changes: int) -> None:
        """So many at once, beside the steady ones."""
        for _ in range(changes):
            self._publish(self._row())

    async def _run(self) -> None:
        began, before = time.monotonic(), self.published
        while True:
            self.publish(int((time.monotonic() - began) * self.rate) - (self.published - before))
            # callbacks come by it
            self.publisher.poll()
            await asyncio.sleep(TICK_SECONDS)

    def put(self, row: Row) -> None:
        """A row comes, or is another one from now on."""
        self._change(self._last(row), row)

    def delete(self, row: Row) -> None:
        """The row of this key, whatever it is by now, goes."""
        self._change(self._last(row), None)

    def rows(self, table: type[Row]) -> list[Row]:
        """What has been published last of each that is there."""
        return [row for (kind, _), row in self._rows.items() if kind is table]

    def _publish(self, row: Row) -> None:
        before = self._last(row)
        self._change(before, None if before is not None and self._rng.random() < 0.4 else row)

    def _last(self, row: Row) -> Row | None:
        return self._rows.get((type(row), getattr(row, row.source.key)))

    def _change(self, before: Row | None, after: Row | None) -> None:
        row = after if after is not None else before
        assert row is not None, "there is no such row"
        at = type(row), getattr(row, row.source.key)
        if after is None:
            del self._rows[at]
        else:
            self._rows[at] = after
        self.published += 1
        moment = Moment(now_ms())
        self._history.change(before, after, moment)
        op = "d" if after is None else "c" if before is None else "u"
        self.publisher.publish(op, before, after, int(moment.begun), lambda: _done(moment))

    def _row(self) -> Row:
        rng = self._rng
        someone, other, key = rng.randrange(self._users), int(self._users * rng.random() ** 3), rng.randrange(ROWS)
        kind = rng.random()
        if kind < 0.05:
            return user(someone, f"user{someone}x{self.published % 3}", f"name {self.published}")
        return follow(key, someone, other) if kind < 0.5 else like(key, someone) if kind < 0.8 else tweet(key, someone)


def _done(moment: Moment) -> None:
    moment.done = now_ms()
