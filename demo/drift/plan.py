"""What the two writers do, drawn by a seed: the same acts for every way of publishing. Writes nothing."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from demo import seed as seeds
from demo.seed import SINCE, WORDS, Size, popular
from schema.fields import Row
from schema.user import Follows, Likes, Tweets, Users

WRITERS = 2
# at every so many acts both writers edit the same user at the same moment
RACE_EVERY = 8
MIX = {"edit": 26, "follow": 30, "like": 20, "tweet": 10, "join": 4, "unfollow": 6, "unlike": 2, "untweet": 1, "leave": 1}
# of the seeded users: these may leave, and are not edited
LEAVERS = 0.05


@dataclass(frozen=True, slots=True)
class Insert:
    """A new row."""

    row: Row


@dataclass(frozen=True, slots=True)
class Edit:
    """A user's columns, by name, set to these values."""

    user_id: int
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Delete:
    """A row goes, by its key."""

    table: type[Row]
    key: int


Act = Insert | Edit | Delete


def size_of(users: int) -> Size:
    """What is there before the first act."""
    return Size(users=users, tweets=users, follows=users * 3, likes=users * 2)


def mark(size: Size, number: int) -> Edit:
    """An edit of a user whom nobody else edits: once it is seen, all that was written before can be seen too."""
    return Edit(size.users, {"name": f"Mark {number}"})


def plan(size: Size, seed: int, acts: int) -> Sequence[Sequence[Act]]:
    """So many acts of each writer, in their order.

    No row is inserted or deleted twice; only edits race, at the same place in both lists and wherever two of them meet.
    """
    drawing = _Drawing(size, seed)
    lists: list[list[Act]] = [[] for _ in range(WRITERS)]
    for place in range(acts):
        if place % RACE_EVERY == 0:
            user_id = drawing.editable()
            for acts_ in lists:
                acts_.append(drawing.edit(user_id))
        else:
            for acts_ in lists:
                acts_.append(drawing.act())
    return lists


def owned(lists: Sequence[Sequence[Act]], burst: int) -> Sequence[Sequence[Act]]:
    """The same acts, dealt anew within each burst so that a user is edited by one writer only: for ways that need an owner of each row."""
    dealt: list[list[Act]] = [[] for _ in lists]
    for start in range(0, len(lists[0]), burst):
        acts = [act for pair in zip(*(acts[start : start + burst] for acts in lists), strict=True) for act in pair]
        edits = Counter(_owner(act) for act in acts if isinstance(act, Edit))
        for act in acts:
            # whoever has the most room left, beside the edits that are still to come to it
            writer = _owner(act) if isinstance(act, Edit) else min(range(len(lists)), key=lambda w: len(dealt[w]) + edits[w])
            edits[writer] -= isinstance(act, Edit)
            dealt[writer].append(act)
    return dealt


def _owner(edit: Edit) -> int:
    return edit.user_id % WRITERS


class _Drawing:
    def __init__(self, size: Size, seed: int) -> None:
        self._size = size
        self._dice = dice = random.Random(seed)
        self._number = 0
        self._editable = size.users - 1 - int(size.users * LEAVERS)
        self._there: dict[type[Row], Iterator[int]] = {
            Users: self._shuffled(range(self._editable + 1, size.users)),
            Tweets: self._shuffled(range(1, size.tweets + 1)),
            Follows: self._shuffled(range(1, size.follows + 1)),
            Likes: self._shuffled(range(1, size.likes + 1)),
        }
        self._acts: Mapping[str, Callable[[], Act]] = {
            "edit": lambda: self.edit(self.editable()),
            "follow": self._follow,
            "like": lambda: Insert(Likes(self._next(), self._popular(), dice.randint(1, size.tweets), self._moment())),
            "tweet": lambda: Insert(Tweets(self._next(), self._popular(), f"{dice.choice(WORDS)}!", self._moment())),
            "join": lambda: Insert(seeds.user(self._next())),
            "unfollow": lambda: self._delete(Follows),
            "unlike": lambda: self._delete(Likes),
            "untweet": lambda: self._delete(Tweets),
            "leave": lambda: self._delete(Users),
        }

    def act(self) -> Act:
        (name,) = self._dice.choices(list(MIX), list(MIX.values()))
        return self._acts[name]()

    def editable(self) -> int:
        return self._dice.randint(1, self._editable)

    def edit(self, user_id: int) -> Edit:
        number, word = self._next(), self._dice.choice(WORDS)
        columns = {"location": f"{word.capitalize()}ville {number}", "description": f"{word}, since {number}"}
        if self._dice.random() < 0.25:
            columns["username"] = f"{word}_{number}"
        return Edit(user_id, columns)

    def _follow(self) -> Insert:
        return Insert(Follows(self._next(), self._dice.randint(1, self._size.users), self._popular(), self._moment()))

    def _delete(self, table: type[Row]) -> Act:
        """Somebody follows instead, once all that was seeded is gone."""
        key = next(self._there[table], None)
        return Delete(table, key) if key is not None else self._follow()

    def _popular(self) -> int:
        return popular(self._dice, self._size.users)

    def _moment(self) -> datetime:
        return SINCE + timedelta(days=1500, seconds=self._number)

    def _next(self) -> int:
        """Above every seeded id."""
        self._number += 1
        return self._size.rows + self._number

    def _shuffled(self, ids: Sequence[int]) -> Iterator[int]:
        return iter(self._dice.sample(ids, len(ids)))
