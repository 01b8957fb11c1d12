"""Change data capture day by day: what a table's owner does to it, and what the view makes of that."""

import pytest

from demo import capture
from demo.servers.process import ServerError
from schema.definition import read_definition
from schema.user import UserView
from tests.cdc.captured import SINCE, Captured


async def test_a_row_that_gets_another_key_is_the_row_of_another_user(road: Captured) -> None:
    for number in (1, 2, 3):
        await road.user(number)
    await road.follow(1, 2, 1)
    await road.capture()
    await road.project()
    assert await road.agree() == 3
    await road.pool.execute("UPDATE users SET user_id = 100 WHERE user_id = 1")
    await road.pool.execute("UPDATE follows SET follow_id = 50, followee_id = 100")
    await road.captured()
    assert await road.agree() == 3
    view = await road.in_view()
    assert set(view) == {"2", "3", "100"}
    assert (view["100"]["username"], view["100"]["follower_count"]) == (b'"user1"', b"1")


async def test_a_column_more_is_not_seen_and_one_that_is_renamed_makes_dead_letters(road: Captured) -> None:
    await road.user(1)
    await road.capture()
    await road.project()
    assert await road.agree() == 1
    await road.pool.execute("ALTER TABLE users ADD COLUMN shoe_size int NOT NULL DEFAULT 42")
    await road.user(2)
    await road.pool.execute("UPDATE users SET shoe_size = 43, name = 'One' WHERE user_id = 1")
    await road.captured()
    assert await road.agree() == 2
    await road.pool.execute("ALTER TABLE users RENAME COLUMN name TO full_name")
    await road.pool.execute("UPDATE users SET full_name = 'Uno' WHERE user_id = 1")
    await road.pool.execute("INSERT INTO users (user_id, username, joined_at) VALUES (3, 'user3', $1)", SINCE)
    # what is no dead letter goes on meanwhile
    await road.follow(1, 1, 2)
    reasons = await road.buried(2)
    assert all("missing required field `name`" in reason for reason in reasons), reasons
    await road.pool.execute("ALTER TABLE users RENAME COLUMN full_name TO name")
    await road.captured()
    with pytest.raises(TimeoutError, match="2 rows differ"):
        await road.agree(3)
    assert (await road.in_view())["2"]["follower_count"] == b"1"


async def test_a_quiet_table_does_not_hold_the_write_ahead_log_back(road: Captured) -> None:
    await road.pool.execute("CREATE TABLE elsewhere (number int)")
    await road.user(1)
    await road.capture()
    await road.pool.execute("INSERT INTO elsewhere SELECT generate_series(1, 10000)")
    await road.captured(20)


async def test_a_connector_that_cannot_run_is_told_with_connects_reason(road: Captured) -> None:
    with pytest.raises(ServerError, match=r'(?s)connector cdc\d+ is refused: .*database "nowhere" does not exist'):
        await road.capture(database_dbname="nowhere")


def test_a_table_that_is_not_called_like_its_topic_is_refused() -> None:
    with pytest.raises(ServerError, match=r"let VIEWGATE_TOPIC_PREFIX be app\.public\."):
        capture.connector("app", "postgresql://postgres@127.0.0.1:1/db", read_definition(UserView, "other."))


def test_a_connector_is_told_where_the_database_is_and_what_it_must_not_leave_out() -> None:
    definition = read_definition(UserView, "app.public.")
    config = capture.connector("app", "postgresql://o%27brien:pa%20ss@db.example:6000/shop", definition).config
    at = [config[f"database.{name}"] for name in ("hostname", "port", "user", "password", "dbname")]
    assert at == ["db.example", "6000", "o'brien", "pa ss", "shop"]
    assert set(config["table.include.list"].split(",")) == {"public.users", "public.tweets", "public.follows", "public.likes"}
    assert (config["skipped.operations"], config["slot.name"]) == ("none", "app")
