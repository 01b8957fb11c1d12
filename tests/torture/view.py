"""A view of which each table is published in another way: VIEWGATE_VIEW names it."""

from dataclasses import dataclass, replace
from typing import Annotated

from schema import user
from schema.definition import Definition
from schema.fields import Column, Count, Facts
from tests.faults.changelog_view import Users


class Follows(user.Follows, topic="follows", key="follow_id", position="debezium"):
    """By change data capture."""


class Tweets(user.Tweets, topic="outbox_tweets", key="tweet_id", table="tweets", form="outbox", position="debezium"):
    """By a transactional outbox."""


class Likes(user.Likes, topic="likes", key="like_id", form=Facts(("liked",), ("unliked",))):
    """By single-write, as facts; a sink brings them into PostgreSQL."""


@dataclass
class UserView:
    """A user, whose newest row and tombstones come by change data capture, unwrapped."""

    id: str
    username: Annotated[str, Column(Users, lookup=True)]
    name: Annotated[str | None, Column(Users)]
    tweet_count: Annotated[int, Count(Tweets, by="user_id")]
    following_count: Annotated[int, Count(Follows, by="follower_id")]
    follower_count: Annotated[int, Count(Follows, by="followee_id")]
    like_count: Annotated[int, Count(Likes, by="user_id")]


def written_once(definition: Definition) -> Definition:
    """What of it a sink brings into PostgreSQL."""
    (likes,) = (field for field in definition.aggregates if field.name == "like_count")
    return replace(definition, base=Likes, columns=(), aggregates=(likes,))
