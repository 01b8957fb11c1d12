"""Services that write PostgreSQL at once, each in transactions of many kinds: what Debezium has to tell. Publishes nothing."""

import asyncio
import random
from dataclasses import dataclass, field

import asyncpg

from demo.servers.process import NotReadyError, until
from tests.cdc.captured import SINCE, Captured

USERS = 200
WRITERS = 8
# between two kills
TRANSACTIONS = 1_000


async def write_through_kills(road: Captured, kills: int, *, copies: bool) -> None:
    """WRITERS write all the time, while the worker is killed so often; return when all is in Kafka. copies: by COPY too."""
    async with asyncpg.create_pool(road.settings.postgres_url, min_size=WRITERS, max_size=WRITERS) as pool:
        writers, stop = [Writer(pool, number, copies=copies) for number in range(WRITERS)], asyncio.Event()
        running = [asyncio.create_task(writer.run(stop)) for writer in writers]
        for kill in range(1, kills + 1):
            await until(lambda: _done(writers, kill * TRANSACTIONS), 60)  # noqa: B023  # it is awaited here
            await road.connect.kill()
            await road.connect.restart()
        stop.set()
        await asyncio.gather(*running)
    await road.captured(120)


async def _done(writers: "list[Writer]", transactions: int) -> None:
    if (done := sum(writer.transactions for writer in writers)) < transactions:
        raise NotReadyError(f"{done} transactions")


@dataclass(slots=True)
class Writer:
    """One of WRITERS. Its rows' ids are its own: number, number + WRITERS, …; the users that it counts for are everybody's.

    pause_seconds: after each transaction; what is written while a worker starts has to be sent too. copies: rows by COPY too.
    """

    pool: asyncpg.Pool
    number: int
    pause_seconds: float = 0.01
    copies: bool = True
    dice: random.Random = field(init=False)
    transactions: int = 0
    _last: int = 0
    _follows: list[int] = field(default_factory=list)
    _tweets: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.number)

    async def run(self, stop: asyncio.Event) -> None:
        """One transaction after the other, every tenth of which is rolled back."""
        while not stop.is_set():
            follows, tweets, last = list(self._follows), list(self._tweets), self._last
            async with self.pool.acquire() as connection:
                transaction = connection.transaction()
                await transaction.start()
                for _ in range(self.dice.randint(1, 8)):
                    await self._act(connection)
                if self.dice.random() < 0.1:
                    await transaction.rollback()
                    self._follows, self._tweets, self._last = follows, tweets, last
                else:
                    await transaction.commit()
            self.transactions += 1
            await asyncio.sleep(self.pause_seconds)

    async def _act(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        acts = (
            self._copy if self.copies else self._follow,
            self._insert,
            self._insert,
            self._move,
            self._rekey,
            self._delete,
            self._rename,
        )
        await self.dice.choice(acts)(connection)

    async def _follow(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        for _ in range(self.dice.randint(2, 30)):
            self._follows.append(self._next())
            await connection.execute("INSERT INTO follows VALUES ($1, $2, $3, $4)", self._follows[-1], self._user(), self._user(), SINCE)

    async def _copy(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        rows = [(self._next(), self._user(), self._user(), SINCE) for _ in range(self.dice.randint(2, 30))]
        await connection.copy_records_to_table("follows", records=rows)
        self._follows += [row[0] for row in rows]

    async def _insert(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        self._tweets.append(self._next())
        text = "x" * self.dice.choice((1, 10, 3_000))
        await connection.execute("INSERT INTO tweets VALUES ($1, $2, $3, $4)", self._tweets[-1], self._user(), text, SINCE)

    async def _move(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        """A row counts for another user from now on."""
        if self._tweets:
            await connection.execute("UPDATE tweets SET user_id = $2 WHERE tweet_id = $1", self.dice.choice(self._tweets), self._user())

    async def _rekey(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        """A primary key changes: a delete, a tombstone and a create in Kafka."""
        if self._follows:
            place, number = self.dice.randrange(len(self._follows)), self._next()
            await connection.execute("UPDATE follows SET follow_id = $2 WHERE follow_id = $1", self._follows[place], number)
            self._follows[place] = number

    async def _delete(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        if self._follows:
            gone = self._follows.pop(self.dice.randrange(len(self._follows)))
            await connection.execute("DELETE FROM follows WHERE follow_id = $1", gone)

    async def _rename(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        """Of a user that is this writer's own: two that rename two users in turn would lock each other out."""
        user = self.dice.randrange(USERS // WRITERS) * WRITERS + self.number
        await connection.execute("UPDATE users SET username = $2, name = $3 WHERE user_id = $1", user, f"user{user}_{self._next()}", "N")

    def _user(self) -> int:
        return int(USERS * self.dice.random() ** 3)

    def _next(self) -> int:
        self._last += WRITERS
        return self._last + self.number
