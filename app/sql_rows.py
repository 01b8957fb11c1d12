"""How rows from SQL go together with the log: by offsets that a sink keeps, or transactions that a connector tells. Reads no rows."""

from collections.abc import Mapping

import asyncpg

from app.feeds import open_consumer, rows_source
from app.settings import Settings
from projectors.captured import NotCaptured, Told, last_transactions, slot_of
from projectors.log import end
from projectors.records.transaction import Transaction
from projectors.rows_at import RowsSource
from projectors.topic_reader import KafkaReader
from schema import sql
from schema.definition import Definition


async def source_of(settings: Settings, definition: Definition, pool: asyncpg.Pool, slot: str | None, told: Told) -> RowsSource:
    """Ask both sides. slot: the name that was given. Raises NotCaptured, KafkaError, asyncpg's errors."""
    has_offsets = await _has_offsets(pool, definition)
    topics = await _topics(settings, definition)
    captured = sorted(topic for topic, one in topics.items() if one is not None)
    if has_offsets and (captured or slot):
        raise NotCaptured(
            f"table {sql.POSITIONS} has offsets of the view's topics, as a sink writes them, and "
            + (f"topic {captured[0]} has changes that a connector captured" if captured else f"slot {slot} was named")
            + f": only one of them can be right. If no sink writes these tables any more, delete its offsets from {sql.POSITIONS}."
        )
    if not (captured or slot) and (has_offsets or topics):
        return rows_source(settings, definition, pool, "", told)
    if untold := sorted(topics.keys() - set(captured)):
        raise NotCaptured(
            f"records of topic {', '.join(untold)} do not tell which transaction wrote them (source.txId and source.sequence), as those of "
            "Debezium's connector for PostgreSQL do: build the view from the log, `viewgate rebuild`."
        )
    await _check_database(pool, topics)
    return rows_source(settings, definition, pool, await slot_of(pool, slot), told)


async def _has_offsets(pool: asyncpg.Pool, definition: Definition) -> bool:
    if await pool.fetchval("SELECT to_regclass($1)", sql.POSITIONS) is None:
        return False
    return bool(await pool.fetch(sql.positions(), list(definition.topics)))


async def _topics(settings: Settings, definition: Definition) -> Mapping[str, Transaction | None]:
    consumer = open_consumer(settings, None)
    await consumer.start()
    try:
        return await last_transactions(KafkaReader(consumer, definition.topics), definition.topics)
    finally:
        await end(consumer.stop())


async def _check_database(pool: asyncpg.Pool, topics: Mapping[str, Transaction | None]) -> None:
    ours = await pool.fetchval("SELECT current_database()")
    for topic, one in topics.items():
        if one is not None and one.database not in {None, ours}:
            raise NotCaptured(
                f"topic {topic} has changes of database {one.database}, and VIEWGATE_POSTGRES_URL names database {ours}: they must be one."
            )
