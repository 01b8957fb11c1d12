"""Where two modes differ in a field, and what becomes of that when both are read again: one was stale, or one is wrong. Reads nothing."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schema.loader import Read, Row, Rows

# in a field's place: whether there is a row at all
ROW = "*"
PRESENT = b"{}"
FIRST, SECOND = 0, 1

Verdict = Literal["stale", "wrong"]
Pair = tuple[bytes | None, bytes | None]


@dataclass(slots=True)
class Difference:
    """values: fragments of both modes as they were first seen to differ, None where there is no row. as_of_ms, at_ms: of then (Unix ms).

    verdict: None while it is open. behind: which of the two was stale, where that is known. age_ms: how long it has
    been seen; of a stale one that did not end, how old the older answer says it is.
    """

    read: Read
    field: str
    values: Pair
    as_of_ms: tuple[int, int]
    at_ms: int
    verdict: Verdict | None = None
    behind: int | None = None
    age_ms: int = 0
    _seen: Pair = dataclasses.field(init=False)
    _seen_ms: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self._seen, self._seen_ms = self.values, self.at_ms

    def look(self, values: Pair, as_of_ms: tuple[int, int], now_ms: int, settled_ms: int) -> None:
        """Both have been read again. Wrong is only what stays as it is for so long, while both say that they have everything since."""
        if values[FIRST] == values[SECOND]:
            changed = [place for place in (FIRST, SECOND) if values[place] != self.values[place]]
            self._judge("stale", changed[0] if len(changed) == 1 else self._older(self.as_of_ms), now_ms - self.at_ms)
        elif values != self._seen:
            self._seen, self._seen_ms = values, now_ms
        elif min(as_of_ms) >= self._seen_ms and now_ms - self._seen_ms >= settled_ms:
            self._judge("wrong", None, now_ms - self.at_ms)

    def end(self, as_of_ms: tuple[int, int], now_ms: int) -> None:
        """It is looked at no more: what is open then differs within what the older answer says of its own age, or changes all the time."""
        oldest = min(as_of_ms)
        if self.verdict is None:
            self._judge("stale", self._older(as_of_ms), max(now_ms - self.at_ms, now_ms - oldest if oldest else 0))

    def _judge(self, verdict: Verdict, behind: int | None, age_ms: int) -> None:
        self.verdict, self.behind, self.age_ms = verdict, behind, max(0, age_ms)

    @staticmethod
    def _older(as_of_ms: tuple[int, int]) -> int | None:
        return None if as_of_ms[FIRST] == as_of_ms[SECOND] else int(as_of_ms[SECOND] < as_of_ms[FIRST])


def differences(reads: Sequence[Read], first: Rows, second: Rows, now_ms: int) -> list[Difference]:
    """Field by field; of a row that only one of them has, one for the row."""
    as_of = first.as_of_ms, second.as_of_ms
    found = []
    for read, *rows in zip(reads, first.rows, second.rows, strict=True):
        names = (ROW,) if None in rows else read.fields
        for name in names:
            pair = value(rows[FIRST], read, name), value(rows[SECOND], read, name)
            if pair[FIRST] != pair[SECOND]:
                found.append(Difference(read, name, pair, as_of, now_ms))
    # one that is asked for twice in a request is one
    return list({(one.read, one.field): one for one in found}.values())


def value(row: Row | None, read: Read, name: str) -> bytes | None:
    if row is None:
        return None
    return PRESENT if name == ROW else row[read.fields.index(name)]
