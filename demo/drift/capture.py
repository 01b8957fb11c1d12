"""Change data capture for a road: a connector on its tables, by a Kafka Connect that serves all roads."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from demo.drift.course import Course
from demo.drift.outbox import partition
from demo.servers import debezium
from demo.servers.connect import Connect
from demo.servers.debezium import SCHEMA, Connector
from demo.servers.process import NotReadyError, ServerError, until
from schema.definition import Definition

START_SECONDS = 60


@asynccontextmanager
async def capturing(connect: Connect, course: Course, address: str, definition: Definition) -> AsyncIterator[None]:
    """Whatever is committed from now on to the tables of the course is published, until left. address: of its database."""
    made = connector(course, address, definition)
    await connect.capture(made)
    connection = await asyncpg.connect(address)
    try:
        await until(partial(_streams, connection, made.name), START_SECONDS)
        yield
    except TimeoutError as late:
        raise ServerError(f"{course.way}: the connector sends nothing: {late}; its log is {connect.process.command.log}") from late
    finally:
        await connection.close()
        await connect.remove(made.name)


def connector(course: Course, address: str, definition: Definition) -> Connector:
    """What Debezium is told of a course's tables."""
    prefix = course.prefix.partition(".")[0]
    if course.captured == "rows":
        return debezium.connector(course.database, address, [row.source.table for row in definition.rows], prefix)
    tables = [partition(row) for row in definition.rows]
    return debezium.connector(course.database, address, tables, prefix, _of_an_outbox(tables))


def _of_an_outbox(tables: list[str]) -> Mapping[str, str]:
    """Messages of one row go to one partition of the topic; that old ones are tidied away is no message."""
    keys = ";".join(f"{SCHEMA}.{table}:aggregate_id" for table in tables)
    return {"message.key.columns": keys, "skipped.operations": "u,d,t", "snapshot.mode": "no_data"}


async def _streams(connection: asyncpg.Connection, slot: str) -> None:
    """Raises NotReadyError until the slot is read: what was there before is then behind the connector."""
    if not await connection.fetchval("SELECT active FROM pg_replication_slots WHERE slot_name = $1", slot):
        raise NotReadyError(f"nobody reads slot {slot}")
