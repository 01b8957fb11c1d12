"""Changes at a steady rate, and among them probes: each is followed on its way through Kafka and Redis to GraphQL."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import httpx
from redis.asyncio import Redis

from demo.publish import Publisher
from loaders.view import ViewLoader
from schema.definition import Definition
from schema.loader import Read
from schema.positions import Token
from schema.user import Follows, Tweets

SEED = 20_260_101
START = datetime(2026, 1, 1, tzinfo=UTC)
# one of so many changes is a probe
PROBED = 20
# between two looks, into Redis and into GraphQL, where one costs more of the machine
LOOK_SECONDS, ASK_SECONDS = 0.002, 0.004
MOST_AT_ONCE = 100
LATE_SECONDS = 30.0
SEEN = "query ($ids: [ID!]!) { users(ids: $ids) { id tweetCount } }"


@dataclass(slots=True, eq=False)
class Probe:
    """The one tweet of a user of its own, numbered as the user. due: when the schedule has it. Moments: `time.monotonic`; 0: not yet.

    read: when its writer read it back, by the token; waiting means that this is how it is seen, and else it is looked for all the time.
    """

    user: int
    due: float
    waits: bool
    sent: float = 0.0
    acked: float = 0.0
    came: float = 0.0
    stored: float = 0.0
    seen: float = 0.0
    read: float = 0.0
    stranger: float = 0.0


class ReadWrongly(Exception):
    """A read that brought a token has not got the write: nothing else that was measured means anything."""


class View(NamedTuple):
    """Where probes are looked for."""

    redis: Redis
    definition: Definition
    graphql: str


@dataclass(slots=True)
class Traffic:
    """rate: changes per second, probes included. users: those who follow one another, above the probes' own. view: None: nothing is
    looked for, and probes are followed to their acknowledgement."""

    publisher: Publisher
    rate: int
    seconds: int
    users: int
    view: View | None = None
    probes: list[Probe] = field(default_factory=list)
    following: dict[int, int] = field(default_factory=dict)
    followers: dict[int, int] = field(default_factory=dict)
    late: float = 0.0
    looks: list[float] = field(default_factory=list)
    _unstored: list[Probe] = field(default_factory=list)
    _unseen: list[Probe] = field(default_factory=list)

    @property
    def changes(self) -> int:
        return self.rate * self.seconds

    async def run(self) -> None:
        """All changes, until every probe has been seen. Raises ReadWrongly, TimeoutError."""
        looks = (self._look_into_redis(self.view), self._look_into_graphql(self.view)) if self.view else ()
        looking = [asyncio.create_task(look) for look in looks]
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
                async with asyncio.TaskGroup() as group:
                    await self._publish(lambda probe: group.create_task(self._follow(probe, client)))
                async with asyncio.timeout(LATE_SECONDS):
                    while self._unstored or self._unseen:
                        self._raise(looking)
                        await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in looking:
                task.cancel()
            await asyncio.gather(*looking, return_exceptions=True)

    async def _publish(self, begin: Callable[[Probe], object]) -> None:
        """Each change when it is due, however long the ones before it take."""
        dice, began = random.Random(SEED), time.monotonic()
        for number in range(self.changes):
            due = began + number / self.rate
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            self.late = max(self.late, time.monotonic() - due)
            if number % PROBED == 0:
                probe = Probe(1 + number // PROBED, due, waits=number // PROBED % 2 == 1)
                self.probes.append(probe)
                # those that wait by their token are not looked for: it would hurry nobody
                if self.view and not probe.waits:
                    self._unstored.append(probe)
                    self._unseen.append(probe)
                begin(probe)
            else:
                self._change(number, dice)

    def _change(self, number: int, dice: random.Random) -> None:
        first = self.changes // PROBED + 1
        follow = Follows(number, first + dice.randrange(self.users), first + dice.randrange(self.users), START)
        self.publisher.publish("c", None, follow, _ms())
        for counts, user in ((self.following, follow.follower_id), (self.followers, follow.followee_id)):
            counts[user] = counts.get(user, 0) + 1

    async def _follow(self, probe: Probe, client: httpx.AsyncClient) -> None:
        probe.sent = time.monotonic()
        token = await self.publisher.acknowledged("c", None, Tweets(probe.user, probe.user, "x", START), _ms())
        probe.acked = time.monotonic()
        if self.view and probe.waits:
            (count,) = await _ask(client, self.view, [probe.user], token)
            probe.read = time.monotonic()
            if count != 1:
                raise ReadWrongly(f"user {probe.user} has {count} tweets in an answer that was to have write {token}")
            # somebody else's row lies on a shard that this write did not touch
            await _ask(client, self.view, [self.changes // PROBED + probe.user], token)
            probe.stranger = time.monotonic()

    async def _look_into_redis(self, view: View) -> None:
        loader = ViewLoader(view.redis, view.definition)
        while True:
            if probes := self._unstored[:MOST_AT_ONCE]:
                rows = (await loader.load([Read("id", str(probe.user), ("tweet_count",)) for probe in probes])).rows
                now = time.monotonic()
                for probe, row in zip(probes, rows, strict=True):
                    if row is not None and row[0] == b"1":
                        probe.stored = now
                        self._unstored.remove(probe)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_into_graphql(self, view: View) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            while True:
                if probes := self._unseen[:MOST_AT_ONCE]:
                    began = time.monotonic()
                    counts = await _ask(client, view, [probe.user for probe in probes])
                    now = time.monotonic()
                    self.looks.append(now - began)
                    for probe, count in zip(probes, counts, strict=True):
                        if count == 1:
                            probe.seen = now
                            self._unseen.remove(probe)
                await asyncio.sleep(ASK_SECONDS)

    @staticmethod
    def _raise(tasks: Sequence["asyncio.Task[None]"]) -> None:
        for task in tasks:
            if task.done():
                task.result()


async def _ask(client: httpx.AsyncClient, view: View, users: Sequence[int], after: Token | None = None) -> list[int]:
    body = {"query": SEEN, "variables": {"ids": [str(user) for user in users]}}
    answer = (await client.post(view.graphql, json=body, headers={"viewgate-after": str(after)} if after else {})).json()
    if "errors" in answer:
        raise ReadWrongly(f"{answer['errors']}")
    return [user["tweetCount"] for user in answer["data"]["users"]]


def _ms() -> int:
    return time.time_ns() // 1_000_000
