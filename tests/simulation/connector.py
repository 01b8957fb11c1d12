"""A connector in memory: exactly once for a source of position `offset`; for one of `debezium` with pairs of LSNs, and at least once."""

import random

import msgspec

from schema.fields import Row
from schema.positions import Partition
from tests.faults.memory import Topics

_MARGIN = 20


class Connector:
    """Sends each change of every table, in the order of their commits."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._pair: tuple[int | None, int] = (None, 100)
        self._end = 100
        self._at_pair: set[tuple[type, object, str]] = set()
        # what was streamed with pairs: each change, its key, and whether it was of a transaction with none before it
        self._sent: list[tuple[dict[str, object], Row, bool]] = []

    def begin_anew(self) -> None:
        """With a new slot: no commit is known, nothing that was sent before is sent again."""
        self._pair, self._sent, self._at_pair = (None, self._end + _MARGIN), [], set()
        self._end += _MARGIN

    def send(self, op: str, before: Row | None, after: Row | None, rng: random.Random) -> Partition:
        """One change, as often with the pair of the one before as with its own, or as the first of another transaction."""
        row = after if after is not None else before
        assert row is not None
        told: dict[str, object] = {"op": op, "before": before, "after": after, "ts_ms": 1 + rng.randrange(50)}
        if type(row).source.position == "debezium":
            identity = type(row), _key(row), op
            if identity in self._at_pair or rng.random() < 0.5:
                self.move(rng)
            self._at_pair.add(identity)
            told["source"] = {"sequence": self._sequence(), "ts_ms": told["ts_ms"]}
            self._sent.append((told, row, self._pair[0] is None))
        return self._append(told, row, rng.choice((0, 0, 1)))

    def send_snapshot_row(self, row: Row) -> Partition:
        """All of one snapshot have the pair that was begun anew with."""
        return self._append({"op": "r", "after": row, "ts_ms": 1, "source": {"sequence": self._sequence(), "ts_ms": 1}}, row, 0)

    def send_again(self, back: int) -> None:
        """The last changes once more, by a clock that has gone on. Not a first transaction that is over: that stops a live generation."""
        is_over = bool(self._sent) and not self._sent[-1][2]
        for told, row, is_first in self._sent[-back:]:
            if not (is_first and is_over):
                self._append(told | {"ts_ms": 1_000_000}, row, 0)

    def move(self, rng: random.Random) -> None:
        """To the next LSN, or behind a commit: there the LSN may be a lower one, of a transaction that ran beside."""
        commit, lsn = self._pair
        self._at_pair = set()
        if rng.random() < 0.5:
            self._pair = commit, lsn + 1
        else:
            commit = self._end + 1
            self._pair = commit, commit + rng.randint(-_MARGIN // 2, _MARGIN // 2)
        self._end = max(self._end, *(part or 0 for part in self._pair))

    def _append(self, told: dict[str, object], row: Row, gap: int) -> Partition:
        return self._topics.append(type(row).source.topic, str(_key(row)).encode(), msgspec.json.encode(told), gap)

    def _sequence(self) -> str:
        """As Debezium writes it: JSON in a text, numbers as texts."""
        return msgspec.json.encode([None if part is None else str(part) for part in self._pair]).decode()


def _key(row: Row) -> object:
    return getattr(row, type(row).source.key)
