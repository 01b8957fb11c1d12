"""Dead letters of one view opened, and their rows put right in every generation that is kept. Decides nothing of what is right."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from app.auditing import Audited
from app.clients import Clients
from app.feeds import open_consumer
from app.settings import Settings
from app.topics import dead_letters
from projectors.apply import ShardFailed
from projectors.audit import Mismatch
from projectors.captured import NotCaptured
from projectors.dead_letters import mark_replayed
from projectors.generations import FED, Generations
from projectors.letters import Letter, Share, Today, read_letters, record_at, share_of
from projectors.log import Record, end
from projectors.repair import LogBase, RepairStuck
from projectors.replay import ReplayImpossible
from projectors.rows_at import NoOffsets
from projectors.topic_reader import KafkaReader
from schema.definition import Definition
from schema.generation import Generation


@dataclass(frozen=True, slots=True)
class Opened:
    """The letters of one view, the one that was buried last at the end."""

    settings: Settings
    definition: Definition
    letters: Sequence[Letter]
    _consumer: AIOKafkaConsumer

    async def record(self, letter: Letter) -> Record | None:
        """The letter itself, None if it has expired meanwhile."""
        return await record_at(KafkaReader(self._consumer, [letter.place[0].topic]), letter.place)

    async def whole(self, letters: Sequence[Letter]) -> Sequence[Letter]:
        """Those that were cut, as the record says that lies where it lay, if it still does."""
        today, reader = Today(self.definition), KafkaReader(self._consumer, self.definition.topics)
        return [await _whole(today, reader, letter) if letter.is_cut else letter for letter in letters]

    async def mark(self, letters: Sequence[Letter], generations: Sequence[str]) -> None:
        """As replayed. Raises KafkaError."""
        producer = AIOKafkaProducer(bootstrap_servers=self.settings.kafka_bootstrap, enable_idempotence=True)
        await producer.start()
        try:
            places = {(letter.place[0], letter.position): None for letter in letters}
            await mark_replayed(producer, places, generations)
        finally:
            await end(producer.stop())


async def _whole(today: Today, reader: KafkaReader, letter: Letter) -> Letter:
    record = await record_at(reader, letter.lay)
    return letter if record is None else today.read(letter, record)


@asynccontextmanager
async def open_letters(settings: Settings, definition: Definition) -> AsyncIterator[Opened]:
    """All of them, read once. Raises KafkaError."""
    topic = dead_letters(settings, definition)
    admin, consumer = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap), open_consumer(settings, None)
    try:
        await admin.start()
        await consumer.start()
        # asked for by its name, a topic that is missing might be made
        is_there = topic in await admin.list_topics()
        letters = await read_letters(KafkaReader(consumer, [topic]), Today(definition)) if is_there else ()
        yield Opened(settings, definition, letters, consumer)
    finally:
        await admin.close()
        await end(consumer.stop())


@dataclass(slots=True)
class Outcome:
    """Of one generation. mended: what differed, and is as it must be now. trouble: why not all could be put right, "" if all was."""

    record: Generation
    share: Share
    mended: Sequence[Mismatch] = field(default_factory=list)
    trouble: str = ""


async def kept(clients: Clients, definition: Definition) -> Sequence[Generation]:
    """The generations that projectors of this definition write. Raises StoreUnavailable."""
    records = await Generations(clients.redis, definition).all()
    return [record for record in records if record.state in FED and record.definition == definition.fingerprint]


async def replay(found: Audited, letters: Sequence[Letter], told: Callable[[int], None], *, by_sql: bool) -> Outcome:
    """Put right, in one generation, every row that these letters touch. They must decode.

    May be broken off and done again at any time: each shard is one compare-and-set at the watermarks that it has. by_sql: from rows of
    SQL, not from where the generation began. told: how many records of the log were just read.
    Raises StoreUnavailable, KafkaError, asyncpg's errors.
    """
    outcome = Outcome(found.record, share_of(found.record, letters))
    if not outcome.share.ids:
        return outcome
    base = found.sql_base() if by_sql else LogBase(found.record)
    try:
        async with found.tail() as tail:
            repair = found.repair(base, tail, told)
            outcome.mended = repair.mended
            await repair.run(outcome.share.ids)
    except (NoOffsets, NotCaptured, RepairStuck, ReplayImpossible, ShardFailed) as trouble:
        outcome.trouble = str(trouble)
    return outcome
