"""Checks of PostgreSQL, the source database: its tables as the view definition names them. Reads the catalogue, and no row."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from app.doctor.checks import CLOCK_MEND, Checks, Finding, NothingThere, address, clock, listed, worst
from schema.definition import Definition, split_optional
from schema.fields import Row

AWAY: tuple[type[Exception], ...] = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.OperatorInterventionError)
REFUSALS: tuple[type[Exception], ...] = (asyncpg.PostgresError, ValueError)
OLDEST = 12
# by pg_type's names; a domain counts as what it is made of. Text has no zone, numeric comes as Decimal: neither is what Kafka carries
FITTING: Mapping[type, frozenset[str]] = {
    int: frozenset({"int2", "int4", "int8"}),
    str: frozenset({"text", "varchar", "bpchar", "citext", "name"}),
    float: frozenset({"float4", "float8"}),
    bool: frozenset({"bool"}),
    datetime: frozenset({"timestamptz"}),
}
WANTED = {int: "bigint", str: "text", float: "double precision", bool: "boolean", datetime: "timestamptz"}

TABLE = "SELECT c.oid::int8, c.relreplident::text, has_table_privilege(c.oid, 'SELECT') FROM pg_class c WHERE c.oid = to_regclass($1)"
COLUMNS = """
SELECT a.attname::text, coalesce(base.typname, t.typname)::text, a.attnotnull, coalesce(base.typtype, t.typtype)::text = 'e'
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type base ON t.typtype = 'd' AND base.oid = t.typbasetype
WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped
"""
# an index over some rows only, or over an expression, serves neither a count nor a key
INDEXES = """
SELECT a.attname::text, i.indisunique AND i.indnkeyatts = 1
FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = $1::int8::oid AND i.indisvalid AND i.indpred IS NULL
"""


@dataclass(frozen=True, slots=True)
class Column:
    """type: pg_type's name of it."""

    type: str
    never_null: bool
    enumerated: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the catalogue has it. unique, indexed: columns that are a key of their own, that an index begins with."""

    identity: str
    readable: bool
    columns: Mapping[str, Column]
    unique: frozenset[str]
    indexed: frozenset[str]


@dataclass(slots=True)
class Asked:
    """A PostgreSQL under examination. Connection and tables, by their name, come with its first answers."""

    url: str
    seconds: float
    definition: Definition
    connection: "asyncpg.Connection[asyncpg.Record] | None" = None
    tables: dict[str, Table] = field(default_factory=dict)

    @property
    def open(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self.connection is None:
            raise asyncpg.InterfaceError("not connected")
        return self.connection

    def present(self) -> list[tuple[type[Row], Table]]:
        """The definition's rows whose tables are there. Raises NothingThere."""
        if not self.tables:
            raise NothingThere("there is no table")
        return [(row, self.tables[row.source.table]) for row in self.definition.rows if row.source.table in self.tables]


POSTGRES: Checks[Asked] = Checks("PostgreSQL", AWAY, REFUSALS)


@POSTGRES.check(
    "answers",
    "a connection, with the user, the password and the database of the URL",
    wrong="it cannot be reached, or refuses the user or the database",
    mend="Start it, or correct `VIEWGATE_POSTGRES_URL`; odd characters of a password must be percent-encoded there.",
)
async def _answers(asked: Asked) -> Finding:
    try:
        asked.connection = await asyncpg.connect(asked.url, timeout=asked.seconds, command_timeout=asked.seconds)
    except ValueError:
        # its words would show what stands where the port should be: the end of a password perhaps
        return Finding("wrong", f"{address(asked.url)}: the address cannot be read")
    return Finding("ok", address(asked.url))


@POSTGRES.check(
    "version",
    "the version",
    warning=f"it is older than {OLDEST}: not tested",
    mend="Use one that still gets corrections: 14 or newer.",
)
async def _version(asked: Asked) -> Finding:
    version = str(await asked.open.fetchval("SHOW server_version")).split()[0]
    return Finding("ok" if asked.open.get_server_version().major >= OLDEST else "warning", f"PostgreSQL {version}")


@POSTGRES.check(
    "primary",
    "whether it is the primary",
    warning="it is a standby: it may be behind what Kafka tells, and to build from SQL needs the primary",
    mend="Point `VIEWGATE_POSTGRES_URL` at the primary, at least for the audit.",
)
async def _primary(asked: Asked) -> Finding:
    standby = await asked.open.fetchval("SELECT pg_is_in_recovery()")
    return Finding("warning", "a standby") if standby else Finding("ok", "the primary")


@POSTGRES.check(
    "tables",
    "the table of each topic",
    wrong="one is missing in the search path",
    mend="Point `VIEWGATE_POSTGRES_URL` at the database that has them, or write `table=…` in the view definition.",
)
async def _tables(asked: Asked) -> Finding:
    names = [row.source.table for row in asked.definition.rows]
    for name in names:
        found = await _table(asked, name)
        if found:
            asked.tables[name] = found
    missing = [name for name in names if name not in asked.tables]
    return Finding("wrong", f"there is no {listed(missing)}") if missing else Finding("ok", listed(names))


