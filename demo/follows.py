"""`python -m demo.follows`: the write side of /compare, for the demo: a user follows another, and takes it back. Reads nothing.

Publishes to the Kafka of the settings, or writes to their PostgreSQL; listens where VIEWGATE_WRITES_URL says.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Protocol
from urllib.parse import urlsplit

import asyncpg
import msgspec
import typer
import uvicorn
from confluent_kafka import KafkaException
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app import errors
from app.accept import JSON
from app.endpoint.answer import Refused
from app.endpoint.asked import body
from app.endpoint.rates import Rates
from app.settings import Settings, read_settings
from app.telemetry import set_up_logs
from demo.publish import Publisher
from demo.seed import SMALL
from demo.writing import written
from schema.fields import Row
from schema.user import Follows

# of all who write together: it is open to every process of the machine
WRITES_PER_SECOND = 10.0
MOST_KEPT = 1000
MOST_BYTES = 1024
# of a page elsewhere a browser sends it unasked, and of one whose name was made to lead here too
FOREIGN = "Only pages of the gateway at {} may write here."


class Out(Protocol):
    """Where a change goes."""

    async def write(self, op: str, before: Row | None, after: Row | None, ts_ms: int) -> str | None:
        """Return once it is acknowledged: with the token by which a reader waits for it, if there is one. Raises OSError."""
        ...


class IntoTopics:
    """Single-write: the change is published, and written nowhere else."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def write(self, op: str, before: Row | None, after: Row | None, ts_ms: int) -> str | None:
        try:
            return str(await self._publisher.acknowledged(op, before, after, ts_ms))
        except KafkaException as error:
            raise OSError(f"Kafka has not taken it: {error}") from error


class IntoTables:
    """Change data capture: the row is written, and published by who reads the database's log."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def write(self, op: str, before: Row | None, after: Row | None, ts_ms: int) -> str | None:
        statement, values = written(before, after)
        try:
            await self._pool.execute(statement, *values)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise OSError(f"PostgreSQL has not taken it: {error}") from error
        return None


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """Who follows whom, by their user ids."""

    follower: int
    followee: int


class Told(msgspec.Struct, rename="camel"):
    """What became of it. acknowledged_ms: when it was (Unix ms). token: for viewgate-after; None: the way of publishing has none."""

    follow_id: int
    acknowledged_ms: int
    token: str | None


class FollowsApp:
    """POST and DELETE of /follows. users: their ids are 1 to this. Only what was written here can be taken back: the newest of it."""

    def __init__(self, out: Out, users: int, origins: list[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._users, self._origins = out, users, origins
        self._rates = Rates(WRITES_PER_SECOND, clock)
        self._kept: OrderedDict[tuple[int, int], Follows] = OrderedDict()
        self._id = 0

    async def follows(self, request: Request) -> Response:
        try:
            asked = await self._asked(request)
            told = await (self._follow(asked) if request.method == "POST" else self._unfollow(asked))
        except Refused as refused:
            answer = refused.answer(JSON)
            return Response(answer.body, answer.status, {name.decode(): value.decode() for name, value in answer.headers})
        except OSError as error:
            return Response(msgspec.json.encode(errors.failure("UNAVAILABLE", f"{error}.")), 503, media_type=JSON)
        return Response(msgspec.json.encode(told), media_type=JSON)

    async def _asked(self, request: Request) -> Asked:
        origin = request.headers.get("origin")
        if origin is not None and origin not in self._origins:
            raise Refused(403, "CSRF", FOREIGN.format(self._origins[0]))
        if seconds := self._rates.wait_seconds(""):
            raise Refused(
                429, "RATE_LIMITED", f"At most {WRITES_PER_SECOND:g} writes a second, in the long run; try again in {seconds:.1f} s."
            )
        self._rates.take("", 1)
        text = await body(request.receive, dict(request.scope["headers"]), MOST_BYTES)
        try:
            asked = msgspec.json.decode(text, type=Asked)
        except msgspec.DecodeError as error:
            raise Refused(400, "BAD_REQUEST", f'Send {{"follower": 1, "followee": 2}}, two user ids: {error}.') from error
        for name, value in (("follower", asked.follower), ("followee", asked.followee)):
            if not 1 <= value <= self._users:
                raise Refused(400, "BAD_REQUEST", f"{name} {value} is none of the users 1 to {self._users:,}.")
        if asked.follower == asked.followee:
            raise Refused(400, "BAD_REQUEST", f"User {asked.follower} cannot follow itself.")
        return asked

    async def _follow(self, asked: Asked) -> Told:
        pair = (asked.follower, asked.followee)
        if pair in self._kept:
            raise Refused(
                409, "CONFLICT", f"User {asked.follower} follows {asked.followee} already: take that back, or let another follow."
            )
        # above every id of an earlier run and of the traffic beside it, and below 2^53
        self._id = max(self._id + 1, _ms() << 12)
        row = Follows(self._id, *pair, datetime.now(UTC))
        self._kept[pair] = row
        try:
            token = await self._out.write("c", None, row, _ms())
        except BaseException:
            del self._kept[pair]
            raise
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return Told(row.follow_id, _ms(), token)

    async def _unfollow(self, asked: Asked) -> Told:
        row = self._kept.pop((asked.follower, asked.followee), None)
        if row is None:
            raise Refused(
                404, "NOT_FOUND", f"User {asked.follower} was not made to follow {asked.followee} here; only that can be taken back."
            )
        try:
            token = await self._out.write("d", row, None, _ms())
        except BaseException:
            self._kept[asked.follower, asked.followee] = row
            raise
        return Told(row.follow_id, _ms(), token)


def application(out: Out, users: int, origins: list[str], clock: Callable[[], float] = time.monotonic) -> Starlette:
    """The service as an ASGI app. origins: of the gateway; nobody else's pages may write."""
    route = Route("/follows", FollowsApp(out, users, origins, clock).follows, methods=["POST", "DELETE"])
    allowed = Middleware(CORSMiddleware, origins, ["POST", "DELETE"], ["content-type"])
    return Starlette(routes=[route, Route("/livez", _livez)], middleware=[allowed])


