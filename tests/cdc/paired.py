"""The users of the demo by an at-least-once connector: sources that go by Debezium's pairs of LSNs. Some columns are left out."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from schema.fields import Column, Count, Row


class Users(Row, topic="users", key="user_id", position="debezium"):
    user_id: int
    username: str
    name: str | None
    joined_at: datetime


class Tweets(Row, topic="tweets", key="tweet_id", position="debezium"):
    tweet_id: int
    user_id: int
    text: str
    created_at: datetime


class Follows(Row, topic="follows", key="follow_id", position="debezium"):
    follow_id: int
    follower_id: int
    followee_id: int
    created_at: datetime


@dataclass
class PairedView:
    """A user."""

    id: str
    username: Annotated[str, Column(Users, lookup=True)]
    name: Annotated[str | None, Column(Users)]
    tweet_count: Annotated[int, Count(Tweets, by="user_id")]
    following_count: Annotated[int, Count(Follows, by="follower_id")]
    follower_count: Annotated[int, Count(Follows, by="followee_id")]
