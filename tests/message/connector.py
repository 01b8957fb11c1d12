"""A connector that streams, takes snapshots and streams on, at random: what it leaves in the topics, and the rows that are true."""

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from projectors.fold import Effects, fold
from projectors.log import Record
from projectors.records.envelope import decoder
from projectors.topic_reader import Bounds
from schema.definition import Definition, read_definition
from schema.fields import Column, Count, Row
from schema.positions import Partition
from tests.faults.memory import Stored

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


@dataclass
class Topics:
    """A Reader of what a connector sent. cut: how many of a partition's first records are gone."""

    definition: Definition = DEFINITION
    records_: dict[Partition, list[Stored]] = field(default_factory=dict)
    cut: dict[Partition, int] = field(default_factory=dict)
    now_ms: int = 1_000

    def __post_init__(self) -> None:
        self.records_ = {Partition(topic, number): [] for topic in self.definition.topics for number in range(PARTITIONS)}

    def send(self, op: str, before: Row | None, after: Row | None, lsn: int | None, commit: int | None, **source: Any) -> Stored:
        row = after if after is not None else before
        assert row is not None
        key = getattr(row, type(row).source.key)
        pair = [None if commit is None else str(commit), str(lsn)]
        source = {"snapshot": "last" if op == "r" else "false"} | source
        told = {"lsn": lsn, "sequence": msgspec.json.encode(pair).decode(), **source}
        value = msgspec.json.encode({"op": op, "before": before, "after": after, "source": told if lsn is not None else {}, "ts_ms": 5})
        return self.append(Partition(self.definition.topic(type(row)), key % PARTITIONS), value, b"%d" % key)

    def append(self, partition: Partition, value: bytes | None, key: bytes | None = None) -> Stored:
        lying = self.records_[partition]
        lying.append(Stored(lying[-1].offset + 1 if lying else 0, self.now_ms, key, value))
        return lying[-1]

    async def bounds(self) -> Bounds:
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
    """A connector that streams, ends, takes a snapshot, and streams on: from the right commit, or from one that the snapshot has.

    late: the slot was there, so the snapshot is taken a moment after its LSN was read, from which it streams on.
    """

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
            self._snapshot(rng.choice(("fresh", "fresh", "fresh", "late", "running", "catch-up", "one table")))
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
        if kind == "late":
            self._streamed, self._last_commit = len(self.database.commits), None
            self._write()
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
