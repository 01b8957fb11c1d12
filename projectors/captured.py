"""The rows of a database whose changes Debezium captures, all of one moment, and which of its transactions they have. Reads only.

What is below the offsets that were noted before has ended by the moment of the rows; of what comes after them the rows have what they
have seen. The order of the steps is what makes that so: tests/message/test_captured.py breaks each of them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from projectors.clock import Clock, SystemClock
from projectors.records.transaction import Transaction, transaction
from projectors.rows_at import Connection, RowsAt
from projectors.topic_reader import Reader
from schema.definition import Definition
from schema.positions import Partition
from schema.seen import Seen

LOOK_SECONDS = 0.1
# a wait that lasts is told, and again each so many seconds
TOLD_AFTER_SECONDS, TOLD_EACH_SECONDS = 2.0, 10.0
# how many of the last offsets of a partition are looked at: most of what is no change is the end of one of Kafka's transactions
LAST = 20
Ends = Mapping[Partition, int]
# a sentence, and seconds
Told = Callable[[str, float], None]


class NotCaptured(Exception):
    """Rows from SQL and changes from the log cannot be told apart; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class CapturedRows:
    """pool: of the primary. slot: of the connector. ends: asks for Kafka's end offsets. told: what is waited for, and how long already.

    What `told` raises ends the wait.
    """

    pool: asyncpg.Pool
    definition: Definition
    slot: str
    ends: Callable[[], Awaitable[Ends]]
    told: Told
    clock: Clock = field(default_factory=SystemClock)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[RowsAt]:
        """One snapshot of the database, as long as the context lasts; `offsets` are where the log goes on. Raises NotCaptured."""
        async with self.pool.acquire() as connection:
            await check_primary(connection)
            offsets = await self.ends()
            await self._all_ended(connection, str(await connection.fetchval(_NEW_ID)))
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                snapshot = str(await connection.fetchval("SELECT pg_current_snapshot()::text"))
                lsn = int(await connection.fetchval(_LSN))
                yield RowsAt(connection, self.definition, offsets, Seen.of(lsn, snapshot))

    async def level(self, rows: RowsAt) -> Ends:
        """Wait until the log has all that the rows have, and return its ends. Raises NotCaptured where the slot is lost."""
        lsn = 0 if rows.seen is None else rows.seen.lsn

        async def published() -> str | None:
            found = await self.pool.fetchrow(_CONFIRMED, self.slot)
            if found is None or found["lost"]:
                raise NotCaptured(f"{_lost(self.slot)} Make the connector again, and then: `viewgate rebuild --from snapshot`.")
            if (found["lsn"] or 0) >= lsn:
                return None
            ends = "no connector reads from it: start it" if not found["active"] else "it needs heartbeats, see docs/publishing.md"
            return f"the connector of slot {self.slot} to be {lsn - (found['lsn'] or 0):,} bytes of WAL further; {ends}"

        await self._until(published)
        return await self.ends()

    async def _all_ended(self, connection: Connection, own: str) -> None:
        """All transactions that have begun to write before the own one."""

        async def ended() -> str | None:
            if await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot()) > $1::text::xid8", own):
                return None
            found = [str(text) for (text,) in await connection.fetch(_OLDER, own)]
            return f"transactions that began before: {', '.join(found) or 'they are about to end'}"

        await self._until(ended)

    async def _until(self, awaited: Callable[[], Awaitable[str | None]]) -> None:
        """Until it says None; else it says what is waited for."""
        since = self.clock.monotonic()
        tell_at = since + TOLD_AFTER_SECONDS
        while (what := await awaited()) is not None:
            if (now := self.clock.monotonic()) >= tell_at:
                self.told(f"Waiting for {what}.", now - since)
                tell_at = now + TOLD_EACH_SECONDS
            await self.clock.sleep(LOOK_SECONDS)


async def slot_of(pool: asyncpg.Pool, named: str | None) -> str:
    """The connector's slot: the one of this name, or the only one of the database. Raises NotCaptured, asyncpg's errors."""
    async with pool.acquire() as connection:
        await check_primary(connection)
        found = [str(name) for (name,) in await connection.fetch(_SLOTS)]
    told = ", ".join(found)
    if named is not None and named not in found:
        raise NotCaptured(f"this database has no logical replication slot {named} (there is {told or 'none'}).")
    if not found:
        raise NotCaptured(
            "this database has no logical replication slot, so no connector captures its changes: see VIEWGATE_POSTGRES_URL, and that "
            "the connector was started."
        )
    if named is None and len(found) > 1:
        raise NotCaptured(f"this database has several logical replication slots, {told}: name the connector's by --slot.")
    return named or found[0]


async def check_primary(connection: Connection) -> None:
    """Raises NotCaptured on a standby: what is running there is not known, so a snapshot of it misses some of what was committed."""
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        raise NotCaptured(
            "this PostgreSQL is a standby, whose snapshots miss what was running on the primary: name the primary in VIEWGATE_POSTGRES_URL."
        )


async def last_transactions(reader: Reader, topics: Iterable[str]) -> Mapping[str, Transaction | None]:
    """Of each topic that has a record, which transaction wrote one of its last; None where it is not told. Raises KafkaError."""
    bounds, found = await reader.bounds(), dict[str, Transaction | None]()
    for partition, (first, end) in bounds.items():
        if partition.topic in topics and partition.topic not in found:
            async for record in reader.records(partition, max(first, end - LAST), end):
                # a tombstone tells nothing
                if record.value is not None:
                    found[partition.topic] = transaction(record)
    return found


def _lost(slot: str) -> str:
    return f"slot {slot} is gone, or PostgreSQL has removed WAL that it needed, so changes are missing from the log."


_NEW_ID = "SELECT pg_current_xact_id()::text"
_LSN = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"
_SLOTS = """
SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'logical' AND database = current_database() AND NOT temporary ORDER BY 1
"""
_CONFIRMED = """
SELECT (confirmed_flush_lsn - '0/0')::bigint AS lsn, active, coalesce(wal_status = 'lost', false) AS lost
FROM pg_replication_slots WHERE slot_name = $1
"""
# the older an id is, the greater its age. Transactions of other databases count too: a snapshot does not tell them apart
_OLDER = """
SELECT format('process %s (%s, %s, since %s)', pid, coalesce(nullif(application_name, ''), backend_type), coalesce(state, '?'),
              coalesce(to_char(xact_start, 'HH24:MI:SS'), '?'))
FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND age(backend_xid) > age($1::text::xid8::xid)
UNION ALL
SELECT format('prepared transaction %L (since %s)', gid, to_char(prepared, 'YYYY-MM-DD HH24:MI:SS'))
FROM pg_prepared_xacts WHERE age(transaction) > age($1::text::xid8::xid)
"""
