"""The users again, for a connector that sends changes at least once: position `debezium`. Fewer columns are shown."""

from dataclasses import dataclass
from typing import Annotated

from schema import user
from schema.fields import Column, Count


class Users(user.Users, topic="users", key="user_id", position="debezium"):
    """The same table."""


class Tweets(user.Tweets, topic="tweets", key="tweet_id", position="debezium"):
    """The same table."""


class Follows(user.Follows, topic="follows", key="follow_id", position="debezium"):
    """The same table."""


class Likes(user.Likes, topic="likes", key="like_id", position="debezium"):
    """The same table."""


@dataclass
class UserView:
    """A user: the name, and how much of everything."""

    id: str
    username: Annotated[str, Column(Users, "The handle.", lookup=True)]
    name: Annotated[str | None, Column(Users, "The name as shown.")]
    tweet_count: Annotated[int, Count(Tweets, by="user_id", description="Tweets that the user wrote.")]
    following_count: Annotated[int, Count(Follows, by="follower_id", description="Users that this user follows.")]
    follower_count: Annotated[int, Count(Follows, by="followee_id", description="Users that follow this user.")]
    like_count: Annotated[int, Count(Likes, by="user_id", description="Likes that the user gave.")]
