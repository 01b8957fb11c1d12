"""Does reading a user cost more, the more followers the user has: from the view, and from SQL?

One user with 10^4, 10^5, 10^6 and 10^7 followers. PostgreSQL has a row for each follow and the index that the demo has; the view's hash is
written as a projector writes it (Packing, RedisStore). Both loaders read all fields of that user, one read at a time on an open
connection, in turns of a tenth of a second; their answers are proven equal first. Timed is the load: no HTTP and no GraphQL is in it.
"""

import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import asyncpg
import msgspec
import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from bench.machine import machine, versions
from bench.memory import Writer, live_generation
from bench.picture import Line, log_log
from demo import seed
from demo.servers import postgres
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.tables import create_tables
from loaders.sql import SqlLoader
from loaders.view import ViewLoader
from projectors.fold import Effects
from schema.definition import read_definition
from schema.loader import Loader, Read
from schema.user import UserView

CACHE = Path(__file__).parents[1] / ".cache"
DEFINITION = read_definition(UserView)
READ = Read("id", "1", tuple(f.name for f in DEFINITION.fields))
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
# so many reads of SQL at least, and for how long a loader reads in its turn
FEWEST, TURN_SECONDS = 20, 0.1
_FOLLOWS = """
INSERT INTO follows (follow_id, follower_id, followee_id, created_at) SELECT n, n + 1, 1, $3 FROM generate_series($1::bigint, $2::bigint) n
"""


class AnswersDiffer(Exception):
    """The loaders do not say the same, so their times mean nothing."""


@dataclass(frozen=True, slots=True)
class Point:
    """One size. view_ms, sql_ms: median and p95 of a load. reads: how many of either."""

    followers: int
    view_ms: tuple[float, float]
    sql_ms: tuple[float, float]
    reads: tuple[int, int]

    @property
    def ratio(self) -> float:
        return self.sql_ms[0] / self.view_ms[0]


def main(
    quick: Annotated[bool, typer.Option(help="Up to 10^5 followers: a look, not a judgement.")] = False,
    json: Annotated[Path | None, typer.Option(help="Where to write the figures.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Where to draw them, as SVG.")] = None,
) -> None:
    """Measure what a celebrity costs."""
    sizes, seconds = ([10**4, 10**5], 1.0) if quick else ([10**4, 10**5, 10**6, 10**7], 10.0)
    points, about = asyncio.run(measure(sizes, seconds))
    _show(points, about)
    if json:
        figures = {"about": about, "points": [asdict(point) for point in points]}
        json.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2))
    if picture:
        picture.write_text(drawn(points))


async def measure(sizes: list[int], seconds: float) -> tuple[list[Point], str]:
    """seconds: for each size. Raises AnswersDiffer."""
    with scratch() as folder:
        async with (
            redis_server.start(folder, CACHE, prefer="installed", say=print) as redis_at,
            postgres.start(folder, CACHE, prefer="installed", say=print) as postgres_at,
            Redis.from_url(redis_at.address) as redis,
            asyncpg.create_pool(postgres_at.address, min_size=1, max_size=1, server_settings={"synchronous_commit": "off"}) as pool,
        ):
            await create_tables(pool, DEFINITION)
            # written to no log, and gone with the folder
            await pool.execute("ALTER TABLE follows SET UNLOGGED")
            await redis.flushall()
            celebrity = _Celebrity(redis, pool)
            await celebrity.begin()
            points = [await celebrity.measure(size, seconds) for size in sizes]
            return points, f"{redis_at.what}, {postgres_at.what}; {machine()}; {versions('redis', 'hiredis', 'asyncpg')}"


class _Celebrity:
    """User 1, in both places, with more and more followers."""

    def __init__(self, redis: Redis, pool: asyncpg.Pool) -> None:
        self._pool, self._writer = pool, Writer(redis, live_generation())
        self._loaders: Mapping[str, Loader] = {"view": ViewLoader(redis, DEFINITION), "sql": SqlLoader(pool, DEFINITION)}
        self._followers = 0

    async def begin(self) -> None:
        user = seed.user(1)
        names = ", ".join(user.__struct_fields__)
        places = ", ".join(f"${n}" for n in range(1, len(user.__struct_fields__) + 1))
        await self._pool.execute(f"INSERT INTO users ({names}) VALUES ({places})", *msgspec.structs.astuple(user))  # noqa: S608  # names of a struct
        await self._writer.open()
        zeros: dict[str, dict[int | str, int]] = {f.name: {1: 0} for f in DEFINITION.aggregates}
        await self._writer.write(Effects(zeros, {1: user}))

    async def measure(self, followers: int, seconds: float) -> Point:
        more = followers - self._followers
        await self._pool.execute(_FOLLOWS, self._followers + 1, followers, SINCE, timeout=3600)
        await self._pool.execute("VACUUM ANALYZE follows", timeout=3600)
        await self._writer.write(Effects({"follower_count": {1: more}}, {}))
        self._followers = followers
        await self._prove(followers)
        took: dict[str, list[float]] = {name: [] for name in self._loaders}
        began = time.monotonic()
        while len(took["sql"]) < FEWEST or time.monotonic() - began < seconds:
            for name, loader in self._loaders.items():
                took[name] += await _turn(loader)
        return Point(followers, _figures(took["view"]), _figures(took["sql"]), (len(took["view"]), len(took["sql"])))

    async def _prove(self, followers: int) -> None:
        answers = {name: (await loader.load([READ])).rows for name, loader in self._loaders.items()}
        (row,) = answers["view"]
        if answers["view"] != answers["sql"] or row is None or row[READ.fields.index("follower_count")] != b"%d" % followers:
            raise AnswersDiffer(f"with {followers:,} followers: {answers}")


async def _turn(loader: Loader) -> list[float]:
    """One load after the other, each in ms; one at least."""
    took: list[float] = []
    began = time.monotonic()
    while not took or time.monotonic() - began < TURN_SECONDS:
        since = time.perf_counter()
        await loader.load([READ])
        took.append((time.perf_counter() - since) * 1000)
    return took


def _figures(took: list[float]) -> tuple[float, float]:
    """Median and p95."""
    return statistics.median(took), sorted(took)[int(len(took) * 0.95)]


def drawn(points: list[Point]) -> str:
    lines = [Line("SQL", [(p.followers, p.sql_ms[0]) for p in points]), Line("view", [(p.followers, p.view_ms[0]) for p in points])]
    return log_log("Reading one user: median of one load", "followers of the user", "ms", lines)


def _show(points: list[Point], about: str) -> None:
    console = Console(width=140)
    console.print(f"\n{about}")
    table = Table(title="All fields of one user, one load at a time", title_justify="left")
    for heading in ("followers", "view, median ms", "p95", "SQL, median ms", "p95", "SQL to view", "reads"):
        table.add_column(heading, justify="right")
    for p in points:
        times = (f"{p.view_ms[0]:.2f}", f"{p.view_ms[1]:.2f}", f"{p.sql_ms[0]:.2f}", f"{p.sql_ms[1]:.2f}")
        table.add_row(f"{p.followers:,}", *times, f"{p.ratio:,.0f} x", f"{p.reads[0]:,}, {p.reads[1]:,}")
    console.print(table)
    console.print("- The table is vacuumed and in memory: SQL's best case. Both servers are on this machine.", highlight=False)


if __name__ == "__main__":
    typer.run(main)
