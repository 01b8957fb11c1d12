"""The seed: users with a heavy-tailed follow graph, their tweets and likes. The same rows for the same size, every time."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from demo.publish import Record, record
from schema.fields import Row
from schema.user import PROFILE_BANNERS, PROFILE_IMAGES, Follows, Likes, Tweets, Users

VERSION = 1
SINCE = datetime(2020, 1, 1, tzinfo=UTC)
PLACES = (None, "Berlin", "København", "São Paulo", "東京", "Nairobi", "Kraków")
WORDS = ["coffee", "code", "cats", "maps", "trains", "bread", "rain", "books", "jazz", "tea", "birds", "chess", "bikes", "moss", "clouds"]


@dataclass(frozen=True, slots=True)
class Size:
    """How many rows of each table."""

    users: int
    tweets: int
    follows: int
    likes: int

    @property
    def rows(self) -> int:
        return self.users + self.tweets + self.follows + self.likes


def sized(users: int) -> Size:
    """So many users, and what they did in proportion."""
    return Size(users=users, tweets=users * 4, follows=users * 25 // 2, likes=users * 15 // 2)


FULL = sized(40_000)
# librdkafka's mock broker keeps 5 MiB per partition: all of this fits, with room for hours of live changes
SMALL = Size(users=5_000, tweets=15_000, follows=40_000, likes=25_000)


def records(size: Size) -> Iterator[Record]:
    """Each seeded change: all are inserts."""
    return (record("c", None, row, _ms(row)) for row in rows(size))


def rows(size: Size) -> Iterator[Row]:
    """Users first, then what they did."""
    dice = random.Random(VERSION)
    yield from (user(number) for number in range(1, size.users + 1))
    for number in range(1, size.tweets + 1):
        yield Tweets(number, popular(dice, size.users), f"{dice.choice(WORDS)} and {dice.choice(WORDS)}, #{number}", _moment(dice))
    for number in range(1, size.follows + 1):
        yield Follows(number, dice.randint(1, size.users), popular(dice, size.users), _moment(dice))
    for number in range(1, size.likes + 1):
        yield Likes(number, popular(dice, size.users), dice.randint(1, size.tweets), _moment(dice))


def user(number: int) -> Users:
    """The seeded user of this id."""
    first, second = WORDS[number % len(WORDS)], WORDS[number * 7 % 13]
    banner = f"{PROFILE_BANNERS}{number * 7919}/{number * 104729}/1500x500" if number % 3 else None
    return Users(
        user_id=number,
        username=f"{first}_{number}",
        name=f"{first.capitalize()} {second.capitalize()}",
        description=f"{first}, {second} and {WORDS[number * 11 % 15]}." if number % 5 else None,
        location=PLACES[number % len(PLACES)],
        web_page_url=f"https://{first}.example/{number}" if number % 4 else None,
        joined_at=SINCE + timedelta(minutes=number * 31),
        profile_image_url=f"{PROFILE_IMAGES}{number * 15485863}/{first}_400x400.jpg",
        background_image_url=banner,
    )


def popular(dice: random.Random, users: int) -> int:
    """A user drawn with a heavy tail: the first percent of them draws about a third."""
    return 1 + int(users * dice.random() ** 4)


def _moment(dice: random.Random) -> datetime:
    return SINCE + timedelta(seconds=dice.randrange(100_000_000))


def _ms(row: Row) -> int:
    moment: datetime = row.joined_at if isinstance(row, Users) else getattr(row, "created_at", SINCE)
    return int(moment.timestamp() * 1000)
