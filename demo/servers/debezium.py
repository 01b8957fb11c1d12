"""What Debezium's PostgreSQL connector is told, and what it leaves in a database. Starts nothing: see connect.py."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

import asyncpg

from demo.servers.process import NotReadyError, until

SCHEMA = "public"
HEARTBEAT = "heartbeat"
# poll: 500 ms by default, which would be the latency. heartbeat: while only other tables are written, the slot, and with it the WAL, would
# be held back; since PostgreSQL 15 tells nothing of their transactions, a message of its own is needed, which goes to no topic.
# skipped: a TRUNCATE is not told by default. batch and queue: four times the default, for the snapshot's sake
CONFIG = {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "tasks.max": "1",
    "plugin.name": "pgoutput",
    "publication.autocreate.mode": "filtered",
    "snapshot.mode": "initial",
    "heartbeat.interval.ms": "1000",
    "heartbeat.action.query": f"SELECT pg_logical_emit_message(false, '{HEARTBEAT}', '')",
    "message.prefix.exclude.list": HEARTBEAT,
    "poll.interval.ms": "20",
    "skipped.operations": "none",
    "max.batch.size": "8192",
    "max.queue.size": "32768",
    "topic.creation.default.replication.factor": "1",
    "topic.creation.default.partitions": "6",
}


@dataclass(frozen=True, slots=True)
class Connector:
    """name: of its slot and, with `_publication`, of its publication too: letters, digits and underscores. config: its properties."""

    name: str
    config: Mapping[str, str]


def connector(name: str, address: str, tables: Iterable[str], prefix: str, settings: Mapping[str, str] = MappingProxyType({})) -> Connector:
    """One for these tables of the schema `public` of the database at the address; their topics are `<prefix>.public.<table>`.

    settings: further properties, or other values.
    """
    at = urlsplit(address)
    database = {
        "database.hostname": at.hostname or "127.0.0.1",
        "database.port": str(at.port or 5432),
        "database.user": unquote(at.username or "postgres"),
        "database.password": unquote(at.password or ""),
        "database.dbname": unquote(at.path.lstrip("/")),
    }
    own = {
        "topic.prefix": prefix,
        "table.include.list": ",".join(f"{SCHEMA}.{table}" for table in tables),
        "slot.name": name,
        "publication.name": f"{name}_publication",
        # of one topic.prefix: else their metrics have one name, which each waits a minute for when it starts
        "custom.metric.tags": f"connector={name}",
    }
    return Connector(name, {**CONFIG, **database, **own, **settings})


async def captured(
    connection: asyncpg.Connection | asyncpg.Pool, slot: str, seconds: float, check: Callable[[], None] = lambda: None
) -> None:
    """Return when all that has been committed by now, a first snapshot too, has been acknowledged by Kafka.

    Raises TimeoutError, and as `check` does, which is asked all the while. Needs heartbeats.
    """
    lsn = ""

    async def reached() -> None:
        nonlocal lsn
        check()
        at = await connection.fetchval(_REACHED, slot)
        if at is None:
            raise NotReadyError(f"there is no slot {slot} yet")
        # a new slot begins where its snapshot does: only what is written after that tells that the snapshot is through
        lsn = lsn or str(await connection.fetchval(_WRITTEN, HEARTBEAT))
        if not await connection.fetchval("SELECT $1::text::pg_lsn >= $2::text::pg_lsn", at, lsn):
            raise NotReadyError(f"slot {slot} is at {at}, and not yet at {lsn}")

    await until(reached, seconds)


async def drop(connection: asyncpg.Connection | asyncpg.Pool, name: str) -> None:
    """Remove slot and publication of a connector that has ended. A slot that stays keeps the WAL for ever."""
    await connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", name)
    await connection.execute(f'DROP PUBLICATION IF EXISTS "{name}_publication"')


_REACHED = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1"
_WRITTEN = "SELECT pg_logical_emit_message(true, $1, '')::text"
