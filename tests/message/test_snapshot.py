"""Where the last snapshot in the topics begins: found or refused, and never wrong where it is found."""

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from demo.servers.kafka import create_topics
from demo.servers.server import Server
from projectors.fold import Effects, fold
from projectors.log import Record
from projectors.records.envelope import decoder
from projectors.snapshot import KafkaReader, SnapshotUnsound, last_snapshot
from schema.definition import Definition, read_definition
from schema.fields import Column, Count, Row
from schema.positions import Partition

HISTORIES = 600
PARTITIONS = 2


class People(Row, topic="people", key="person_id"):
    person_id: int
    name: str


class Follows(Row, topic="follows", key="follow_id"):
    follow_id: int
    followee_id: int


@dataclass
class PersonView:
    id: str
    name: Annotated[str, Column(People)]
    follower_count: Annotated[int, Count(Follows, by="followee_id")]


DEFINITION = read_definition(PersonView)
Written = tuple[int, str, Row | None, Row | None]


@dataclass(slots=True)
class Lying:
    """A record as it lies in a topic."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(slots=True)
class Topics:
    """A Reader of what a connector sent. cut: how many of a partition's first records are gone."""

    definition: Definition = DEFINITION
    records_: dict[Partition, list[Lying]] = field(default_factory=dict)
    cut: dict[Partition, int] = field(default_factory=dict)
    now_ms: int = 1_000

    def __post_init__(self) -> None:
        self.records_ = {Partition(topic, number): [] for topic in self.definition.topics for number in range(PARTITIONS)}

    def send(self, op: str, before: Row | None, after: Row | None, lsn: int | None, commit: int | None, **source: Any) -> Lying:
        row = after if after is not None else before
        assert row is not None
        key = getattr(row, type(row).source.key)
        pair = [None if commit is None else str(commit), str(lsn)]
        source = {"snapshot": "last" if op == "r" else "false"} | source
        told = {"lsn": lsn, "sequence": msgspec.json.encode(pair).decode(), **source}
        value = msgspec.json.encode({"op": op, "before": before, "after": after, "source": told if lsn is not None else {}, "ts_ms": 5})
        return self.append(Partition(self.definition.topic(type(row)), key % PARTITIONS), value)

    def append(self, partition: Partition, value: bytes | None) -> Lying:
        lying = self.records_[partition]
        lying.append(Lying(lying[-1].offset + 1 if lying else 0, self.now_ms, b"", value))
        return lying[-1]

    async def bounds(self) -> Mapping[Partition, tuple[int, int]]:
        ends = {partition: lying[-1].offset + 1 if lying else 0 for partition, lying in self.records_.items()}
        return {partition: (min(self.cut.get(partition, 0), end), end) for partition, end in ends.items()}

    async def records(self, partition: Partition, start: int, end: int) -> AsyncIterator[Record]:
        for lying in self.records_[partition]:
            if max(start, self.cut.get(partition, 0)) <= lying.offset < end:
                yield lying

    def folded(self, start: Mapping[Partition, int]) -> tuple[dict[Any, str], dict[Any, int]]:
        """The people and the counts that a projector has which reads from there."""
        effects = Effects()
        for partition, lying in self.records_.items():
            row = self.definition.topics[partition.topic]
            assert start[partition] >= self.cut.get(partition, 0)
            changes = [(one.offset, decoder(row)(one.value)) for one in lying if one.offset >= start[partition] and one.value]
            effects.add(fold(self.definition, row, changes))
        people = {key: str(attrgetter("name")(row)) for key, row in effects.profiles.items() if row is not None}
        return people, {key: count for key, count in effects.counts.get("follower_count", {}).items() if count}