@POSTGRES.check(
    "permission",
    "whether our user may read each table",
    wrong="it may not",
    mend="As the table's owner: `GRANT SELECT ON … TO …`.",
)
async def _permission(asked: Asked) -> Finding:
    locked = [row.source.table for row, table in asked.present() if not table.readable]
    if not locked:
        return Finding("ok", "all can be read")
    user = await asked.open.fetchval("SELECT quote_ident(current_user)")
    tables = ", ".join(f'"{name}"' for name in locked)
    return Finding("wrong", f"{user} may not read {listed(locked)}", f"As the tables' owner: `GRANT SELECT ON {tables} TO {user}`.")


@POSTGRES.check(
    "columns",
    "each column of the view definition: its type, and whether it may be null",
    warning="it may be null, which the definition does not allow: a row with a null would be a dead letter",
    wrong="it is missing, or of a type that differs from what Kafka carries",
    mend="Correct the table or the row in the view definition: the types are bigint, text, double precision, boolean, timestamptz.",
)
async def _columns(asked: Asked) -> Finding:
    findings = [
        finding
        for row, table in asked.present()
        for column in msgspec.structs.fields(row)
        if (finding := _column(row.source.table, column.name, table.columns.get(column.name), *split_optional(column.type)))
    ]
    return worst(findings, f"{sum(len(row.__struct_fields__) for row, _ in asked.present())} columns fit")


@POSTGRES.check(
    "keys",
    "a primary key or a unique index on each row's key, and on nothing beside it",
    wrong="there is none: two rows may bear one key, and every read of one row reads the whole table",
    mend="`ALTER TABLE … ADD PRIMARY KEY (…)`.",
)
async def _keys(asked: Asked) -> Finding:
    bare = [row.source for row, table in asked.present() if row.source.key not in table.unique]
    findings = [
        Finding(
            "wrong", f"{name.table}.{name.key} is not unique by itself", f'`ALTER TABLE "{name.table}" ADD PRIMARY KEY ("{name.key}")`.'
        )
        for name in bare
    ]
    return worst(findings, "all are unique")


@POSTGRES.check(
    "indexes",
    "an index that begins with the column that an aggregate counts by, or a lookup looks in",
    warning="there is none: all modes but view, and a fallback, read the whole table for each user",
    mend="`CREATE INDEX CONCURRENTLY ON … (…)`.",
)
async def _indexes(asked: Asked) -> Finding:
    tables = {row.source.table: table for row, table in asked.present()}
    wanted = {(f.kind.row.source.table, f.kind.by) for f in asked.definition.aggregates if hasattr(f.kind, "by")}
    wanted |= {(asked.definition.base.source.table, f.name) for f in asked.definition.lookups}
    found = {(name, column) for name, column in wanted if name in tables and column in tables[name].indexed}
    bare = sorted((name, column) for name, column in wanted - found if name in tables)
    findings = [
        Finding("warning", f"no index begins with {name}.{column}", f'`CREATE INDEX CONCURRENTLY ON "{name}" ("{column}")`.')
        for name, column in bare
    ]
    return worst(findings, f"one for each of {len(found)} columns")


@POSTGRES.check(
    "replica identity",
    "`REPLICA IDENTITY` of each table",
    warning="it is not FULL: change data capture then sends no row before an update or a delete, and such a change is a dead letter",
    mend="`ALTER TABLE … REPLICA IDENTITY FULL`; not needed where the service itself publishes its changes.",
)
async def _identity(asked: Asked) -> Finding:
    bare = [row.source.table for row, table in asked.present() if table.identity != "f"]
    if not bare:
        return Finding("ok", "FULL")
    mends = ", ".join(f'`ALTER TABLE "{name}" REPLICA IDENTITY FULL`' for name in bare)
    return Finding("warning", f"not FULL: {listed(bare)}", f"{mends}; not needed where the service itself publishes its changes.")


@POSTGRES.check(
    "wal level",
    "`wal_level`",
    warning="it is not `logical`, which change data capture needs",
    mend="`ALTER SYSTEM SET wal_level = logical`, and restart it; not needed where the service itself publishes its changes.",
)
async def _wal_level(asked: Asked) -> Finding:
    level = str(await asked.open.fetchval("SHOW wal_level"))
    return Finding("ok" if level == "logical" else "warning", level)


@POSTGRES.check(
    "clock", "its clock, against ours", warning="it differs by more than 1 s", wrong="it differs by more than 10 s", mend=CLOCK_MEND
)
async def _clock(asked: Asked) -> Finding:
    before = time.time()
    theirs = await asked.open.fetchval("SELECT clock_timestamp()")
    return clock(theirs.timestamp() - (before + time.time()) / 2)


async def _table(asked: Asked, name: str) -> Table | None:
    quoted = '"' + name.replace('"', '""') + '"'
    found = await asked.open.fetchrow(TABLE, quoted)
    if found is None:
        return None
    oid, identity, readable = found
    columns = {column: Column(*rest) for column, *rest in await asked.open.fetch(COLUMNS, oid)}
    indexes = await asked.open.fetch(INDEXES, oid)
    return Table(
        identity, readable, columns, frozenset(column for column, unique in indexes if unique), frozenset(column for column, _ in indexes)
    )


def _column(table: str, name: str, column: Column | None, scalar: Any, nullable: bool) -> Finding | None:
    if column is None:
        return Finding("wrong", f"{table} has no column {name}")
    if column.type not in FITTING[scalar] and not (scalar is str and column.enumerated):
        return Finding("wrong", f"{table}.{name} is {column.type}, not {WANTED[scalar]}")
    if not nullable and not column.never_null:
        return Finding("warning", f"{table}.{name} may be null, which the view definition does not allow")
    return None
