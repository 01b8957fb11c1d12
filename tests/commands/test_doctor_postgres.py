"""`viewgate doctor` on a PostgreSQL that is not as it should be, each time in one way."""

from collections.abc import AsyncIterator

import pytest

from demo.servers.server import Server
from tests.commands.examined import Stack, not_ok, open_stack


@pytest.fixture
async def stack(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Stack]:
    async with open_stack(kafka_at, redis_at, postgres_at) as opened:
        yield opened


@pytest.mark.parametrize(
    ("statement", "check", "verdict", "found", "mend"),
    [
        ("DROP TABLE likes", "tables", "wrong", "there is no likes", "Point `VIEWGATE_POSTGRES_URL` at the database"),
        ("ALTER TABLE users DROP COLUMN location", "columns", "wrong", "users has no column location", "Correct the table"),
        (
            "ALTER TABLE users ALTER COLUMN joined_at TYPE timestamp",
            "columns",
            "wrong",
            "users.joined_at is timestamp, not timestamptz",
            "Correct the table",
        ),
        ("ALTER TABLE tweets ALTER COLUMN text DROP NOT NULL", "columns", "warning", "tweets.text may be null", "Correct the table"),
        (
            "ALTER TABLE tweets DROP CONSTRAINT tweets_pkey",
            "keys",
            "wrong",
            "tweets.tweet_id is not unique by itself",
            '`ALTER TABLE "tweets" ADD PRIMARY KEY ("tweet_id")`',
        ),
        (
            "DROP INDEX follows_followee_id",
            "indexes",
            "warning",
            "no index begins with follows.followee_id",
            '`CREATE INDEX CONCURRENTLY ON "follows" ("followee_id")`',
        ),
        ("DROP INDEX users_username", "indexes", "warning", "no index begins with users.username", '`CREATE INDEX CONCURRENTLY ON "users"'),
        (
            "ALTER TABLE likes REPLICA IDENTITY DEFAULT",
            "replica identity",
            "warning",
            "not FULL: likes",
            '`ALTER TABLE "likes" REPLICA IDENTITY FULL`',
        ),
    ],
)
async def test_one_thing_that_is_broken_is_named_alone_with_how_to_mend_it(
    stack: Stack, statement: str, check: str, verdict: str, found: str, mend: str
) -> None:
    await stack.connection.execute(statement)
    told = await stack.examine()
    assert not_ok(told) == {("PostgreSQL", check): verdict}
    assert found in told["PostgreSQL", check].found
    assert told["PostgreSQL", check].mend.startswith(mend)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE users ALTER COLUMN user_id TYPE int",
        "ALTER TABLE users ALTER COLUMN username TYPE varchar(15)",
        "CREATE DOMAIN word AS text; ALTER TABLE users ALTER COLUMN name TYPE word",
        "CREATE TYPE place AS ENUM ('Berlin'); ALTER TABLE users ALTER COLUMN location TYPE place USING NULL",
        "ALTER TABLE users ADD COLUMN shoe_size numeric",
        "ALTER TABLE tweets DROP CONSTRAINT tweets_pkey; CREATE UNIQUE INDEX ON tweets (tweet_id)",
        "DROP INDEX follows_followee_id; CREATE INDEX ON follows (followee_id, created_at)",
    ],
)
async def test_what_is_written_otherwise_but_fits_is_fine(stack: Stack, statement: str) -> None:
    await stack.connection.execute(statement)
    assert not_ok(await stack.examine()) == {}


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        ("DROP INDEX follows_followee_id; CREATE INDEX ON follows (created_at, followee_id)", "indexes"),
        ("DROP INDEX follows_followee_id; CREATE INDEX ON follows (followee_id) WHERE follow_id > 9", "indexes"),
        ("ALTER TABLE tweets DROP CONSTRAINT tweets_pkey; CREATE UNIQUE INDEX ON tweets (tweet_id, user_id)", "keys"),
        ("ALTER TABLE tweets DROP CONSTRAINT tweets_pkey; CREATE INDEX ON tweets (tweet_id)", "keys"),
    ],
)
async def test_an_index_that_only_looks_like_the_one_needed_does_not_count(stack: Stack, statement: str, check: str) -> None:
    await stack.connection.execute(statement)
    assert set(not_ok(await stack.examine())) == {("PostgreSQL", check)}


async def test_tables_of_which_there_is_none_are_told_once(stack: Stack) -> None:
    await stack.connection.execute("DROP TABLE users, tweets, follows, likes")
    found = await stack.examine()
    checks = ("permission", "columns", "keys", "indexes", "replica identity")
    assert not_ok(found) == {("PostgreSQL", "tables"): "wrong"} | {("PostgreSQL", check): "skipped" for check in checks}
    assert {found["PostgreSQL", check].found for check in checks} == {"there is no table"}


async def test_a_table_that_our_user_may_not_read_is_wrong(stack: Stack) -> None:
    user = stack.settings.consumer_group
    await stack.connection.execute(f"CREATE USER {user}; GRANT SELECT ON users, follows, likes TO {user}")
    found = await stack.examine(postgres_url=stack.settings.postgres_url.replace("postgres@", f"{user}@"))
    assert not_ok(found) == {("PostgreSQL", "permission"): "wrong"}
    assert found["PostgreSQL", "permission"].mend == f'As the tables\' owner: `GRANT SELECT ON "tweets" TO {user}`.'


async def test_a_database_that_is_not_there_is_wrong_and_named(stack: Stack) -> None:
    url = stack.settings.postgres_url + "nowhere"
    found = await stack.examine(postgres_url=url)
    assert found["PostgreSQL", "answers"].verdict == "wrong"
    assert f'database "{stack.settings.consumer_group}nowhere" does not exist' in found["PostgreSQL", "answers"].found
    assert {server for server, _ in not_ok(found)} == {"PostgreSQL"}


@pytest.mark.parametrize(
    "address", ["postgresql://u:se/cret@{host}", "postgresql://u:secret@{host}?password=secret", "postgresql://u:s:ecret@{host}"]
)
async def test_no_part_of_a_password_is_told(stack: Stack, address: str) -> None:
    host = stack.settings.postgres_url.rpartition("@")[2].rpartition("/")[0]
    found = await stack.examine(postgres_url=address.format(host=f"{host}/nowhere"))
    assert found["PostgreSQL", "answers"].verdict == "wrong"
    assert "cret" not in str(found)
