"""Random histories of changes over any definition, in small key spaces so that things collide; and the tables they end with."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import asyncpg
import msgspec
from hypothesis import strategies as st

from demo.publish import envelope
from projectors.records.envelope import Change, decoder
from schema.definition import Definition, split_optional
from schema.fields import Column, Row
from schema.loader import Read
from schema.positions import Partition
from schema.user import PROFILE_IMAGES

PARTITIONS = 2
KEYS: dict[type, list[Any]] = {int: [1, 2, 3, -7, 2**62], str: ["c-1", "c 2", "ü}{x", "9", "1"]}
NAMES = ["ada", "bob", "Ünal😀", 'quo"te\\', ""]
_ODD = ["", "~", "~cut", "a", 'quote " \\ /', "naïve 😀\u2028\x07", "</script>", "null", PROFILE_IMAGES, PROFILE_IMAGES + "1/é.png"]
_TEXTS = st.sampled_from(_ODD) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
_ZONES = st.sampled_from([timezone(timedelta(hours=hours)) for hours in (0, 0, 2, -3.5)])
_MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=_ZONES)
_VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.sampled_from([0, 1, -1, 7, 2**31, -(2**40)]),
    str: _TEXTS,
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    datetime: _MOMENTS | _MOMENTS.map(lambda moment: moment.replace(microsecond=0)),
}


@dataclass(slots=True)
class History:
    """logs: by partition, the changes at offsets 0, 1, 2 …, a row's in one partition. tables: the rows at the end, by key."""

    definition: Definition
    logs: dict[Partition, list[Change[Any]]] = field(default_factory=dict)
    tables: dict[type[Row], dict[Any, Row]] = field(default_factory=dict)

    def change(self, table: type[Row], key: Any, after: Row | None, ts_ms: int | None) -> None:
        """Bring one row to its next state: a create, an update or a delete, whichever it is."""
        rows = self.tables.setdefault(table, {})
        before = rows.pop(key, None)
        if before is None and after is None:
            return
        if after is not None:
            rows[key] = after
        op = "c" if before is None else "d" if after is None else "u"
        # over the wire and back: decoding is under the law too
        wire = envelope(op, before, after, ts_ms)  # type: ignore[arg-type]  # publishers know the time, other writers may not
        number = zlib.crc32(repr(key).encode()) % PARTITIONS
        self.logs.setdefault(Partition(self.definition.topic(table), number), []).append(decoder(table)(wire))

    def part_names(self) -> None:
        """Give each of those who end with the same lookup value one of their own: SQL answers with any of them."""
        for lookup in self.definition.lookups:
            seen = set()
            for key, row in list(self.tables.get(self.definition.base, {}).items()):
                if getattr(row, lookup.name) in seen:
                    self.change(self.definition.base, key, msgspec.structs.replace(row, **{lookup.name: f"own {key}"}), 1)
                seen.add(getattr(row, lookup.name))

    def names(self, lookup: str) -> list[str]:
        """Every lookup value that was ever borne, and one that was not."""
        sides = (side for log in self.logs.values() for change in log for side in (change.before, change.after))
        return sorted({getattr(side, lookup) for side in sides if isinstance(side, self.definition.base)} | {"nobody"})

    def __repr__(self) -> str:
        return "\n".join(f"{partition}@{offset}: {change}" for partition, log in self.logs.items() for offset, change in enumerate(log))


def histories(definition: Definition, length: int = 40) -> st.SearchStrategy[History]:
    """Up to `length` changes of random rows of all tables."""
    steps = st.one_of([_step(definition, table) for table in (definition.base, *definition.rows)])
    return st.lists(steps, min_size=1, max_size=length).map(lambda taken: _history(definition, taken))


def _history(definition: Definition, steps: Sequence[tuple[type[Row], Any, dict[str, Any] | None, int | None]]) -> History:
    history = History(definition)
    for table, key, values, ts_ms in steps:
        history.change(table, key, None if values is None else table(**{table.source.key: key, **values}), ts_ms)
    history.part_names()
    return history


def _step(definition: Definition, table: type[Row]) -> st.SearchStrategy[tuple[type[Row], Any, dict[str, Any] | None, int | None]]:
    columns = {f.name: f.type for f in msgspec.structs.fields(table)}
    keys = KEYS[columns.pop(table.source.key)]
    rows = st.fixed_dictionaries({name: _values(definition, table, name, type_) for name, type_ in columns.items()})
    # two of three keep or make the row, so that most histories end with rows
    return st.tuples(st.just(table), st.sampled_from(keys), rows | rows | st.none(), st.sampled_from([None, 5, 6, 1_767_323_045_000]))


def _values(definition: Definition, table: type[Row], name: str, type_: Any) -> st.SearchStrategy[Any]:
    scalar, nullable = split_optional(type_)
    wanted = [
        value for kind in _kinds(definition, table) for column, value in (getattr(kind, "where", None) or {}).items() if column == name
    ]
    if any(getattr(kind, "by", None) == name for kind in _kinds(definition, table)):
        values: st.SearchStrategy[Any] = st.sampled_from(KEYS[scalar])
    elif table is definition.base and name in [f.name for f in definition.lookups]:
        values = st.sampled_from(NAMES)
    else:
        values = st.sampled_from(wanted) | _VALUES[scalar] if wanted else _VALUES[scalar]
    return values | st.none() if nullable else values


def _kinds(definition: Definition, table: type[Row]) -> Iterator[Any]:
    return (f.kind for f in definition.fields if f.kind.row is table and not isinstance(f.kind, Column))


def reads(history: History) -> list[Read]:
    """All fields of every row that there may be, by its key and by each value that it ever bore."""
    definition = history.definition
    names = ("id", *(f.name for f in definition.fields))
    by_id = [Read("id", str(key), names) for key in KEYS[definition.key_type]]
    return by_id + [Read(f.name, value, names) for f in definition.lookups for value in history.names(f.name)]


async def write_tables(pool: asyncpg.Pool, definition: Definition, tables: Mapping[type[Row], Mapping[Any, Row]]) -> None:
    """Make the tables hold these rows and no others."""
    async with pool.acquire() as connection, connection.transaction():
        for table in definition.rows:
            # DELETE: a TRUNCATE makes new files, 20 times slower for a handful of rows
            await connection.execute(f'DELETE FROM "{table.source.table}"')
            rows = [msgspec.structs.astuple(row) for row in tables.get(table, {}).values()]
            await connection.copy_records_to_table(table.source.table, records=rows, columns=table.__struct_fields__)
