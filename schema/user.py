"""The view definition: the source tables, and one line per field. Everything else is read off this file."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from schema.fields import Column, Count, Row


class Users(Row, topic="users", key="user_id"):
    user_id: int
    username: str
    name: str | None
    description: str | None
    location: str | None
    web_page_url: str | None
    joined_at: datetime
    profile_image_url: str | None
    background_image_url: str | None


class Tweets(Row, topic="tweets", key="tweet_id"):
    tweet_id: int
    user_id: int
    text: str
    created_at: datetime


class Follows(Row, topic="follows", key="follow_id"):
    follow_id: int
    follower_id: int
    followee_id: int
    created_at: datetime


class Likes(Row, topic="likes", key="like_id"):
    like_id: int
    user_id: int
    tweet_id: int
    created_at: datetime


PROFILE_IMAGES = "https://pbs.twimg.com/profile_images/"
PROFILE_BANNERS = "https://pbs.twimg.com/profile_banners/"


@dataclass
class UserView:
    """A user: the profile, and how much of everything."""

    id: str
    username: Annotated[str, Column(Users, "The handle, without the @.", lookup=True)]
    name: Annotated[str | None, Column(Users, "The name as shown.")]
    description: Annotated[str | None, Column(Users, "What the user says of themselves.")]
    location: Annotated[str | None, Column(Users, "Where the user says they are.")]
    web_page_url: Annotated[str | None, Column(Users, "The user's own page.")]
    joined_at: Annotated[datetime, Column(Users, "When the user joined.")]
    profile_image_url: Annotated[str | None, Column(Users, "The user's picture.", prefix=PROFILE_IMAGES)]
    background_image_url: Annotated[str | None, Column(Users, "The picture behind the profile.", prefix=PROFILE_BANNERS)]
    tweet_count: Annotated[int, Count(Tweets, by="user_id", description="Tweets that the user wrote.")]
    following_count: Annotated[int, Count(Follows, by="follower_id", description="Users that this user follows.")]
    follower_count: Annotated[int, Count(Follows, by="followee_id", description="Users that follow this user.")]
    like_count: Annotated[int, Count(Likes, by="user_id", description="Likes that the user gave.")]
