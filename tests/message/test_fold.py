"""The law: folding any history of changes, in any batches and with any redelivery, equals counting with SQL."""

from collections.abc import Sequence

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loaders.sql import SqlLoader
from projectors.fold import Effects, fold, fold_rest
from schema.definition import read_definition
from schema.user import UserView
from tests.message.histories import History, histories, reads, write_tables
from tests.message.model import folded
from tests.message.shop import CustomerView
from tests.message.turns import TURNS, Turn

pytestmark = pytest.mark.servers

USERS, CUSTOMERS = read_definition(UserView), read_definition(CustomerView)
LAW = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


async def holds(history: History, turns: Sequence[Turn], pool: asyncpg.Pool) -> None:
    model = folded(history, turns)
    asked = reads(history)
    await write_tables(pool, history.definition, history.tables)
    in_sql = (await SqlLoader(pool, history.definition).load(asked)).rows
    in_view = [model.row(read.value, read.fields) if read.by == "id" else model.lookup(read.by, read.value, read.fields) for read in asked]
    for read, mine, theirs in zip(asked, in_view, in_sql, strict=True):
        assert mine == theirs, read
    assert model.bearers() == _bearers(history), "a value is still claimed by someone who gave it up"


def _bearers(history: History) -> dict[tuple[str, str], set[str]]:
    bearers: dict[tuple[str, str], set[str]] = {}
    for key, row in history.tables.get(history.definition.base, {}).items():
        for lookup in history.definition.lookups:
            bearers.setdefault((lookup.name, getattr(row, lookup.name)), set()).add(str(key))
    return bearers


@LAW
@given(history=histories(USERS), turns=TURNS)
async def test_folding_any_history_of_users_equals_counting_with_sql(users: asyncpg.Pool, history: History, turns: list[Turn]) -> None:
    await holds(history, turns, users)


@LAW
@given(history=histories(CUSTOMERS), turns=TURNS)
async def test_folding_conditions_sums_and_nulls_equals_counting_with_sql(
    customers: asyncpg.Pool, history: History, turns: list[Turn]
) -> None:
    await holds(history, turns, customers)


@settings(max_examples=100, deadline=None)
@given(history=histories(USERS), changes=st.integers(1, 9))
def test_batches_added_up_are_one_batch(history: History, changes: int) -> None:
    for partition, log in history.logs.items():
        row, numbered = USERS.topics[partition.topic], list(enumerate(log))
        added = Effects()
        for start in range(0, len(log), changes):
            added.add(fold(USERS, row, numbered[start : start + changes]))
        whole = fold(USERS, row, numbered)
        assert (added.counts, added.profiles, added.claims) == (whole.counts, whole.profiles, whole.claims)


@settings(max_examples=100, deadline=None)
@given(history=histories(CUSTOMERS))
def test_a_history_and_its_undoing_change_no_count(history: History) -> None:
    for partition, log in history.logs.items():
        undone = [type(change)(change.op, change.after, change.before, change.ts_ms) for change in reversed(log)]
        effects = fold(CUSTOMERS, CUSTOMERS.topics[partition.topic], list(enumerate([*log, *undone])))
        assert not any(delta for deltas in effects.counts.values() for delta in deltas.values())


@settings(max_examples=100, deadline=None)
@given(history=histories(USERS))
def test_what_is_covered_is_dropped_and_counted(history: History) -> None:
    for partition, log in history.logs.items():
        effects, dropped = fold_rest(USERS, USERS.topics[partition.topic], list(enumerate(log)), lambda text, offset: True)
        assert effects.size == 0
        assert dropped == len(log)
