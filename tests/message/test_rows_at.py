"""Rows and counts read from SQL at one moment equal the folded log below the offsets that are kept beside them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projectors.fold import Effects, fold
from projectors.rows_at import Counted, NoOffsets, rows_at, some_keys
from schema import sql
from schema.definition import Definition, read_definition
from schema.fields import Row
from schema.positions import Partition
from schema.user import Follows, Users, UserView
from tests.message.conftest import OpenTables
from tests.message.histories import KEYS, History, histories, write_tables
from tests.message.shop import Customers, CustomerView, Orders

pytestmark = pytest.mark.servers

MOMENT = datetime(2026, 1, 2, tzinfo=UTC)
USERS, CUSTOMERS = read_definition(UserView), read_definition(CustomerView)
LAW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def counted(history: History) -> list[Counted]:
    """Every key that something is known of, folded from the whole log."""
    effects = Effects()
    for partition, log in history.logs.items():
        effects.add(fold(history.definition, history.definition.topics[partition.topic], list(enumerate(log))))
    names = [f.name for f in history.definition.aggregates]
    return [
        Counted(key, plain(effects.profiles.get(key)), {name: effects.counts.get(name, {}).get(key, 0) for name in names})
        for key in sorted(KEYS[history.definition.key_type])
    ]


async def write(pool: asyncpg.Pool, definition: Definition, tables: Mapping[type[Row], Mapping[Any, Row]], offset: int = 1) -> None:
    """The tables as a sink leaves them: with an offset of every topic."""
    await write_tables(pool, definition, tables)
    await pool.execute(f"DELETE FROM {sql.POSITIONS}")
    await pool.executemany(f"INSERT INTO {sql.POSITIONS} VALUES ($1, 0, $2)", [(topic, offset) for topic in definition.topics])


def plain(row: Row | None) -> Row | None:
    """As the definition's own row: what was decoded is of a stricter type, and equals none of another."""
    return None if row is None else next(table for table in (Users, Customers) if isinstance(row, table))(*msgspec.structs.astuple(row))


def known(rows: Sequence[Counted]) -> list[Counted]:
    return [one for one in rows if one.row is not None or any(one.amounts.values())]


async def holds(history: History, pool: asyncpg.Pool, size: int) -> None:
    await write(pool, history.definition, history.tables)
    expected = counted(history)
    async with rows_at(pool, history.definition) as rows:
        found = [one for page in [page async for page in rows.pages(size)] for one in page]
        assert known(found) == known(expected)
        assert [one.key for one in found] == sorted({one.key for one in found})
        assert await rows.of(KEYS[history.definition.key_type]) == expected
        assert await rows.of([expected[0].key]) == expected[:1]


@LAW
@given(history=histories(USERS), size=st.integers(1, 4))
async def test_pages_of_any_size_hold_every_user_that_has_a_row_or_is_counted_for(users: asyncpg.Pool, history: History, size: int) -> None:
    await holds(history, users, size)


@LAW
@given(history=histories(CUSTOMERS), size=st.integers(1, 4))
async def test_pages_hold_sums_conditions_and_keys_of_text_in_the_order_of_their_letters(
    customers: asyncpg.Pool, history: History, size: int
) -> None:
    await holds(history, customers, size)


def follows(count: int) -> dict[type[Row], dict[Any, Row]]:
    return {Users: {}, Follows: {key: Follows(key, 1, 2, MOMENT) for key in range(count)}}


async def test_what_is_written_meanwhile_is_seen_neither_in_the_rows_nor_in_the_offsets(users: asyncpg.Pool) -> None:
    await write(users, USERS, follows(3), offset=3)
    async with rows_at(users, USERS) as rows:
        await write(users, USERS, follows(5), offset=5)
        assert rows.offsets == {Partition(topic, 0): 3 for topic in USERS.topics}
        assert [(one.key, one.row, one.amounts["follower_count"]) for page in [p async for p in rows.pages()] for one in page] == [
            (1, None, 0),
            (2, None, 3),
        ]
    async with rows_at(users, USERS) as rows:
        assert rows.offsets[Partition("follows", 0)] == 5
        (one,) = await rows.of([2])
        assert one.amounts["follower_count"] == 5


async def test_keys_of_text_come_in_the_order_of_their_letters_whatever_the_order_of_the_database(open_tables: OpenTables) -> None:
    pool = await open_tables(CUSTOMERS)
    for table, column in (("customers", "customer_id"), ("placed orders", "customer_id"), ("placed orders", "gift_for")):
        await pool.execute(f'ALTER TABLE "{table}" ALTER "{column}" TYPE text COLLATE "und-x-icu"')
    people = {key: Customers(key, key, None, None, None, 0.0, True, None, MOMENT, None) for key in ("a", "B", "c", "D")}
    orders = {number: Orders(number, key, "a", "paid", None, True, None, 5, None, MOMENT) for number, key in enumerate("aaBDDe")}
    await write(pool, CUSTOMERS, {Customers: people, Orders: orders})
    async with rows_at(pool, CUSTOMERS) as rows:
        found = [one for page in [page async for page in rows.pages(1)] for one in page]
    assert [(one.key, one.row is not None, one.amounts["paid_cents"]) for one in found] == [
        ("B", True, 5),
        ("D", True, 10),
        ("a", True, 10),
        ("c", True, 0),
        ("e", False, 5),
    ]


async def test_a_database_without_offsets_is_refused_with_what_to_do(open_tables: OpenTables) -> None:
    pool = await open_tables(USERS)
    await write(pool, USERS, follows(1))
    with pytest.raises(NoOffsets, match=r"no offset of topic other.follows: is VIEWGATE_TOPIC_PREFIX"):
        async with rows_at(pool, read_definition(UserView, "other.")):
            pass
    await pool.execute(f"DROP TABLE {sql.POSITIONS}")
    with pytest.raises(NoOffsets, match=r"keeps no offsets beside its rows.*rebuild --from beginning"):
        async with rows_at(pool, USERS):
            pass


async def test_some_keys_are_keys_that_are_there_and_no_more_than_asked_for(users: asyncpg.Pool) -> None:
    people = {key: Users(key, f"u{key}", None, None, None, None, MOMENT, None, None) for key in range(500)}
    await write_tables(users, USERS, {Users: people})
    some = await some_keys(users, USERS, 50)
    assert 20 <= len(some) <= 50
    assert len(set(some)) == len(some)
    assert {int(key) for key in some} <= people.keys()
    assert sorted(await some_keys(users, USERS, 1000), key=int) == [str(key) for key in people]
