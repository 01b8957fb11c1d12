"""Writers in a process of their own, at a steady rate: `python -m bench.compare.writing`, see generators.py for what goes in and out.

Half of the changes are tweets, by which staleness is told, half are follows. Each is written in the real way: published to Kafka, or
committed to PostgreSQL, from where change data capture publishes it.
"""

import asyncio
import sys
import time
from datetime import UTC, datetime

import asyncpg
import msgspec

from bench.compare.population import Population
from demo.publish import Publisher
from demo.writing import written
from schema.fields import Row
from schema.user import Follows, Tweets

TICK_SECONDS = 0.002
# commits that are under way at once
CONNECTIONS = 4


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """bootstrap: publish to this Kafka; empty: write to PostgreSQL. first: no row has an id above it."""

    bootstrap: str
    topic_prefix: str
    postgres_url: str
    rate: float
    seconds: float
    users: int
    skew: float
    celebrity: float
    seed: int
    first: int


class Acknowledged(msgspec.Struct, kw_only=True):
    """tweets: when each was acknowledged (time.monotonic), and whose it is. changes: of all kinds. late_ms: the most one was sent late."""

    tweets: list[tuple[float, int]] = []
    changes: int = 0
    late_ms: float = 0.0


class Writer:
    """Runs one task."""

    def __init__(self, task: Task, began: float) -> None:
        self._task, self._began, self.found = task, began, Acknowledged()
        self._readers_users = Population(task.users, task.skew, task.celebrity, task.seed)
        self._next = task.first

    def change(self) -> tuple[Row, int]:
        """The next row, and whose tweet it is; 0: it is a follow."""
        self._next += 1
        user, now = self._readers_users.draw(), datetime.now(UTC)
        if self._next % 2:
            return Tweets(self._next, user, "While others read.", now), user
        return Follows(self._next, self._readers_users.draw(), user, now), 0

    def acknowledged(self, user: int) -> None:
        self.found.changes += 1
        if user:
            self.found.tweets.append((time.monotonic(), user))

    async def due(self, number: int) -> None:
        """Return when this change is."""
        at = self._began + number / self._task.rate
        if (early := at - time.monotonic()) > 0:
            await asyncio.sleep(max(early, TICK_SECONDS))
        self.found.late_ms = max(self.found.late_ms, (time.monotonic() - at) * 1000)


async def _publish(writer: Writer, task: Task, count: int) -> None:
    publisher = Publisher(task.bootstrap, task.topic_prefix)
    for number in range(count):
        await writer.due(number)
        row, user = writer.change()
        publisher.publish("c", None, row, time.time_ns() // 1_000_000, lambda user=user: writer.acknowledged(user))  # type: ignore[misc]  # mypy infers no default
    publisher.flush()


async def _commit(writer: Writer, task: Task, count: int) -> None:
    async with asyncpg.create_pool(task.postgres_url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:

        async def write(row: Row, user: int) -> None:
            statement, values = written(None, row)
            await pool.execute(statement, *values)
            writer.acknowledged(user)

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await writer.due(number)
                group.create_task(write(*writer.change()))


async def _run(task: Task, began: float) -> Acknowledged:
    writer = Writer(task, began)
    await (_publish if task.bootstrap else _commit)(writer, task, int(task.rate * task.seconds))
    return writer.found


if __name__ == "__main__":
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    print("ready", flush=True)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_run(task, float(sys.stdin.buffer.readline())))))
