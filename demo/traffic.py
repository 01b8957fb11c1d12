"""`viewgate traffic`: live changes of the demo's users: they join, rename themselves, tweet, follow, like, and take back.

Publishes to the Kafka of the settings, or writes to their PostgreSQL; reads the view only to say how stale it is.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Protocol

import asyncpg
import msgspec
import typer
import uvloop
from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException
from rich.live import Live

from app.cli import CommandError
from app.clients import open_redis
from app.console import age, console
from app.settings import Settings, read_settings
from app.stopping import told_to_stop
from app.telemetry import set_up_logs
from demo.publish import Publisher
from demo.seed import SMALL, popular
from demo.seed_command import unreachable, users_of
from demo.sink import end_offsets
from demo.writing import TableWriter
from loaders.view import ViewLoader
from schema.definition import Definition
from schema.fields import Row
from schema.loader import LoadError, Read
from schema.user import Follows, Likes, Tweets, Users

MOST_KEPT = 1000
MIX = {"follow": 40, "like": 25, "tweet": 20, "join": 3, "rename": 3, "unfollow": 5, "unlike": 3, "leave": 1}
MIXED = ",".join(f"{name}={weight}" for name, weight in MIX.items())
TICK_SECONDS = 0.01
TELL_SECONDS = 0.5
TELL_PIPED_SECONDS = 10.0
LATE_SECONDS = 5.0


class Out(Protocol):
    """Where changes go."""

    def publish(self, op: str, before: Row | None, after: Row | None, ts_ms: int) -> None: ...


class Traffic:
    """users: how many were seeded. mix: how often each act of MIX comes. counts: changes so far, by act.

    Retracts only what it published itself, since a retraction must tell the row as it was; while there is nothing to take back
    or to rename, somebody follows instead.
    """

    def __init__(self, publisher: Out, users: int, mix: Mapping[str, int]) -> None:
        self._publisher, self._users = publisher, users
        self._dice = random.Random()
        # above every id of an earlier run, and below 2^53
        self._id = time.time_ns() // 1_000_000 << 12
        self._kept: dict[type[Row], list[Row]] = {Users: [], Follows: [], Likes: [], Tweets: []}
        self._names, self._weights = list(mix), list(mix.values())
        self._acts: Mapping[str, Callable[[], bool]] = {
            "follow": self._follow,
            "like": self._like,
            "tweet": self._tweet,
            "join": self._join,
            "rename": self._rename,
            "unfollow": lambda: self._retract(Follows),
            "unlike": lambda: self._retract(Likes),
            "leave": lambda: self._retract(Users),
        }
        self.counts: Counter[str] = Counter()

    @property
    def published(self) -> int:
        """Changes so far."""
        return self.counts.total()

    def act(self) -> None:
        """Publish one change."""
        (name,) = self._dice.choices(self._names, self._weights)
        if not self._acts[name]():
            name = "follow"
            self._follow()
        self.counts[name] += 1

    def _join(self) -> bool:
        number = self._next()
        return self._insert(Users(number, f"new_{number}", f"New {number}", None, None, None, _now(), None, None))

    def _follow(self) -> bool:
        return self._insert(Follows(self._next(), self._dice.randint(1, self._users), popular(self._dice, self._users), _now()))

    def _like(self) -> bool:
        return self._insert(Likes(self._next(), popular(self._dice, self._users), self._dice.randint(1, self._users), _now()))

    def _tweet(self) -> bool:
        return self._insert(Tweets(self._next(), popular(self._dice, self._users), "Live from the demo.", _now()))

    def _rename(self) -> bool:
        kept = self._kept[Users]
        if not kept:
            return False
        place = self._dice.randrange(len(kept))
        before = kept[place]
        kept[place] = msgspec.structs.replace(before, username=f"renamed_{self._next()}")
        self._publisher.publish("u", before, kept[place], _ms())
        return True

    def _insert(self, row: Row) -> bool:
        self._kept[type(row)] = [*self._kept[type(row)][-MOST_KEPT:], row]
        self._publisher.publish("c", None, row, _ms())
        return True

    def _retract(self, table: type[Row]) -> bool:
        kept = self._kept[table]
        if not kept:
            return False
        self._publisher.publish("d", kept.pop(self._dice.randrange(len(kept))), None, _ms())
        return True

    def _next(self) -> int:
        self._id += 1
        return self._id


def traffic(
    rate: Annotated[float, typer.Option(help="Changes per second.", min=0.01, max=50_000)] = 20,
    mix: Annotated[str, typer.Option(help="Which changes, and how often each.")] = MIXED,
    users: Annotated[int, typer.Option(help="How many users were seeded: their ids are 1 to this.", min=1)] = SMALL.users,
    seconds: Annotated[float | None, typer.Option(help="End after so long, instead of at Ctrl-C.", min=0)] = None,
    sql: Annotated[bool, typer.Option("--sql", help="Write to PostgreSQL, where change data capture publishes, and not to Kafka.")] = False,
) -> None:
    """Publish live changes of the seeded users to Kafka, until Ctrl-C, and say how stale the view is.

    \b
    Examples:
      viewgate traffic --rate 1000 --seconds 60
      viewgate traffic --mix tweet=1,follow=2
      viewgate traffic --sql
    """
    settings = read_settings()
    set_up_logs("critical")
    definition, weights = users_of(settings), mixed(mix)
    try:
        published = uvloop.run(_run(settings, definition, users, rate, weights, seconds, sql=sql))
    except (OSError, asyncpg.PostgresError) as error:
        raise CommandError(f"PostgreSQL cannot be written to ({error}): see VIEWGATE_POSTGRES_URL, and `viewgate doctor`.") from error
    except KafkaError as error:
        raise unreachable(settings, error) from error
    except KafkaException as error:
        raise CommandError(f"Not everything arrived: {error}. `viewgate doctor` says whether Kafka is well.") from error
    typer.echo(f"{published:,} changes {'written' if sql else 'published'}.")


def mixed(text: str) -> dict[str, int]:
    """The weights of a --mix. Raises typer.BadParameter."""
    mix: dict[str, int] = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        if name not in MIX or not weight.isdecimal():
            raise typer.BadParameter(f"{part!r}: write name=weight: a whole number, and one of {', '.join(MIX)}.", param_hint="--mix")
        mix[name] = int(weight)
    if not any(mix.values()):
        raise typer.BadParameter("one weight at least must be above 0.", param_hint="--mix")
    return mix


async def _run(
    settings: Settings, definition: Definition, users: int, rate: float, mix: Mapping[str, int], seconds: float | None, *, sql: bool
) -> int:
    stop = told_to_stop()
    async with _into_tables(settings, stop) if sql else _into_topics(settings, definition) as out:
        running = Traffic(out, users, mix)
        telling = asyncio.create_task(_tell(settings, definition, running))
        try:
            await _publish(running, rate, seconds, stop)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
    return running.published


@asynccontextmanager
async def _into_topics(settings: Settings, definition: Definition) -> AsyncIterator[Out]:
    # librdkafka waits for a Kafka that is away; this one says so
    await end_offsets(settings.kafka_bootstrap, definition.topics)
    publisher = Publisher(settings.kafka_bootstrap, settings.topic_prefix)
    try:
        yield publisher
    finally:
        await asyncio.to_thread(publisher.flush, LATE_SECONDS)


@asynccontextmanager
async def _into_tables(settings: Settings, stop: asyncio.Event) -> AsyncIterator[Out]:
    connection = await asyncpg.connect(settings.postgres_url)
    writer = TableWriter(connection)
    writing = asyncio.create_task(writer.run())
    # nothing is queued for a database that refuses
    writing.add_done_callback(lambda _: stop.set())
    try:
        yield writer
        if not writing.done():
            await writer.flush(LATE_SECONDS)
        else:
            writing.result()
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await connection.close()


async def _publish(running: Traffic, rate: float, seconds: float | None, stop: asyncio.Event) -> None:
    """At a steady rate: what a tick could not publish, the next one does."""
    began = time.monotonic()
    while not stop.is_set():
        passed = time.monotonic() - began
        ended = seconds is not None and passed >= seconds
        for _ in range(int((min(passed, seconds) if seconds is not None else passed) * rate) - running.published):
            running.act()
        if ended:
            return
        await asyncio.sleep(TICK_SECONDS)


async def _tell(settings: Settings, definition: Definition, running: Traffic) -> None:
    """A live line on a terminal, a line now and then elsewhere."""
    shown = console(stderr=True)
    redis = open_redis(settings, settings.redis_url)
    view, began = ViewLoader(redis, definition), time.monotonic()
    try:
        with Live(console=shown, auto_refresh=False, transient=True) as live:
            while True:
                await asyncio.sleep(TELL_SECONDS if shown.is_terminal else TELL_PIPED_SECONDS)
                rate = running.published / (time.monotonic() - began)
                kinds = ", ".join(f"{count:,} {name}" for name, count in running.counts.most_common())
                line = f"{running.published:,} changes published · {rate:,.1f}/s · {await _staleness(view)} · {kinds}"
                if shown.is_terminal:
                    live.update(line, refresh=True)
                else:
                    shown.print(line)
    finally:
        await redis.aclose()


async def _staleness(view: ViewLoader) -> str:
    try:
        rows = await view.load([Read("id", "1", ("id",))])
    except LoadError as error:
        return f"the view does not answer: {error.code}"
    return f"the view is as of {age(rows.as_of_ms)} ago"


def _now() -> datetime:
    return datetime.now(UTC)


def _ms() -> int:
    return time.time_ns() // 1_000_000
