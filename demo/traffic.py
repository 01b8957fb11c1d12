"""A gentle stream of live changes, by single-write: people join, rename themselves, tweet, follow and unfollow, like and unlike, leave."""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import typer
import uvloop

from app.settings import read_settings
from app.stopping import told_to_stop
from demo.publish import Publisher
from demo.seed import popular
from schema.fields import Row
from schema.user import Follows, Likes, Tweets, Users

MOST_KEPT = 1000


class Traffic:
    """users: how many were seeded. Retracts only what it published itself, since a retraction must tell the row as it was."""

    def __init__(self, publisher: Publisher, users: int) -> None:
        self._publisher, self._users = publisher, users
        self._dice = random.Random()
        # above every id of an earlier run, and below 2^53
        self._id = time.time_ns() // 1_000_000 << 12
        self._kept: dict[type[Row], list[Row]] = {Users: [], Follows: [], Likes: [], Tweets: []}
        acts: list[tuple[Callable[[], None], int]] = [
            (self._follow, 40),
            (self._like, 25),
            (self._tweet, 20),
            (self._join, 3),
            (self._rename, 3),
            (lambda: self._retract(Follows), 5),
            (lambda: self._retract(Likes), 3),
            (lambda: self._retract(Users), 1),
        ]
        self._acts, self._weights = [act for act, _ in acts], [weight for _, weight in acts]

    def act(self) -> None:
        """Publish one change."""
        self._dice.choices(self._acts, self._weights)[0]()

    def _join(self) -> None:
        number = self._next()
        self._insert(Users(number, f"new_{number}", f"New {number}", None, None, None, _now(), None, None))

    def _follow(self) -> None:
        self._insert(Follows(self._next(), self._dice.randint(1, self._users), popular(self._dice, self._users), _now()))

    def _like(self) -> None:
        self._insert(Likes(self._next(), popular(self._dice, self._users), self._dice.randint(1, self._users), _now()))

    def _tweet(self) -> None:
        self._insert(Tweets(self._next(), popular(self._dice, self._users), "Live from the demo.", _now()))

    def _rename(self) -> None:
        kept = self._kept[Users]
        if kept:
            place = self._dice.randrange(len(kept))
            before = kept[place]
            kept[place] = msgspec.structs.replace(before, username=f"renamed_{self._next()}")
            self._publisher.publish("u", before, kept[place], _ms())

    def _insert(self, row: Row) -> None:
        self._kept[type(row)] = [*self._kept[type(row)][-MOST_KEPT:], row]
        self._publisher.publish("c", None, row, _ms())

    def _retract(self, table: type[Row]) -> None:
        if kept := self._kept[table]:
            self._publisher.publish("d", kept.pop(self._dice.randrange(len(kept))), None, _ms())

    def _next(self) -> int:
        self._id += 1
        return self._id


def _now() -> datetime:
    return datetime.now(UTC)


def _ms() -> int:
    return time.time_ns() // 1_000_000


async def _run(users: int, rate: float) -> None:
    settings = read_settings()
    publisher = Publisher(settings.kafka_bootstrap, settings.topic_prefix)
    traffic = Traffic(publisher, users)
    stop = told_to_stop()
    while not stop.is_set():
        traffic.act()
        await asyncio.sleep(1 / rate)
    publisher.flush(5)


def main(users: int, rate: float = 20) -> None:
    """Publish changes until told to stop. users: how many were seeded. rate: changes per second."""
    uvloop.run(_run(users, rate))


if __name__ == "__main__":
    typer.run(main)
