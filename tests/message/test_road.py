"""From a change in Kafka to the view: the whole road on real servers."""

from datetime import UTC, datetime

from demo.servers.server import Server
from schema.loader import Read
from schema.user import Follows, Users
from tests.road import open_road

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MS = 1_767_323_045_000


def user(user_id: int, username: str) -> Users:
    return Users(user_id, username, None, None, None, None, NOW, None, None)


async def test_changes_published_to_kafka_are_counted_as_sql_counts_them(kafka_at: Server, redis_at: Server, postgres_at: Server) -> None:
    async with open_road(kafka_at, redis_at, postgres_at) as road:
        for number in range(100):
            road.publisher.publish("c", None, user(number, f"user{number}"), MS)
        follows = [Follows(number, number % 100, number * 7 % 100, NOW) for number in range(2000)]
        for follow in follows:
            road.publisher.publish("c", None, follow, MS)
        for follow in follows[::3]:
            road.publisher.publish("d", follow, None, MS)
        await road.project()
        await road.sunk()
        assert await road.agree() == 100
        (found,) = (await road.view.load([Read("username", "user5", ("id", "username"))])).rows
        assert found == [b'"5"', b'"user5"']