async def _livez(request: Request) -> Response:
    return Response("alive\n", media_type="text/plain")


@asynccontextmanager
async def opened(settings: Settings, *, sql: bool) -> AsyncIterator[Out]:
    """The way of publishing, ended at the end."""
    if sql:
        async with asyncpg.create_pool(settings.postgres_url, min_size=0, max_size=4, timeout=5, command_timeout=5) as pool:
            yield IntoTables(pool)
    else:
        publisher = Publisher(settings.kafka_bootstrap, settings.topic_prefix)
        yield IntoTopics(publisher)
        await asyncio.to_thread(publisher.flush, 5)


def main(
    users: Annotated[int, typer.Option(help="How many users were seeded: their ids are 1 to this.", min=1)] = SMALL.users,
    sql: Annotated[bool, typer.Option("--sql", help="Write to PostgreSQL, where change data capture publishes, and not to Kafka.")] = False,
) -> None:
    """Serve POST and DELETE /follows for the gateway's page /compare, until it is stopped."""
    settings = read_settings()
    set_up_logs(settings.log_level)
    asyncio.run(_serve(settings, users, sql=sql))


async def _serve(settings: Settings, users: int, *, sql: bool) -> None:
    at = urlsplit(settings.writes_url)
    if at.hostname is None or at.port is None:
        raise SystemExit("VIEWGATE_WRITES_URL says where to listen: set it to http://127.0.0.1 and a port.")
    origins = [f"http://{host}:{settings.port}" for host in ("127.0.0.1", "localhost")]
    async with opened(settings, sql=sql) as out:
        app = application(out, users, origins)
        config = uvicorn.Config(app, at.hostname, at.port, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)
        await uvicorn.Server(config).serve()


def _ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    typer.run(main)
