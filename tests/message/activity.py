"""A view whose tables come in several forms: users in the envelope, what they do as facts, two tables of them in one topic."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from schema.fields import Column, Count, Facts, Row, Sum


class Users(Row, topic="users", key="user_id"):
    user_id: int
    username: str


class Follows(Row, topic="activity", key="follow_id", form=Facts(("followed",), ("unfollowed",))):
    follow_id: int
    follower_id: int
    followee_id: int


class Likes(Row, topic="activity", key="like_id", form=Facts(("liked", "loved"), ("unliked",))):
    like_id: int
    user_id: int
    hearts: int
    created_at: datetime


class Tweets(Row, topic="tweets", key="tweet_id", form=Facts(("tweet created",), ("tweet deleted",), header="type")):
    tweet_id: int
    user_id: int
    text: str | None


@dataclass
class UserView:
    """A user, and how much of everything."""

    id: str
    username: Annotated[str, Column(Users, lookup=True)]
    tweet_count: Annotated[int, Count(Tweets, by="user_id")]
    following_count: Annotated[int, Count(Follows, by="follower_id")]
    follower_count: Annotated[int, Count(Follows, by="followee_id")]
    like_count: Annotated[int, Count(Likes, by="user_id")]
    hearts: Annotated[int, Sum(Likes, of="hearts", by="user_id")]