class Database:
    """Rows, and transactions in the order of their commits; two of them may be open at once, so that LSNs and commits cross."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, self.lsn = rng, 100
        self.rows: dict[tuple[type[Row], int], Row] = {}
        self.commits: list[tuple[int, list[Written]]] = []
        self._waiting: list[tuple[Row | None, type[Row], int, int]] = []

    def write(self) -> None:
        """A row gets its next state, in a transaction that commits at once or with the next one."""
        rng, table = self._rng, self._rng.choice((People, Follows))
        key = rng.randrange(6)
        self.lsn += rng.randint(1, 3)
        row: Row = People(key, f"name{rng.randrange(9)}") if table is People else Follows(key, rng.randrange(4))
        if not any((table, key) == (other, number) for _, other, number, _ in self._waiting):
            self._waiting.append((row if rng.random() < 0.7 else None, table, key, self.lsn))
        if rng.random() < 0.8:
            self.commit()

    def commit(self) -> None:
        """The youngest first: the elder one's LSN is lower, its commit later."""
        while self._waiting:
            after, table, key, lsn = self._waiting.pop()
            before = self.rows.pop((table, key), None)
            if after is not None:
                self.rows[table, key] = after
            self.lsn += 1
            if before is not None or after is not None:
                op = "c" if before is None else "d" if after is None else "u"
                self.commits.append((self.lsn, [(lsn, op, before, after)]))
            if self._rng.random() < 0.3:
                return


