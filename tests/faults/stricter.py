"""One view by two sets of decoders: yesterday's refuse rows with a null that today's take. What is stored is the same."""

from dataclasses import dataclass
from typing import Annotated

from schema.definition import read_definition
from schema.fields import Column, Count, Row


class People(Row, topic="people", key="user_id"):
    user_id: int
    name: str
    born: int | None


class Likes(Row, topic="likes", key="like_id"):
    like_id: int
    user_id: int
    note: str | None


class StrictPeople(Row, topic="people", key="user_id", table="people"):
    user_id: int
    name: str
    born: int


class StrictLikes(Row, topic="likes", key="like_id", table="likes"):
    like_id: int
    user_id: int
    note: str


@dataclass
class PersonView:
    """A person."""

    id: str
    name: Annotated[str, Column(People, lookup=True)]
    like_count: Annotated[int, Count(Likes, by="user_id")]


def _strict() -> type:
    @dataclass
    class PersonView:
        """A person."""

        id: str
        name: Annotated[str, Column(StrictPeople, lookup=True)]
        like_count: Annotated[int, Count(StrictLikes, by="user_id")]

    return PersonView


StrictView = _strict()
TODAY, YESTERDAY = read_definition(PersonView), read_definition(StrictView)
