"""Rows from SQL, and on them the changes that a connector captured: exact with every condition, and wrong without any one of them."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from projectors.apply import Header
from projectors.captured import CapturedRows, NotCaptured, last_transactions
from projectors.fold import Changes, Effects, fold, fold_rest
from projectors.log import Batch, Record
from projectors.reading import Reading, SourceChanged
from projectors.records import decoders
from projectors.records.transaction import Transaction, transaction
from projectors.repeats import Repeats
from projectors.replay import BaseAhead, Basis, Replay, ReplayImpossible
from projectors.rows_at import Counted
from schema.generation import Generation
from schema.layout import BUILDING, Layout
from schema.positions import Partition, Watermark
from schema.seen import Seen, widened
from tests.faults.memory import Stored, Topics
from tests.faults.mending import MemoryTail
from tests.message.connector import Topics as Reader
from tests.message.postgres_asked import BREAKS, Asked, ByLsnAlone, NotWidened
from tests.message.postgres_model import DEFINITION, KEYS, People, Postgres, Rows, Ties

RUNS, SHARDS = 300, 2
LAYOUT, DECODE = Layout(DEFINITION.name, "g1", SHARDS), decoders(DEFINITION)
RECORD = Generation("g1", "b", "d", SHARDS, {}, {}, {}, {}, {}, origin="sql")
# name or None, given, taken
People_ = Mapping[int, tuple[str | None, int, int]]
Offsets = Mapping[Partition, int]


@dataclass(frozen=True, slots=True)
class Base:
    """What was read from SQL, where the log goes on, what it has of that, and from where on it has all."""

    rows: Rows
    start: Offsets
    seen: Seen
    level: Offsets

    def counted(self) -> list[Counted]:
        shown = told(self.rows)
        people = {key: row for (table, key), row in self.rows.items() if table is People}
        return [Counted(key, people.get(key), {"given": given, "taken": taken}) for key, (_, given, taken) in shown.items()]


async def read(postgres: Postgres) -> Base:
    asked = Asked(postgres)
    source: CapturedRows = asked.captured
    async with source.open() as rows:
        assert rows.seen is not None
    return Base(asked.rows, rows.offsets, broken(postgres.broken, rows.seen), dict(await source.level(rows)))


def broken(by: str, seen: Seen) -> Seen:
    if by == "left out by the id alone":
        return seen._replace(lsn=2**62)
    return {"left out by the LSN alone": ByLsnAlone, "ids not widened": NotWidened}.get(by, Seen)(*seen)


def told(rows: Rows) -> dict[int, tuple[str | None, int, int]]:
    """Row by row."""
    names = {key: row.name for (_, key), row in rows.items() if isinstance(row, People)}
    ties = [row for row in rows.values() if isinstance(row, Ties)]
    given, taken = Counter(tie.giver for tie in ties), Counter(tie.taker for tie in ties)
    return {key: (names.get(key), given[key], taken[key]) for key in range(KEYS)}


def shown(effects: Effects) -> dict[int, tuple[str | None, int, int]]:
    names = {key: row.name for key, row in effects.profiles.items() if isinstance(row, People)}
    counts = [effects.counts.get(name, {}) for name in ("given", "taken")]
    return {key: (names.get(key), counts[0].get(key, 0), counts[1].get(key, 0)) for key in range(KEYS)}


def projected(bases: Sequence[Base], topics: Topics, ends: Offsets, dice: random.Random) -> People_:
    """What a projector makes of shards that were each begun with a base of their own, read up to these ends."""
    effects = Effects()
    for base, shard in zip(bases, range(SHARDS), strict=True):
        for one in base.counted():
            if LAYOUT.shard(str(one.key)) == shard:
                effects.add(Effects({name: {one.key: amount} for name, amount in one.amounts.items()}, {one.key: one.row}))
    for partition in topics.partitions:
        watermarks = [Watermark(base.start[partition], 0, "") for base in bases]
        reading = begun(partition, bases, watermarks)
        while reading.next < ends[partition]:
            batch = cut(topics, partition, reading.next, min(reading.next + dice.randint(1, 7), ends[partition]))
            changes = reading.fresh(batch, decoded(batch), RECORD)
            covered = reading.covered(LAYOUT.shard)
            rest = fold_rest(DEFINITION, reading.row, changes, covered)[0] if reading.mixed else fold(DEFINITION, reading.row, changes)
            effects.add(rest)
            mark = reading.mark(batch.end, 0)
            watermarks = [watermark.advanced(*mark) for watermark in watermarks]
            reading.next = batch.end
            if dice.random() < 0.2:
                # it crashed
                reading = begun(partition, bases, watermarks)
    return shown(effects)


def begun(partition: Partition, bases: Sequence[Base], watermarks: Sequence[Watermark]) -> Reading:
    headers = {shard: Header(BUILDING, "b", {str(partition): watermarks[shard]}, bases[shard].seen) for shard in range(SHARDS)}
    return Reading.begin(partition, DEFINITION.topics[partition.topic], headers)


async def replayed(base: Base, topics: Topics, ends: Offsets) -> People_:
    """What an audit or a repair makes of one base."""
    tail = MemoryTail(topics)
    replay = Replay(DEFINITION, LAYOUT, tail, tail.clock, lambda _: True, lambda _: None)
    await replay.begin(Basis(base.start, base.counted(), base.seen, base.level), [ends] * SHARDS)
    effects = Effects()
    for shard in range(SHARDS):
        effects.add(replay.at(shard, ends))
    return shown(effects)


def logged(topics: Topics, ends: Offsets) -> People_:
    """The whole log up to there, from when the database was empty."""
    effects = Effects()
    for partition in topics.partitions:
        changes = decoded(cut(topics, partition, 0, ends[partition]))
        row = DEFINITION.topics[partition.topic]
        effects.add(fold(DEFINITION, row, Repeats().fresh(changes) if row.source.position == "debezium" else changes))
    return shown(effects)


def cut(topics: Topics, partition: Partition, start: int, end: int) -> Batch:
    records: list[Record] = [one for one in topics.records[partition] if start <= one.offset < end]
    return Batch(partition, start, end, records)


def decoded(batch: Batch) -> Changes:
    found = [(record.offset, DECODE[batch.partition.topic](record)) for record in batch.records]
    return [(offset, change) for offset, change in found if change is not None]


async def is_exact(seed: int, by: str = "") -> bool:
    """Whether two bases of one database, a shard for each, are right when they are level, and when all is over."""
    postgres, dice = Postgres(seed, by), random.Random(seed)
    for _ in range(dice.randint(0, 60)):
        postgres.step()
    bases = [await read(postgres) for _ in range(SHARDS)]
    level = {partition: max(base.level[partition] for base in bases) for partition in postgres.topics.partitions}
    at_level = logged(postgres.topics, level)
    postgres.may_wrap = True
    right = projected(bases, postgres.topics, level, dice) == at_level == await replayed(bases[0], postgres.topics, level)
    postgres.finish()
    ends, truth = dict(postgres.topics.ends), told(postgres.rows)
    assert logged(postgres.topics, ends) == truth, "the connector of the model is wrong"
    for base in bases:
        right &= await replayed(base, postgres.topics, ends) == truth
    return right and projected(bases, postgres.topics, ends, dice) == truth


async def test_whatever_runs_beside_rows_and_changes_are_exact() -> None:
    assert [seed for seed in range(RUNS) if not await is_exact(seed)] == []


@pytest.mark.parametrize("by", BREAKS)
async def test_without_any_one_condition_some_runs_are_wrong(by: str) -> None:
    for seed in range(RUNS):
        if not await is_exact(seed, by):
            return
    pytest.fail(f"{RUNS} runs were exact without: {by}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"op":"c","source":{"txId":7,"sequence":"[\\"40\\",\\"52\\"]","db":"shop"}}', Transaction(7, 40, "shop")),
        (b'{"op":"c","source":{"txId":4294967295,"sequence":"[null,\\"52\\"]"}}', Transaction(2**32 - 1, 0)),
        (b'{"schema":{},"payload":{"op":"c","source":{"txId":7,"sequence":"[\\"40\\",\\"52\\"]"}}}', Transaction(7, 40)),
        (b'{"op":"c","source":{"sequence":"[\\"40\\",\\"52\\"]"}}', None),
        (b'{"op":"c","source":{"txId":7}}', None),
        (b'{"op":"c","source":{"txId":7,"sequence":"40"}}', None),
        (b'{"op":"c"}', None),
        (b"no JSON", None),
        (None, None),
    ],
)
def test_a_change_tells_its_transaction_as_debezium_writes_it(value: bytes | None, expected: Transaction | None) -> None:
    assert transaction(Stored(0, 0, b"1", value)) == expected


def test_what_a_snapshot_has_seen_is_what_had_ended_below_its_xmax() -> None:
    seen = Seen.of(500, "100:110:100,105")
    assert [number for number in range(98, 113) if seen.has(0, number)] == [98, 99, 101, 102, 103, 104, 106, 107, 108, 109]
    assert not seen.has(500, 98)
    assert Seen.decode(seen.encode()) == seen
    assert Seen.decode(Seen.of(1, "7:7:").encode()) == Seen(1, 7, frozenset())


@pytest.mark.parametrize("xmax", [5, 2**31, 2**32 - 3, 2**32, 2**32 + 3, 7 * 2**32 + 2**31])
def test_an_id_of_32_bits_is_the_nearest_with_them(xmax: int) -> None:
    for away in (-(2**31), -5, -1, 0, 1, 5, 2**31 - 1):
        assert widened((xmax + away) % 2**32, xmax) == xmax + away


async def test_a_change_that_tells_no_transaction_stops_what_needs_it() -> None:
    value = b'{"op":"c","after":{"person_id":1,"name":"a"},"ts_ms":1}'
    partition, topics = Partition("people", 0), Topics(DEFINITION, 1)
    topics.append("people", b"1", value)
    base = Base({}, dict.fromkeys(topics.partitions, 0), Seen(100, 10, frozenset()), {})
    batch = cut(topics, partition, 0, 1)
    reading = begun(partition, [base] * SHARDS, [Watermark(0, 0, "")] * SHARDS)
    with pytest.raises(SourceChanged, match=r"people:0:0 tells no source\.txId and source\.sequence.*Run `viewgate rebuild`"):
        reading.fresh(batch, decoded(batch), RECORD)
    with pytest.raises(ReplayImpossible, match="people:0:0 does not tell which transaction wrote it"):
        await replayed(base, topics, topics.ends)


async def test_a_base_is_no_base_for_shards_that_have_not_all_of_it_yet() -> None:
    topics = Topics(DEFINITION, 1)
    base = Base({}, dict.fromkeys(topics.partitions, 0), Seen(100, 10, frozenset()), dict.fromkeys(topics.partitions, 1))
    with pytest.raises(BaseAhead):
        await replayed(base, topics, topics.ends)


async def test_the_last_records_of_each_topic_tell_which_transactions_write_it() -> None:
    topics = Reader()
    people, follows = topics.definition.topics
    row, number = topics.definition.topics[people], Partition(people, 1)
    topics.send("c", None, row(1, "a"), 10, 5, txId=3)
    topics.send("c", None, row(1, "a"), 20, 15, txId=4)
    topics.append(number, None)
    assert await last_transactions(topics, [people, follows]) == {people: Transaction(4, 15)}
    topics.append(number, b'{"op":"c"}')
    assert await last_transactions(topics, [people, follows]) == {people: None}


async def test_a_slot_that_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(Postgres(1))
    source = asked.captured
    async with source.open() as rows:
        pass
    for found in (None, {"lsn": 5, "active": False, "lost": True}):

        async def confirmed(*_: str, found: object = found) -> object:
            return found

        monkeypatch.setattr(Asked, "fetchrow", confirmed)
        with pytest.raises(NotCaptured, match="slot slot is gone, or PostgreSQL has removed WAL"):
            await source.level(rows)