def marked(rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """The rows of a table with what a connector says of each in `source.snapshot`."""
    marks = ["first_in_data_collection", *(["true"] * (len(rows) - 2)), "last_in_data_collection"]
    return list(zip(rows, marks[-len(rows) :], strict=True)) if rows else []


class History:
    """A connector that streams, ends, takes a snapshot, and streams on: from the right commit, or from one that the snapshot has."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.database, self.topics = Database(self._rng), Topics()
        self._streamed = 0
        self._last_commit: int | None = None

    def run(self) -> None:
        rng = self._rng
        for _ in range(rng.randint(1, 2)):
            self._write()
            self._stream()
            self._write()
            self._snapshot(rng.choice(("fresh", "fresh", "fresh", "running", "catch-up", "one table")))
        self._write()
        self.database.commit()
        self._stream()
        if rng.random() < 0.2:
            partition = rng.choice(list(self.topics.records_))
            self.topics.cut[partition] = rng.randint(0, min(8, len(self.topics.records_[partition])))

    def _write(self) -> None:
        for _ in range(self._rng.randint(0, 12)):
            self.database.write()

    def _stream(self) -> None:
        for commit, changes in self.database.commits[self._streamed :]:
            for lsn, op, before, after in changes:
                self.topics.send(op, before, after, lsn, self._last_commit)
                self.topics.now_ms += self._rng.randint(0, 2)
            self._last_commit = commit
        self._streamed = len(self.database.commits)

    def _snapshot(self, kind: str) -> None:
        flushed = self._last_commit if kind == "catch-up" else None
        lsn = flushed or self.database.lsn + 1
        self.topics.now_ms += self._rng.randint(0, 2)
        tables = [[row for (table, _), row in self.database.rows.items() if table is wanted] for wanted in (People, Follows)]
        rows = [(row, mark) for table in tables[: 1 if kind == "one table" else 2] for row, mark in marked(table)]
        if self._rng.random() < 0.1:
            # it dies on the way, and begins again
            rows = rows[: self._rng.randint(0, len(rows))] + rows
        for row, mark in rows:
            self.topics.send("r", None, row, lsn, flushed, snapshot=mark)
        self.topics.now_ms += self._rng.randint(0, 2)
        if kind == "fresh":
            self._streamed, self._last_commit = len(self.database.commits), None

    @property
    def truth(self) -> tuple[dict[Any, str], dict[Any, int]]:
        people, counts = dict[Any, str](), dict[Any, int]()
        for (_, key), row in self.database.rows.items():
            if isinstance(row, Follows):
                counts[row.followee_id] = counts.get(row.followee_id, 0) + 1
            elif isinstance(row, People):
                people[key] = row.name
        return people, counts


async def test_what_is_folded_from_the_last_snapshot_are_the_true_rows_or_it_is_refused() -> None:
    found, refused = 0, 0
    for seed in range(HISTORIES):
        history = History(seed)
        history.run()
        try:
            snapshot = await last_snapshot(history.topics)
        except SnapshotUnsound:
            refused += 1
            continue
        found += 1
        assert history.topics.folded(snapshot.start) == history.truth, f"seed {seed}"
    # a run without many of either has not looked where the errors would be
    assert found > HISTORIES / 10
    assert refused > HISTORIES / 10


@pytest.fixture
def topics() -> Topics:
    """An older stream with a delete, a snapshot at LSN 50 of one person and one follow, and a change after it."""
    made = Topics()
    made.send("c", None, People(1, "old"), 10, None)
    made.send("c", None, Follows(1, 2), 11, 10)
    made.send("c", None, Follows(2, 1), 12, 10)
    made.send("d", Follows(1, 2), None, 20, 11)
    made.now_ms += 5
    made.send("r", None, Follows(2, 1), 50, None)
    made.send("r", None, People(1, "new"), 50, None)
    made.now_ms += 5
    made.send("c", None, Follows(1, 1), 60, None)
    return made


async def refusal(topics: Topics) -> str:
    with pytest.raises(SnapshotUnsound) as refused:
        await last_snapshot(topics)
    assert str(refused.value).endswith("or from SQL, `viewgate rebuild --from sql`.")
    return str(refused.value)


async def test_what_an_older_stream_left_is_left_out_also_where_the_snapshot_has_no_row(topics: Topics) -> None:
    snapshot = await last_snapshot(topics)
    assert snapshot.lsn == 50
    assert snapshot.start == {("people", 0): 0, ("people", 1): 1, ("follows", 0): 1, ("follows", 1): 2}
    assert topics.folded(snapshot.start) == ({1: "new"}, {1: 2})


async def test_a_snapshot_of_a_connector_that_had_streamed_is_refused(topics: Topics) -> None:
    for op, row, lsn in (("r", Follows(2, 1), 61), ("r", People(1, "new"), 61), ("c", Follows(3, 1), 70)):
        topics.send(op, None, row, lsn, 60)
    assert "had streamed before" in await refusal(topics)


async def test_a_change_that_is_in_both_is_refused(topics: Topics) -> None:
    topics.send("u", Follows(2, 1), Follows(2, 3), 49, 40)
    assert "is in both" in await refusal(topics)


@pytest.mark.parametrize("mark", ["last_in_data_collection", "first", "true"])
async def test_a_snapshot_that_was_begun_twice_at_one_lsn_is_refused(mark: str) -> None:
    topics = Topics()
    topics.send("r", None, People(1, "new"), 50, None)
    for _ in range(2):
        topics.send("r", None, Follows(2, 1), 50, None, snapshot=mark)
    topics.send("c", None, Follows(1, 1), 60, None)
    assert "cannot be told that each row is there once" in await refusal(topics)


async def test_a_snapshot_that_nothing_has_followed_yet_is_refused() -> None:
    topics = Topics()
    topics.send("r", None, Follows(2, 1), 50, None)
    topics.send("r", None, People(1, "new"), 50, None)
    assert "no change has come after" in await refusal(topics)


async def test_a_topic_without_a_snapshot_is_refused_by_its_name() -> None:
    topics = Topics()
    topics.send("r", None, People(1, "new"), 50, None)
    topics.send("c", None, Follows(1, 1), 60, None)
    assert "there is no snapshot in follows" in await refusal(topics)


async def test_tables_of_two_snapshots_are_refused(topics: Topics) -> None:
    topics.send("r", None, Follows(2, 1), 80, None)
    assert "at different times: the last snapshot's LSN is of people 50, follows 80" in await refusal(topics)


async def test_a_truncate_after_the_snapshot_is_refused(topics: Topics) -> None:
    value = {"op": "t", "before": None, "after": None, "source": {"lsn": 70, "sequence": '["60","70"]'}}
    topics.append(Partition("follows", 0), msgspec.json.encode(value))
    assert "truncated after the snapshot" in await refusal(topics)


@pytest.mark.parametrize("partition", [Partition("follows", 0), Partition("follows", 1)])
async def test_a_change_that_does_not_tell_its_lsn_is_refused(topics: Topics, partition: Partition) -> None:
    topics.send("c", None, Follows(4 + partition.number, 1), None, None)
    assert "does not tell its LSN" in await refusal(topics)


async def test_a_row_that_does_not_tell_its_lsn_is_refused(topics: Topics) -> None:
    topics.send("r", None, Follows(6, 1), None, None)
    assert "does not tell the LSN of its snapshot" in await refusal(topics)


async def test_an_lsn_that_is_told_twice_and_differently_is_none(topics: Topics) -> None:
    topics.send("c", None, Follows(4, 1), 70, 60, sequence='["60","71"]')
    assert "does not tell its LSN" in await refusal(topics)


async def test_an_incremental_snapshot_is_refused() -> None:
    topics = Topics()
    topics.send("r", None, Follows(2, 1), 50, None, snapshot="incremental")
    topics.send("r", None, People(1, "new"), 50, None, snapshot="incremental")
    topics.send("c", None, Follows(1, 1), 60, None)
    assert "an incremental one" in await refusal(topics)


async def test_rows_of_one_snapshot_with_changes_between_them_are_refused(topics: Topics) -> None:
    topics.send("c", None, People(3, "between"), 60, None)
    topics.send("r", None, People(5, "late"), 50, None)
    assert "have changes between them" in await refusal(topics)


@pytest.mark.parametrize("cut", [1, 2])
async def test_a_snapshot_whose_first_rows_retention_may_have_taken_is_refused(topics: Topics, cut: int) -> None:
    topics.cut[Partition("people", 1)] = cut
    assert "rows of it may be gone" in await refusal(topics) if cut == 1 else await refusal(topics)


async def test_what_retention_took_before_the_snapshot_is_not_missed(topics: Topics) -> None:
    topics.cut[Partition("follows", 1)] = 1
    assert topics.folded((await last_snapshot(topics)).start) == ({1: "new"}, {1: 2})


async def test_what_no_projector_counts_does_not_matter(topics: Topics) -> None:
    for value in (None, b"no JSON", b'{"op": "m"}', b'{"source": {"lsn": 1}}'):
        for partition in topics.records_:
            topics.append(partition, value)
    assert (await last_snapshot(topics)).lsn == 50


async def test_a_snapshot_is_found_in_kafka_past_transactions(apache_kafka_at: Server, topics: Topics) -> None:
    prefix = "snapshot-in-kafka."
    await create_topics(apache_kafka_at.address, {prefix + topic: PARTITIONS for topic in DEFINITION.topics})
    at = {Partition(prefix + topic, number): lying for (topic, number), lying in topics.records_.items()}
    producer = AIOKafkaProducer(bootstrap_servers=apache_kafka_at.address, transactional_id=prefix)
    await producer.start()
    for (topic, number), lying in at.items():
        for one in lying:
            # a transaction each: its end takes an offset too
            async with producer.transaction():
                await producer.send_and_wait(topic, one.value, one.key, number, one.timestamp)
    await producer.stop()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=apache_kafka_at.address, enable_auto_commit=False, auto_offset_reset="none", isolation_level="read_committed"
    )
    await consumer.start()
    try:
        snapshot = await last_snapshot(KafkaReader(consumer, [prefix + topic for topic in DEFINITION.topics]))
    finally:
        await consumer.stop()
    assert snapshot.lsn == 50
    # (people, 0) is empty; in the others every record is followed by the end of its transaction
    assert snapshot.start == {(prefix + "people", 0): 0, (prefix + "people", 1): 2, (prefix + "follows", 0): 2, (prefix + "follows", 1): 4}
