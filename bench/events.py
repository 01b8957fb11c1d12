"""Seeded follow events: who follows whom, the records that say so, and the counts that they amount to. Does no I/O."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from demo.publish import envelope
from schema.user import Follows

USERS = 1_000_000
SEED = 20_260_101
START = datetime(2026, 1, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
Distribution = Literal["uniform", "heavy-tailed"]
# user → (following, followers); a user with neither is left out
Counts = Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a follow: created, or deleted."""

    op: Literal["c", "d"]
    follow: Follows


def _uniform(draw: Callable[[], float]) -> int:
    return 1 + int(USERS * draw())


def _heavy_tailed(draw: Callable[[], float]) -> int:
    """User r comes with a probability of about 1/r: the first of a million is in one of twenty draws."""
    return int(USERS ** draw())


_PICKS: Mapping[Distribution, Callable[[Callable[[], float]], int]] = {"uniform": _uniform, "heavy-tailed": _heavy_tailed}


def events(count: int, distribution: Distribution) -> Iterator[Event]:
    """The same ones each time. Every tenth deletes the oldest follow that is left."""
    draw, pick = random.Random(SEED).random, _PICKS[distribution]
    created: list[Follows] = []
    for number in range(count):
        if number % 10 == 9:
            yield Event("d", created[number // 10])
        else:
            follow = Follows(number, pick(draw), pick(draw), START)
            created.append(follow)
            yield Event("c", follow)


def records(topic: str, count: int, distribution: Distribution) -> Iterator[tuple[str, bytes, bytes]]:
    """Topic, key and value of each event, a millisecond apart."""
    for number, event in enumerate(events(count, distribution)):
        before, after = (None, event.follow) if event.op == "c" else (event.follow, None)
        yield topic, b"%d" % event.follow.follow_id, envelope(event.op, before, after, START_MS + number)


def counts(count: int, distribution: Distribution) -> Counts:
    """What the view has to hold after all events."""
    following: dict[int, int] = {}
    followers: dict[int, int] = {}
    for event in events(count, distribution):
        change = 1 if event.op == "c" else -1
        for users, user in ((following, event.follow.follower_id), (followers, event.follow.followee_id)):
            users[user] = users.get(user, 0) + change
    found = {user: (following.get(user, 0), followers.get(user, 0)) for user in following.keys() | followers.keys()}
    return {user: pair for user, pair in found.items() if pair != (0, 0)}
