"""Changes folded to effects per key of the view. Pure: no clock, no I/O, no position but the one that a claim bears."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from projectors.records.envelope import Change
from schema.definition import Definition
from schema.fields import Count, Row, Sum

Key = int | str
Changes = Sequence[tuple[int, Change[Any]]]
Amount = Callable[[Row], int]
# (a key of the view or a lookup value, an offset) → whether the shard of that text has this offset already
Covered = Callable[[str, int], bool]


class Claim(NamedTuple):
    """A lookup value that a row bears: `field` of row `key` is `value`."""

    field: str
    value: str
    key: Key


@dataclass(slots=True)
class Effects:
    """What a batch does to the view.

    counts: by aggregate's name, the delta of each key. profiles: the row that is now there, None for one deleted.
    claims: (ts_ms, offset) for a value that is claimed, None for one released.
    """

    counts: dict[str, dict[Key, int]] = field(default_factory=dict)
    profiles: dict[Key, Row | None] = field(default_factory=dict)
    claims: dict[Claim, tuple[int, int] | None] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(map(len, self.counts.values())) + len(self.profiles) + len(self.claims)

    def drop(self, covered: Callable[[str], bool]) -> bool:
        """Leave out what touches keys that have it already. Whether anything was left out."""
        size = self.size
        for name, deltas in self.counts.items():
            self.counts[name] = {key: delta for key, delta in deltas.items() if not covered(str(key))}
        self.profiles = {key: row for key, row in self.profiles.items() if not covered(str(key))}
        self.claims = {claim: when for claim, when in self.claims.items() if not covered(claim.value)}
        return self.size < size

    def add(self, later: "Effects") -> None:
        """Take in the effects of what came later in the same partition."""
        for name, deltas in later.counts.items():
            mine = self.counts.setdefault(name, {})
            for key, delta in deltas.items():
                mine[key] = mine.get(key, 0) + delta
        self.profiles.update(later.profiles)
        self.claims.update(later.claims)


def fold(definition: Definition, row: type[Row], changes: Changes) -> Effects:
    """Fold changes of one topic, each with its offset, in their order. row: the topic's; of several that share it, any.

    The last profile and the last claim of a key win; counts are summed, -1 for `before` and +1 for `after`.
    """
    effects = Effects()
    rows = definition.sharing[definition.topic(row)]
    for one in rows:
        _fold_row(definition, one, changes if len(rows) == 1 else _of(one, changes), effects)
    return effects


def _of(row: type[Row], changes: Changes) -> Changes:
    return [(at, change) for at, change in changes if isinstance(change.before if change.after is None else change.after, row)]


def _fold_row(definition: Definition, row: type[Row], changes: Changes, effects: Effects) -> None:
    for aggregate in definition.aggregates:
        kind = aggregate.kind
        if isinstance(kind, Count | Sum) and kind.row is row:
            by = attrgetter(kind.by)
            amount = _amount(kind)
            effects.counts[aggregate.name] = _counted(changes, by) if amount is None else _summed(changes, by, amount)
    if row is definition.base:
        _fold_profiles(definition, changes, effects)


def fold_rest(definition: Definition, row: type[Row], changes: Changes, covered: Covered) -> tuple[Effects, int]:
    """Fold only what the shards do not have yet, and count the changes that some shard had. Slow: for after a restart or a race."""
    effects, dropped = Effects(), 0
    for offset, change in changes:
        one = fold(definition, row, [(offset, change)])
        dropped += one.drop(lambda text, offset=offset: covered(text, offset))  # type: ignore[misc]  # the default binds the loop's value
        effects.add(one)
    return effects, dropped


def _counted(changes: Changes, by: Callable[[Row], Key | None]) -> dict[Key, int]:
    deltas: dict[Key, int] = {}
    for _, change in changes:
        if change.before is not None and (key := by(change.before)) is not None:
            deltas[key] = deltas.get(key, 0) - 1
        if change.after is not None and (key := by(change.after)) is not None:
            deltas[key] = deltas.get(key, 0) + 1
    return deltas


def _summed(changes: Changes, by: Callable[[Row], Key | None], amount: Amount) -> dict[Key, int]:
    deltas: dict[Key, int] = {}
    for _, change in changes:
        if change.before is not None and (key := by(change.before)) is not None:
            deltas[key] = deltas.get(key, 0) - amount(change.before)
        if change.after is not None and (key := by(change.after)) is not None:
            deltas[key] = deltas.get(key, 0) + amount(change.after)
    return deltas


def _amount(kind: Count | Sum) -> Amount | None:
    """What one row is worth; None when each is worth 1."""
    counts = _condition(kind.where or {})
    if isinstance(kind, Sum):
        of = attrgetter(kind.of)
        return lambda row: (of(row) or 0) if counts(row) else 0
    return (lambda row: 1 if counts(row) else 0) if kind.where else None


def _condition(where: Mapping[str, Any]) -> Callable[[Row], bool]:
    wanted = [(attrgetter(column), value) for column, value in where.items()]
    return lambda row: all(column(row) == value for column, value in wanted)


def _fold_profiles(definition: Definition, changes: Changes, effects: Effects) -> None:
    key_of = attrgetter(definition.base.source.key)
    lookups = [(f.name, attrgetter(f.name)) for f in definition.lookups]
    for offset, change in changes:
        before, after = change.before, change.after
        row = after if after is not None else before
        if row is None:
            continue
        key = key_of(row)
        effects.profiles[key] = after
        for name, value in lookups:
            old = None if before is None else value(before)
            new = None if after is None else value(after)
            if old == new:
                continue
            if old is not None:
                effects.claims[Claim(name, old, key)] = None
            if new is not None:
                effects.claims[Claim(name, new, key)] = (change.ts_ms or 0, offset)
