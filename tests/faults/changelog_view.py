"""A view whose users come as a changelog, the newest row of each by its id, and whatever they do as envelopes: VIEWGATE_VIEW names it."""

from dataclasses import dataclass
from typing import Annotated

from schema.fields import Column, Count, Row
from schema.user import Follows, Likes, Tweets


class Users(Row, topic="users", key="user_id", form="changelog"):
    user_id: int
    username: str
    name: str | None


@dataclass
class UserView:
    """A user, by the newest row."""

    id: str
    username: Annotated[str, Column(Users, lookup=True)]
    name: Annotated[str | None, Column(Users)]
    tweet_count: Annotated[int, Count(Tweets, by="user_id")]
    following_count: Annotated[int, Count(Follows, by="follower_id")]
    follower_count: Annotated[int, Count(Follows, by="followee_id")]
    like_count: Annotated[int, Count(Likes, by="user_id")]
