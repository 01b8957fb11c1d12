"""The generation that readers read, as it was last seen, and what its headers mean. Sends nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from loaders.way import Way
from schema import layout
from schema.definition import Definition
from schema.generation import Generation
from schema.loader import FieldMissing, ViewNotReady
from schema.progress import Progress

# selections that are remembered
MOST_WAYS = 1_000


@dataclass(slots=True)
class Live:
    """key: of its record. builds: of each shard. marker: the code of a field that every row with a profile has.

    readable: states of a shard in which what is not there is unknown. as_of_ms: by the progress as last read; 0: it tells nothing.
    met: which server the progress was read from, as app/pool.py counts them. masters: those that all who wrote it knew, see Progress.
    """

    record: Generation
    key: str
    layout: layout.Layout
    marker: str
    builds: list[str]
    readable: tuple[bytes, ...]
    as_of_ms: int = 0
    met: int = 0
    masters: frozenset[bytes] | None = None
    # what the keys of a shard's rows start with, and how each selection is read
    prefixes: list[bytes] = field(init=False)
    _ways: dict[tuple[str, ...], Way] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.prefixes = [self.layout.rows_prefix(shard, build).encode() for shard, build in enumerate(self.builds)]

    @classmethod
    def of(cls, definition: Definition, record: Generation, readable: tuple[bytes, ...]) -> "Live":
        """Raises FieldMissing where the record shares no column with the definition."""
        marker = next((record.codes[f.name] for f in definition.columns if f.name in record.codes), None)
        if marker is None:
            raise FieldMissing(f"Generation {record.name} has no column of the {definition.name} view; build a new generation.")
        keys = layout.Layout(definition.name, record.name, record.shards)
        return cls(record, layout.generation_key(definition.name, record.name), keys, marker, [record.build] * record.shards, readable)

    def moved(self, shard: int, build: str) -> None:
        """A shard is read from another build now."""
        self.builds[shard] = build
        self.prefixes[shard] = self.layout.rows_prefix(shard, build).encode()

    def way(self, fields: tuple[str, ...]) -> Way:
        """Raises FieldMissing."""
        way = self._ways.get(fields)
        if way is None:
            if len(self._ways) >= MOST_WAYS:
                self._ways.clear()
            way = self._ways[fields] = Way(fields, self.marker, self.codes(fields), self.record.prefixes)
        return way

    def codes(self, fields: tuple[str, ...]) -> list[str]:
        """Raises FieldMissing."""
        try:
            return [self.record.codes[name] for name in fields if name != "id"]
        except KeyError as unknown:
            raise FieldMissing(f"Generation {self.record.name} was built without field {unknown}; build a new generation.") from unknown

    def build(self, shard: int, state: bytes | None, build: bytes | None) -> str:
        """The build that a shard's header names, if readers may believe it. Raises ViewNotReady."""
        if state not in self.readable or build is None:
            found = "lost" if state is None else state.decode()
            raise ViewNotReady(f"Shard {shard} of generation {self.record.name} is {found}; try again when it is rebuilt.")
        return build.decode()

    def is_same(self, stored: bytes | None) -> bool:
        """Whether a record is of the generation as it was opened when it was last seen, and not of one opened anew under its name."""
        return stored is not None and Generation.decode(stored).build == self.record.build

    def is_named(self, pointer: bytes | None) -> bool:
        return pointer == self.record.name.encode()

    def progress(self, times: Mapping[bytes, bytes], met: int) -> None:
        """By partition, up to when the generation has it: the answer is as old as the oldest. One that tells nothing yet may be older."""
        told = self.record.copied or all(partition.encode() in times for partition in self.record.start)
        found = [Progress.decode(stored) for stored in times.values()]
        self.as_of_ms, self.met = min((one.ms for one in found), default=0) if told else 0, met
        known = [one.masters for one in found if one.masters is not None]
        self.masters = frozenset.intersection(*known) if known else None

    def as_of(self, run_ids: frozenset[bytes] | None) -> int:
        """What rows of these masters are as of (Unix ms), 0 where nobody can tell: one of them may have lost what another one says."""
        return self.as_of_ms if run_ids is None or Progress(self.as_of_ms, self.masters).knows(run_ids) else 0
