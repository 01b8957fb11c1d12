"""Services that change the tables, each in its own way of publishing, at a steady rate, whatever is down.

A write that failed is not tried again.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping

import asyncpg
import msgspec

from demo.drift.outbox import post
from demo.drift.plan import Delete, Insert
from demo.drift.rows import Connection, write
from demo.publish import Publisher
from schema.fields import Row
from tests.chaos.history import History, Moment
from tests.chaos.readers import now_ms
from tests.faults.arranged import NOW
from tests.faults.changelog_view import Users
from tests.torture.view import Follows, Likes, Tweets

TICK_SECONDS, AWAY_SECONDS, COMMIT_SECONDS = 0.05, 0.2, 5.0
MOST_AT_ONCE = 50
ROWS = 20_000
SHARES = {"users": 0.1, "follows": 0.35, "tweets": 0.25, "likes": 0.3}
AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)
Act = Callable[[Connection], Awaitable[None]]


class Writers:
    """changes: how many were committed or acknowledged, of `most`; refused: how many were not. users: ids are 0 to this."""

    def __init__(self, pool: asyncpg.Pool, publisher: Publisher, history: History, users: int, most: int, seed: int) -> None:
        self._pool, self._publisher, self._history, self._users, self._most = pool, publisher, history, users, most
        self._rng = random.Random(seed)
        self._tweets: list[int] = []
        self._likes: dict[int, Likes] = {}
        self._last = 0
        self.changes: dict[str, int] = dict.fromkeys(SHARES, 0)
        self.refused = 0

    @property
    def done(self) -> int:
        return sum(self.changes.values())

    async def begin(self) -> None:
        """Every user, so that each can be asked for."""
        for number in range(self._users):
            await self._commit("users", [self._user(number, there=True)])

    async def run(self, seconds: float) -> None:
        """All the changes, spread over so long; longer, where much was down."""
        acts: Mapping[str, Callable[[], Act]] = {
            "users": lambda: self._user(self._rng.randrange(self._users), there=self._rng.random() < 0.9),
            "follows": self._follow,
            "tweets": self._tweet,
        }
        async with asyncio.TaskGroup() as group:
            for table, act in acts.items():
                group.create_task(self._write(table, act, seconds))
            group.create_task(self._publish(seconds))

    async def _write(self, table: str, act: Callable[[], Act], seconds: float) -> None:
        most, began = int(self._most * SHARES[table]), time.monotonic()
        while (changes := self.changes[table]) < most:
            due = min(most, int(most * (time.monotonic() - began) / seconds)) - changes
            if due > 0:
                await self._commit(table, [act() for _ in range(min(due, MOST_AT_ONCE))])
            await asyncio.sleep(TICK_SECONDS)

    async def _commit(self, table: str, acts: list[Act]) -> None:
        """In one transaction. Whether a commit that was not answered has taken place, nobody knows."""
        try:
            async with asyncio.timeout(COMMIT_SECONDS), self._pool.acquire() as connection, connection.transaction():
                for act in acts:
                    await act(connection)
            self.changes[table] += len(acts)
        except AWAY:
            self.refused += len(acts)
            await asyncio.sleep(AWAY_SECONDS)

    def _tell(self, before: Row | None, after: Row | None) -> Moment:
        moment = Moment(now_ms())
        self._history.change(before, after, moment)
        return moment

    def _user(self, number: int, *, there: bool) -> Act:
        row = Users(number, f"user{number}x{self._rng.randrange(4)}", f"name {self._rng.randrange(1000)}")
        self._tell(None if there else row, row if there else None)

        async def act(connection: Connection) -> None:
            if there:
                await connection.execute(
                    "INSERT INTO users VALUES ($1, $2, $3) ON CONFLICT (user_id) DO UPDATE SET (username, name) = ($2, $3)",
                    number,
                    row.username,
                    row.name,
                )
            else:
                await connection.execute("DELETE FROM users WHERE user_id = $1", number)

        return act

    def _follow(self) -> Act:
        row = Follows(self._rng.randrange(ROWS), self._someone(), int(self._users * self._rng.random() ** 3), NOW)
        there = self._rng.random() < 0.7
        if there:
            self._tell(None, row)

        async def act(connection: Connection) -> None:
            if there:
                await connection.execute(
                    "INSERT INTO follows VALUES ($1, $2, $3, $4) "
                    "ON CONFLICT (follow_id) DO UPDATE SET (follower_id, followee_id) = ($2, $3)",
                    *msgspec.structs.astuple(row),
                )
            else:
                await connection.execute("DELETE FROM follows WHERE follow_id = $1", row.follow_id)

        return act

    def _tweet(self) -> Act:
        """Row and message in the one transaction."""
        if self._tweets and self._rng.random() < 0.3:
            drawn: Insert | Delete = Delete(Tweets, self._tweets.pop(self._rng.randrange(len(self._tweets))))
        else:
            self._last += 1
            drawn = Insert(Tweets(self._last, self._someone(), "x", NOW))
            self._tweets.append(self._last)
            self._tell(None, drawn.row)

        async def act(connection: Connection) -> None:
            changed = await write(connection, drawn)
            if changed is not None:
                await post(connection, changed)

        return act

    async def _publish(self, seconds: float) -> None:
        most, began = int(self._most * SHARES["likes"]), time.monotonic()
        published = 0
        while self.changes["likes"] < most:
            for _ in range(min(most, int(most * (time.monotonic() - began) / seconds)) - published):
                self._like()
                published += 1
            self._publisher.poll()
            await asyncio.sleep(TICK_SECONDS)

    def _like(self) -> None:
        key = self._rng.randrange(ROWS)
        before = self._likes.pop(key, None)
        after = None if before is not None else Likes(key, self._someone(), 1, NOW)
        if after is not None:
            self._likes[key] = after
        moment = self._tell(before, after)
        self._publisher.publish("d" if after is None else "c", before, after, int(moment.begun), lambda: self._arrived(moment))

    def _arrived(self, moment: Moment) -> None:
        moment.done = now_ms()
        self.changes["likes"] += 1

    def _someone(self) -> int:
        return self._rng.randrange(self._users)
