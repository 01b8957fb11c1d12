"""Adding an aggregate is one line: it is then in the GraphQL, the SQL, the view and the audit, and no other source file knows."""

import difflib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import pytest

from demo.servers.server import Server
from projectors.audit import Mismatch
from projectors.generations import GenerationRefused
from schema import graphql, sql, user
from schema.definition import read_definition
from schema.fields import Count
from schema.user import Tweets, Users
from tests.message.running import MODES, asked, audited, projecting, spoil
from tests.road import Road, open_road

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MS = 1_767_323_045_000


@dataclass
class UserView(user.UserView):
    """A user: the profile, and how much of everything."""

    reply_count: Annotated[int, Count(Tweets, by="user_id", where={"text": "reply"}, description="Replies that the user wrote.")]


OLD, NEW = read_definition(user.UserView), read_definition(UserView)


def test_the_line_adds_one_field_to_the_graphql_and_changes_nothing_else() -> None:
    changed = difflib.ndiff(graphql.sdl(OLD).splitlines(), graphql.sdl(NEW).splitlines())
    lines = [line for line in changed if not line.startswith(" ")]
    assert lines == ["+ ", '+   """Replies that the user wrote."""', "+   replyCount: Int!"]


def test_the_line_is_counted_by_sql() -> None:
    text = sql.select(NEW, ["reply_count"], "id")
    assert 'counted."user_id" = base."user_id"' in text
    assert """counted."text" IS NOT DISTINCT FROM 'reply'""" in text


def test_the_line_changes_the_fingerprint_so_that_no_old_generation_is_written() -> None:
    assert NEW.fingerprint != OLD.fingerprint
    assert NEW.topics == OLD.topics


def publish(road: Road) -> None:
    """Two users; user 1 has three tweets, of which two are replies; one tweet becomes a reply, one ceases to be one, one goes."""
    for user_id in (1, 2):
        road.publisher.publish("c", None, Users(user_id, f"user{user_id}", None, None, None, None, NOW, None, None), MS)
    tweet = {number: Tweets(number, 1, "reply", NOW) for number in range(1, 5)}
    other = {number: Tweets(number, 1, "Reply", NOW) for number in range(1, 5)}
    for before, after in [(None, tweet[1]), (None, tweet[2]), (tweet[2], other[2]), (None, other[3]), (other[3], tweet[3])]:
        road.publisher.publish("c" if before is None else "u", before, after, MS)
    road.publisher.publish("c", None, tweet[4], MS)
    road.publisher.publish("d", tweet[4], None, MS)
    road.publisher.publish("c", None, Tweets(5, 404, "reply", NOW), MS)


@pytest.fixture(scope="module")
async def road(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Road]:
    async with open_road(kafka_at, redis_at, postgres_at, view=UserView) as opened, projecting(opened):
        publish(opened)
        await opened.sunk()
        assert await opened.agree() == 2
        yield opened


async def test_the_line_is_answered_in_every_mode(road: Road) -> None:
    answers = await asked(road, "{ users(ids: [1, 2, 404]) { id tweetCount replyCount } }")
    expected = [{"id": "1", "tweetCount": 3, "replyCount": 2}, {"id": "2", "tweetCount": 0, "replyCount": 0}, None]
    assert [answer.json() for answer in answers.values()] == [{"data": {"users": expected}}] * len(MODES)


async def test_the_line_is_audited(road: Road) -> None:
    assert await audited(road) == []
    await spoil(road, "1", "reply_count", b"3")
    assert await audited(road) == [Mismatch("1", "reply_count", b"3", b"2")]
    await spoil(road, "1", "reply_count", b"2")


async def test_a_projector_without_the_line_refuses_the_generation_that_has_it(road: Road) -> None:
    definition = read_definition(user.UserView, road.definition.topic_prefix)
    settings = road.settings.model_copy(update={"consumer_group": f"{road.settings.consumer_group}-without"})
    without = Road(definition, settings, road.publisher, road.redis, road.pool)
    with pytest.raises(GenerationRefused, match="built with another definition of User"):
        async with projecting(without) as running:
            await running
