"""The source tables in PostgreSQL, made from the rows that the definition names."""

from datetime import datetime

import asyncpg
import msgspec

from schema.definition import Definition, split_optional
from schema.fields import Row
from schema.sql import POSITIONS

_TYPES = {int: "bigint", str: "text", bool: "boolean", float: "double precision", datetime: "timestamptz"}


async def create_tables(connection: asyncpg.Connection | asyncpg.Pool, definition: Definition) -> None:
    """Every table with its key and what the queries need indexed, and the sink's positions. Tables that are there stay."""
    for row in definition.rows:
        await connection.execute(_table(row))
        await connection.execute(f'ALTER TABLE "{row.source.table}" REPLICA IDENTITY FULL')
    indexed = {(f.kind.row.source.table, f.kind.by, "btree") for f in definition.aggregates if hasattr(f.kind, "by")}
    # a btree takes no text of more than 2,704 bytes
    indexed |= {(definition.base.source.table, f.name, "hash") for f in definition.lookups}
    for table, column, kind in sorted(indexed):
        await connection.execute(f'CREATE INDEX IF NOT EXISTS "{table}_{column}" ON "{table}" USING {kind} ("{column}")')
    await connection.execute(
        f"CREATE TABLE IF NOT EXISTS {POSITIONS} (topic text, partition int, next_offset bigint NOT NULL, PRIMARY KEY (topic, partition))"
    )


def _table(row: type[Row]) -> str:
    columns = []
    for column in msgspec.structs.fields(row):
        scalar, nullable = split_optional(column.type)
        rule = " PRIMARY KEY" if column.name == row.source.key else "" if nullable else " NOT NULL"
        columns.append(f'"{column.name}" {_TYPES[scalar]}{rule}')
    return f'CREATE TABLE IF NOT EXISTS "{row.source.table}" ({", ".join(columns)})'
