"""The law: folding any history of changes, in any batches and with any redelivery, equals counting with SQL."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loaders.sql import SqlLoader
from projectors.fold import Effects, fold, fold_rest
from schema import layout
from schema.definition import Definition, read_definition
from schema.loader import Read
from schema.positions import Partition
from schema.user import UserView
from tests.message.conftest import OpenTables
from tests.message.histories import KEYS, History, histories, write_tables
from tests.message.shop import CustomerView

pytestmark = pytest.mark.servers

SHARDS = 3
USERS, CUSTOMERS = read_definition(UserView), read_definition(CustomerView)
LAW = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@dataclass(frozen=True, slots=True)
class Turn:
    """One batch: which of the partitions that have more, how many changes, and what becomes of it.

    crash: only the shards of this bit mask have got it, and a new projector goes on `back` changes before what it must.
    checkpoint: idle shards are brought up to it.
    """

    partition: int
    changes: int
    crash: int | None
    back: int
    checkpoint: bool


TURNS = st.lists(
    st.builds(
        Turn, st.integers(0, 7), st.integers(1, 8), st.none() | st.none() | st.integers(0, 2**SHARDS - 1), st.integers(0, 4), st.booleans()
    ),
    max_size=15,
)


@dataclass(slots=True)
class Model:
    """The view as apply.lua keeps it, in dicts: the tests' own understanding of what effects mean."""

    definition: Definition
    rows: dict[str, dict[str, bytes]] = field(default_factory=dict)
    claims: dict[tuple[str, str], dict[bytes, bytes]] = field(default_factory=dict)
    shards: layout.Layout = field(default_factory=lambda: layout.Layout("Model", "g1", SHARDS))

    def apply(self, effects: Effects, mask: int) -> None:
        """What the effects say of the shards in the bit mask."""
        for name, deltas in effects.counts.items():
            for key, delta in deltas.items():
                if delta and self._is_in(str(key), mask):
                    row = self.rows.setdefault(str(key), {})
                    row[name] = b"%d" % (int(row.get(name, b"0")) + delta)
        for key, profile in effects.profiles.items():
            if self._is_in(str(key), mask):
                row = self.rows.setdefault(str(key), {})
                for column in self.definition.columns:
                    row.pop(column.name, None)
                    if profile is not None:
                        row[column.name] = layout.encode(getattr(profile, column.name))
                for aggregate in self.definition.aggregates if profile is not None else ():
                    row.setdefault(aggregate.name, b"0")
        for claim, when in effects.claims.items():
            if self._is_in(claim.value, mask):
                claimants = self.claims.setdefault((claim.field, claim.value), {})
                claimants.pop(str(claim.key).encode(), None)
                if when is not None:
                    claimants[str(claim.key).encode()] = b"%d:%d" % when

    def row(self, key: str, fields: Sequence[str]) -> list[bytes] | None:
        """A row that lacks its profile is none; one that lacks a count is a mistake."""
        row = self.rows.get(key, {})
        if self.definition.columns[0].name not in row:
            return None
        return [layout.encode(key) if name == "id" else row[name] for name in fields]

    def lookup(self, by: str, value: str, fields: Sequence[str]) -> list[bytes] | None:
        """The latest claimant that still bears the value."""
        for key in layout.claimed(self.claims.get((by, value), {})):
            if self.row(key, [by]) == [layout.encode(value)]:
                return self.row(key, fields)
        return None

    def _is_in(self, text: str, mask: int) -> bool:
        return bool(mask >> self.shards.shard(text) & 1)


class Reader:
    """One partition as a projector reads it: where it is, and what each shard has of it."""

    def __init__(self, partition: Partition, history: History) -> None:
        self._definition, self._log = history.definition, history.logs[partition]
        self._row = history.definition.topics[partition.topic]
        self._shard_of = layout.Layout("Model", "g1", SHARDS).shard
        self.next, self.watermarks = 0, [0] * SHARDS

    @property
    def is_done(self) -> bool:
        return self.next == len(self._log)

    def take(self, turn: Turn, model: Model) -> None:
        changes = list(enumerate(self._log))[self.next : self.next + turn.changes]
        end = self.next + len(changes)
        whole = 2**SHARDS - 1
        mask = whole if turn.crash is None else turn.crash
        model.apply(self._fold(changes), mask)
        touched = {shard for offset, change in changes for shard in self._touched(offset, change)}
        moved = range(SHARDS) if turn.checkpoint and mask == whole else touched
        self.watermarks = [max(w, end) if shard in moved and mask >> shard & 1 else w for shard, w in enumerate(self.watermarks)]
        self.next = end if turn.crash is None else max(0, min(self.watermarks) - turn.back)

    def _fold(self, changes: list[tuple[int, Any]]) -> Effects:
        if any(watermark > self.next for watermark in self.watermarks):
            return fold_rest(self._definition, self._row, changes, lambda text, offset: offset < self.watermarks[self._shard_of(text)])[0]
        return fold(self._definition, self._row, changes)

    def _touched(self, offset: int, change: Any) -> set[int]:
        effects = fold(self._definition, self._row, [(offset, change)])
        texts = [str(key) for keys in (*effects.counts.values(), effects.profiles) for key in keys]
        return {self._shard_of(text) for text in (*texts, *(claim.value for claim in effects.claims))}


def folded(history: History, turns: Sequence[Turn]) -> Model:
    """The history in these turns, and then the rest of it."""
    model = Model(history.definition)
    readers = [Reader(partition, history) for partition in sorted(history.logs)]
    for turn in turns:
        if waiting := [reader for reader in readers if not reader.is_done]:
            waiting[turn.partition % len(waiting)].take(turn, model)
    for reader in readers:
        while not reader.is_done:
            reader.take(Turn(0, 7, None, 0, False), model)
    return model


async def holds(history: History, turns: Sequence[Turn], pool: asyncpg.Pool) -> None:
    model = folded(history, turns)
    names = tuple(f.name for f in history.definition.fields)
    ids = [Read("id", str(key), ("id", *names)) for key in KEYS[history.definition.key_type]]
    lookups = [Read(f.name, value, ("id", *names)) for f in history.definition.lookups for value in history.names(f.name)]
    async with pool.acquire() as connection:
        await write_tables(connection, history.definition, history.tables)
    in_sql = (await SqlLoader(pool, history.definition).load([*ids, *lookups])).rows
    in_view = [model.row(read.value, read.fields) for read in ids] + [model.lookup(read.by, read.value, read.fields) for read in lookups]
    for read, mine, theirs in zip([*ids, *lookups], in_view, in_sql, strict=True):
        assert mine == theirs, read


@pytest.fixture(scope="session")
async def users(open_tables: OpenTables) -> asyncpg.Pool:
    return await open_tables(USERS)


@pytest.fixture(scope="session")
async def customers(open_tables: OpenTables) -> asyncpg.Pool:
    return await open_tables(CUSTOMERS)


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
