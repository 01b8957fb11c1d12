"""A PostgreSQL with transactions side by side, and a connector that captures them at least once, in memory: stepped at random.

A commit is two steps, as it is there: it is in the log of the database, where the connector finds it; later the transaction has ended,
and others see it. What is asked of it is in postgres_asked.py.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from schema.definition import read_definition
from schema.fields import Column, Count, Row
from tests.faults.memory import Topics

TRANSACTIONS, KEYS, PARTITIONS = 40, 5, 2
STEPS_BETWEEN = 5


class People(Row, topic="people", key="person_id"):
    person_id: int
    name: str


class Ties(Row, topic="ties", key="tie_id", position="debezium"):
    tie_id: int
    giver: int
    taker: int


@dataclass
class PersonView:
    id: str
    name: Annotated[str, Column(People)]
    given: Annotated[int, Count(Ties, by="giver")]
    taken: Annotated[int, Count(Ties, by="taker")]


DEFINITION = read_definition(PersonView)
Name = tuple[type[Row], int]
Rows = Mapping[Name, Row]


@dataclass(eq=False, slots=True)
class Transaction:
    id: int
    writes: list[tuple[int, Row | None, Row | None]] = field(default_factory=list)
    commit: int = 0


class Postgres:
    """broken: one of BREAKS, "" for none. rows: as whoever begins now sees them. topics: what the connector has published."""

    def __init__(self, seed: int, broken: str = "") -> None:
        self.rng, self.broken, self.topics = random.Random(seed), broken, Topics(DEFINITION, PARTITIONS)
        self.rows: dict[Name, Row] = {}
        self.may_wrap = False
        self._lsn, self._next_id = 100, 2**32 - self.rng.randrange(60)
        self._completed, self._left = self._next_id - 1, TRANSACTIONS
        self._running: list[Transaction] = []
        self._commits: list[Transaction] = []
        # of the changes in the order of commits: what is published next, what was published at most, what is acknowledged
        self._log: list[tuple[Transaction, int]] = []
        self._at = self._most = self._acknowledged = 0

    def step(self) -> None:
        """One thing happens somewhere."""
        happens = (
            self._begin,
            self._write,
            self._write,
            self._commit,
            self._end,
            self._publish,
            self._publish,
            self._publish,
            self._acknowledge,
        )
        self.rng.choice((*happens, *([self._die, self._wrap] if self.rng.random() < 0.2 else ())))()

    def steps(self) -> None:
        for _ in range(self.rng.randint(0, STEPS_BETWEEN)):
            self.step()

    def finish(self) -> None:
        """Until nothing is left to do."""
        while self._left or self._running:
            self.step()
        while self._at < len(self._log):
            self._publish()

    def _begin(self) -> None:
        if self._left:
            self._left -= 1
            self._running.append(Transaction(self._new_id()))

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _write(self) -> None:
        """Into a row that no transaction holds which has not ended."""
        open_ = [transaction for transaction in self._running if not transaction.commit]
        if not open_:
            return
        writer, rng = self.rng.choice(open_), self.rng
        row: Row = (
            People(rng.randrange(KEYS), f"n{rng.randrange(99)}")
            if rng.random() < 0.4
            else Ties(rng.randrange(9), *rng.choices(range(KEYS), k=2))
        )
        name = _name(row)
        if any(name in _names(other) for other in self._running if other is not writer):
            return
        own = [after for _, before, after in writer.writes if name == _name(after or before)]
        before = own[-1] if own else self.rows.get(name)
        after = None if before is not None and rng.random() < 0.4 else row
        self._lsn += 1
        writer.writes.append((self._lsn, before, after))

    def _commit(self) -> None:
        """Or roll back."""
        open_ = [transaction for transaction in self._running if not transaction.commit]
        if not open_:
            return
        ending = self.rng.choice(open_)
        if self.rng.random() < 0.15:
            self._forget(ending)
            return
        self._lsn += 1
        ending.commit = self._lsn
        self._commits.append(ending)
        self._log += [(ending, number) for number in range(len(ending.writes))]

    def _end(self) -> None:
        committed = [transaction for transaction in self._running if transaction.commit]
        if committed:
            ending = self.rng.choice(committed)
            for _, before, after in ending.writes:
                if after is None:
                    self.rows.pop(_name(before), None)
                else:
                    self.rows[_name(after)] = after
            self._forget(ending)

    def _forget(self, ended: Transaction) -> None:
        self._running.remove(ended)
        self._completed = max(self._completed, ended.id)

    def _publish(self) -> None:
        """The next change; what was published before only where a repeat can be told."""
        if self._at == len(self._log):
            return
        transaction, number = self._log[self._at]
        lsn, before, after = transaction.writes[number]
        place = self._commits.index(transaction)
        sequence = [str(self._commits[place - 1].commit) if place else None, str(lsn)]
        row, op = after or before, "d" if after is None else "u" if before else "c"
        assert row is not None
        if isinstance(row, Ties) or self._at >= self._most:
            source = {"sequence": msgspec.json.encode(sequence).decode(), "txId": transaction.id % 2**32, "ts_ms": transaction.commit}
            value = msgspec.json.encode({"op": op, "before": before, "after": after, "source": source, "ts_ms": transaction.commit})
            self.topics.append(DEFINITION.topic(type(row)), str(_name(row)[1]).encode(), value)
        self._at += 1
        self._most = max(self._most, self._at)

    def _acknowledge(self) -> None:
        self._acknowledged = max(self._acknowledged, self._whole(self._at))

    def _whole(self, at: int) -> int:
        """The last place up to there at which a transaction ends."""
        while at and at < len(self._log) and self._log[at][1]:
            at -= 1
        return at

    def _die(self) -> None:
        """The connector is killed, and begins again at some transaction that was not acknowledged."""
        self._at = self._whole(self.rng.randint(self._acknowledged, self._at))

    def _wrap(self) -> None:
        """Billions of transactions that write nothing of ours."""
        if self.may_wrap and not self._running:
            self._next_id += 2**31 + self.rng.randrange(9)
            self._completed = self._next_id - 1
            self.may_wrap = False

    # what is asked of it

    @property
    def xmin(self) -> int:
        return min((transaction.id for transaction in self._running), default=self._completed + 1)

    def snapshot(self) -> str:
        xmax = self._completed + 1
        running = [] if self.broken == "a standby's snapshot" else sorted(one.id for one in self._running if one.id < xmax)
        return f"{self.xmin}:{xmax}:{','.join(map(str, running))}"

    @property
    def lsn(self) -> int:
        return self._lsn

    @property
    def confirmed(self) -> int:
        """A heartbeat tells of the end of the log when nothing is left to publish."""
        if self._acknowledged == len(self._log):
            return self._lsn
        return self._log[self._acknowledged - 1][0].commit if self._acknowledged else 0

    def new_id(self) -> int:
        own = self._new_id()
        self._completed = max(self._completed, own)
        return own


def _name(row: Row | None) -> Name:
    assert row is not None
    return type(row), getattr(row, type(row).source.key)


def _names(transaction: Transaction) -> set[Name]:
    return {_name(after or before) for _, before, after in transaction.writes}
