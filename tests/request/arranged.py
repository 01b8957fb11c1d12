"""What the tests of the read path find stored: the same users in PostgreSQL and, by layout.py, in Redis; and a loader in memory."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg
from redis.asyncio import Redis

from schema import layout
from schema.definition import Definition, read_definition
from schema.generation import Generation
from schema.loader import Mode, Read, Row, Rows
from schema.user import PROFILE_IMAGES, UserView

DEFINITION = read_definition(UserView)
FRESH_MS = 1_700_000_000_123
# a query over HTTP, its answer, and a header that no page of another site can send unasked
ADA = '{ user(id: "1") { username } }'
ADAS = {"data": {"user": {"username": "ada"}}}
OWN = {"apollo-require-preflight": "1"}

TABLES = """
CREATE TABLE users (
    user_id bigint PRIMARY KEY, username text UNIQUE NOT NULL, name text, description text, location text, web_page_url text,
    joined_at timestamptz NOT NULL, profile_image_url text, background_image_url text
);
CREATE TABLE tweets (tweet_id bigserial PRIMARY KEY, user_id bigint NOT NULL, text text NOT NULL, created_at timestamptz NOT NULL);
CREATE TABLE follows (
    follow_id bigserial PRIMARY KEY, follower_id bigint NOT NULL, followee_id bigint NOT NULL, created_at timestamptz NOT NULL
);
CREATE TABLE likes (
    like_id bigserial PRIMARY KEY, user_id bigint NOT NULL, tweet_id bigint NOT NULL, created_at timestamptz NOT NULL
);
"""
ROWS = {
    "tweet_count": "INSERT INTO tweets (user_id, text, created_at) SELECT $1, 'x', now() FROM generate_series(1, $2)",
    "following_count": "INSERT INTO follows (follower_id, followee_id, created_at) SELECT $1, -1, now() FROM generate_series(1, $2)",
    "follower_count": "INSERT INTO follows (follower_id, followee_id, created_at) SELECT -1, $1, now() FROM generate_series(1, $2)",
    "like_count": "INSERT INTO likes (user_id, tweet_id, created_at) SELECT $1, 1, now() FROM generate_series(1, $2)",
}

User = dict[str, Any]


def user(user_id: int, username: str, counts: tuple[int, int, int, int] = (0, 0, 0, 0), **columns: Any) -> User:
    """A user with every field of the view, by its snake_case name, and `id`."""
    names = [f.name for f in DEFINITION.columns]
    row = dict.fromkeys(names) | {"username": username, "joined_at": datetime(2020, 2, 29, 12, tzinfo=UTC)}
    return {"id": str(user_id), **row, **columns, **dict(zip(ROWS, counts, strict=True))}


USERS = [
    user(1, "ada", (3, 2, 5, 1), name="Ada", profile_image_url=PROFILE_IMAGES + "1/a.png", location="London"),
    user(2, "bob", name='Quote " and \\ and \u2028 and \x07', description="", profile_image_url="https://elsewhere.example/b.png"),
    user(3, "çelik", (0, 1, 0, 0), name="😀 naïve", joined_at=datetime(1999, 12, 31, 23, 59, 59, 120_000, tzinfo=UTC)),
    user(-4, "minus", (1, 0, 0, 0), profile_image_url="~not cut", description="</script>", web_page_url="https://x.example/?a=1&b=2"),
    user(2**62, "large", (0, 0, 7, 0), profile_image_url=PROFILE_IMAGES, joined_at=datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
]
BY_ID = {stored["id"]: stored for stored in USERS}


async def write_tables(connection: asyncpg.Connection, users: Sequence[User]) -> None:
    """The source tables with these users, their rows, and rows of users that do not exist."""
    await connection.execute("DROP TABLE IF EXISTS users, tweets, follows, likes")
    await connection.execute(TABLES)
    for stored in users:
        names = ["user_id", *(f.name for f in DEFINITION.columns)]
        marks = ", ".join(f"${place}" for place in range(1, len(names) + 1))
        values = [int(stored["id"]), *(stored[name] for name in names[1:])]
        await connection.execute(f"INSERT INTO users ({', '.join(names)}) VALUES ({marks})", *values)
        for name, statement in ROWS.items():
            await connection.execute(statement, int(stored["id"]), stored[name])


@dataclass(slots=True)
class View:
    """A view in Redis, written key by key as schema/layout.py says; rows may be spoilt on purpose through `redis`."""

    redis: Redis
    name: str = "g1"
    build: str = "0"
    definition: Definition = DEFINITION
    record: Generation = field(init=False)
    keys: layout.Layout = field(init=False)

    def __post_init__(self) -> None:
        codes, prefixes = layout.codes(self.definition), layout.prefixes(self.definition)
        self.record = Generation(self.name, self.build, self.definition.fingerprint, layout.SHARDS, codes, prefixes, {}, {}, {}, "live")
        self.keys = layout.Layout(self.definition.name, self.name, layout.SHARDS)

    async def write(self, users: Sequence[User]) -> None:
        """The whole generation, then the pointer to it."""
        pipeline = self.redis.pipeline(transaction=False)
        for shard in range(layout.SHARDS):
            pipeline.hset(self.keys.headers[shard], mapping={"state": "live", "build": self.build})
        for stored in users:
            pipeline.hset(self.key(stored["id"]), mapping=self.encoded(stored))
            pipeline.hset(self.claim_key(stored["username"]), stored["id"], "1:1")
        pipeline.hset(self.keys.progress, mapping={"users:0": FRESH_MS, "tweets:0": FRESH_MS + 500})
        pipeline.set(layout.generation_key(self.definition.name, self.name), self.record.encode())
        pipeline.set(layout.live_key(self.definition.name), self.name)
        await pipeline.execute()

    def key(self, row_id: str) -> str:
        return self.keys.rows_prefix(self.keys.shard(row_id), self.build) + row_id

    def claim_key(self, username: str) -> str:
        return self.keys.claims_prefix(self.keys.shard(username), self.build, self.definition.lookups[0]) + username

    def header(self, value: str) -> str:
        return self.keys.headers[self.keys.shard(value)]

    def code(self, name: str) -> str:
        return self.record.codes[name]

    def encoded(self, stored: Mapping[str, object]) -> dict[Any, Any]:
        prefixes = self.record.prefixes
        return {self.code(name): layout.cut(layout.encode(stored[name]), prefixes.get(name, "")) for name in self.record.codes}


@dataclass(slots=True)
class MemoryLoader:
    """A Loader over rows in memory that notes what it is asked. error: raised instead of an answer."""

    rows: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: BY_ID)
    mode: Mode = "view"
    error: Exception | None = None
    loads: list[Sequence[Read]] = field(default_factory=list)

    async def load(self, reads: Sequence[Read]) -> Rows:
        self.loads.append(reads)
        await self.ready()
        return Rows([self._row(read) for read in reads], self.mode, "g1" if self.mode == "view" else None, FRESH_MS)

    def begin(self, reads: Sequence[Read], done: Callable[[Rows | None], None]) -> bool:
        """As ImmediateLoader has it; notes what it answers itself."""
        rows = [row for row in map(self._row, reads) if row is not None]
        plain = self.error is None and len(rows) == len(reads)
        if plain:
            self.loads.append(reads)
        asyncio.get_running_loop().call_soon(done, Rows(rows, self.mode, "g1", FRESH_MS) if plain else None)
        return True

    async def ready(self) -> None:
        if self.error:
            raise self.error

    def _row(self, read: Read) -> Row | None:
        found = next((row for row in self.rows.values() if row[read.by] == read.value), None)
        return None if found is None else [layout.encode(found[name]) for name in read.fields]
