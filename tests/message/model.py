"""The view in dicts: the tests' own understanding of what effects mean, beside apply.lua's and ViewLoader's."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from projectors.fold import Effects
from schema import layout
from schema.definition import Definition
from tests.message.histories import History
from tests.message.turns import SHARDS, Turn, steps


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
        self.rows = {key: row for key, row in self.rows.items() if self._has_profile(row) or any(value != b"0" for value in row.values())}

    def row(self, key: str, fields: Sequence[str]) -> list[bytes] | None:
        """A row that lacks its profile is none; one that lacks a count is a mistake."""
        row = self.rows.get(key, {})
        if not self._has_profile(row):
            return None
        return [layout.encode(key) if name == "id" else row[name] for name in fields]

    def lookup(self, by: str, value: str, fields: Sequence[str]) -> list[bytes] | None:
        """The latest claimant that still bears the value."""
        for key in layout.claimed(self.claims.get((by, value), {})):
            if self.row(key, [by]) == [layout.encode(value)]:
                return self.row(key, fields)
        return None

    def bearers(self) -> dict[tuple[str, str], set[str]]:
        """Who claims which value."""
        return {claim: {key.decode() for key in claimants} for claim, claimants in self.claims.items() if claimants}

    def _has_profile(self, row: dict[str, bytes]) -> bool:
        return self.definition.columns[0].name in row

    def _is_in(self, text: str, mask: int) -> bool:
        return bool(mask >> self.shards.shard(text) & 1)


def folded(history: History, turns: Sequence[Turn]) -> Model:
    """The history in these turns, as a view."""
    model = Model(history.definition)
    for step in steps(history, turns):
        model.apply(step.effects, step.mask)
    return model
