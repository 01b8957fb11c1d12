"""A seeded history of a social network, in parts that can be published side by side: its records, and what they amount to. Does no I/O.

Of a hundred changes 4 are of users, one of those an update; 16 of tweets, 50 of follows, 30 of likes, of which every tenth takes back an
earlier one. Whom people follow, and who writes and likes, has a heavy tail: the first percent of users draws about a third.
"""

import random
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from msgspec.structs import replace

from demo import seed
from demo.publish import Record, record
from schema.fields import Row
from schema.user import Follows, Likes, Tweets, Users

START = datetime(2026, 1, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
COUNTS = ("tweet_count", "following_count", "follower_count", "like_count")
# of each hundred changes; the last user of them is an update
_KINDS = (Users,) * 4 + (Tweets,) * 16 + (Follows,) * 50 + (Likes,) * 30
_UPDATE, _TAKEN_BACK, _KEPT = 3, 10, 5_000


@dataclass(frozen=True, slots=True)
class Part:
    """Part `number` of `parts`, which share the users and nothing else. changes: a multiple of 100."""

    number: int
    parts: int
    changes: int

    @property
    def users(self) -> int:
        """How many there are in all parts together."""
        return self.parts * self.changes // 100 * (_KINDS.count(Users) - 1)


@dataclass(slots=True)
class Amounts:
    """What a part amounts to. counts: for each of COUNTS, by the user's id less 1. renamed: users that were updated."""

    counts: Sequence["array[int]"]
    renamed: set[int] = field(default_factory=set)

    @classmethod
    def nothing(cls, users: int) -> "Amounts":
        return cls([array("i", bytes(4 * users)) for _ in COUNTS])

    def add(self, other: "Amounts") -> None:
        for mine, theirs in zip(self.counts, other.counts, strict=True):
            for place, count in enumerate(theirs):
                mine[place] += count
        self.renamed |= other.renamed

    def user(self, number: int) -> Users:
        """The user as it is in the end."""
        first = seed.user(number)
        return renamed(first) if number in self.renamed else first


class History:
    """The records of one part, in the order in which they are to be published. amounts: of those that were given out."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._dice = random.Random(part.number)
        self._made: dict[type[Row], int] = dict.fromkeys(_KINDS, 0)
        # the oldest that can be changed again
        self._users: deque[Users] = deque()
        self._kept: dict[type[Row], deque[Row]] = {kind: deque() for kind in _KINDS}
        self.amounts = Amounts.nothing(part.users)

    def records(self) -> Iterator[Record]:
        for number in range(self._part.changes):
            kind = number * 37 % 100
            yield self._user(kind, number) if kind < _KINDS.count(Users) else self._deed(_KINDS[kind], number)

    def _user(self, kind: int, number: int) -> Record:
        if kind == _UPDATE:
            before = self._users.popleft()
            self.amounts.renamed.add(before.user_id)
            return record("u", before, renamed(before), START_MS + number)
        user = seed.user(self._key(Users))
        if len(self._users) < _KEPT:
            self._users.append(user)
        return record("c", None, user, START_MS + number)

    def _deed(self, kind: type[Row], number: int) -> Record:
        if number % _TAKEN_BACK == 9 and self._kept[kind]:
            row = self._kept[kind].popleft()
            self._count(row, -1)
            return record("d", row, None, START_MS + number)
        row = self._new(kind, self._key(kind))
        if len(self._kept[kind]) < _KEPT:
            self._kept[kind].append(row)
        self._count(row, 1)
        return record("c", None, row, START_MS + number)

    def _key(self, kind: type[Row]) -> int:
        """The next that no other part has."""
        self._made[kind] += 1
        return (self._made[kind] - 1) * self._part.parts + self._part.number + 1

    def _new(self, kind: type[Row], key: int) -> Row:
        dice, users = self._dice, self._part.users
        user = seed.popular(dice, users)
        if kind is Tweets:
            return Tweets(key, user, f"{seed.WORDS[key % 15]} and {seed.WORDS[key * 7 % 13]}, #{key}", START)
        if kind is Likes:
            return Likes(key, user, 1 + int(dice.random() * users), START)
        return Follows(key, 1 + int(dice.random() * users), user, START)

    def _count(self, row: Row, step: int) -> None:
        tweets, following, followers, likes = self.amounts.counts
        if isinstance(row, Follows):
            following[row.follower_id - 1] += step
            followers[row.followee_id - 1] += step
        elif isinstance(row, Likes):
            likes[row.user_id - 1] += step
        elif isinstance(row, Tweets):
            tweets[row.user_id - 1] += step


def renamed(user: Users) -> Users:
    return replace(user, name=f"{user.name} II")
