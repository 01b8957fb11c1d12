"""Every change of a scene with its moments: so an answer can be judged while changes come in. Does no I/O."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from schema.definition import Definition
from schema.fields import Count, Row

_ABSENT = "absent"


class Verdict(Enum):
    """What an answer is worth."""

    RIGHT = "what the user was, at some moment since the answer's as-of"
    OLDER = "what the user was, at a moment before the answer's as-of"
    WRONG = "what the user never was"


@dataclass(slots=True)
class Moment:
    """When a change was handed to its publisher, and when it was surely where the projector finds it (Unix ms)."""

    begun: float
    done: float = math.inf


@dataclass(slots=True)
class History:
    """What was changed, in the order in which it was published."""

    definition: Definition
    _deltas: dict[tuple[str, str], list[tuple[Moment, int]]] = field(default_factory=dict)
    _profiles: dict[str, list[tuple[Moment, Row | None]]] = field(default_factory=dict)

    def change(self, before: Row | None, after: Row | None, moment: Moment) -> None:
        """One row's change."""
        row = after if after is not None else before
        if row is not None and _is_of(self.definition.base, row):
            self._profiles.setdefault(str(getattr(row, row.source.key)), []).append((moment, after))
        for aggregate in self.definition.aggregates:
            kind = aggregate.kind
            assert isinstance(kind, Count)
            for side, step in ((before, -1), (after, 1)):
                if _is_of(kind.row, side):
                    self._deltas.setdefault((str(getattr(side, kind.by)), aggregate.name), []).append((moment, step))

    def judge(self, user: str, answer: Mapping[str, Any] | None, as_of_ms: float, received_ms: float) -> Verdict:
        """answer: fields by the definition's names; None: there is no such user."""
        if self._may_be(user, answer, as_of_ms, received_ms):
            return Verdict.RIGHT
        return Verdict.OLDER if self._may_be(user, answer, -math.inf, received_ms) else Verdict.WRONG

    def _may_be(self, user: str, answer: Mapping[str, Any] | None, since_ms: float, until_ms: float) -> bool:
        profiles = self._profiles_between(user, since_ms, until_ms)
        if answer is None:
            return None in profiles
        counts = {one.name for one in self.definition.aggregates}
        return any(_bears(profile, answer, counts) for profile in profiles) and all(
            self._counts(user, name, answer[name], since_ms, until_ms) for name in counts & answer.keys()
        )

    def _profiles_between(self, user: str, since_ms: float, until_ms: float) -> list[Row | None]:
        """The last that is surely there, and all that may have followed."""
        known: list[Row | None] = [None]
        for moment, profile in self._profiles.get(user, ()):
            if moment.done <= since_ms:
                known = [profile]
            elif moment.begun <= until_ms:
                known.append(profile)
        return known

    def _counts(self, user: str, name: str, value: int, since_ms: float, until_ms: float) -> bool:
        """Changes of different rows may be seen in any order, so each that is not surely there may be missing."""
        low = high = 0
        for moment, step in self._deltas.get((user, name), ()):
            if moment.done <= since_ms:
                low, high = low + step, high + step
            elif moment.begun <= until_ms:
                low, high = low + min(step, 0), high + max(step, 0)
        return low <= value <= high


def _is_of(table: type[Row], row: Row | None) -> bool:
    """Of another view's class too, which has the same columns."""
    return row is not None and row.source.topic == table.source.topic


def _bears(profile: Row | None, answer: Mapping[str, Any], counts: set[str]) -> bool:
    return profile is not None and all(getattr(profile, name) == value for name, value in answer.items() if name not in counts)
