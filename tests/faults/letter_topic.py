"""A dead-letter topic in memory: what a producer, and a reader of it, need of one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from projectors.dead_letters import Headers
from projectors.log import Record
from projectors.topic_reader import Bounds
from schema.positions import Partition
from tests.faults.memory import Stored

PARTITION = Partition("letters", 0)


@dataclass(slots=True)
class LetterTopic:
    """Of one partition. Each record's time is its offset."""

    partition: Partition = PARTITION
    stored: list[Stored] = field(default_factory=list)

    async def send_and_wait(self, topic: str, value: bytes | None, key: bytes | None, headers: Headers) -> None:
        assert value is not None or key is not None, "aiokafka sends nothing that has neither"
        self.stored.append(Stored(len(self.stored), len(self.stored), key, value, headers))

    async def send(self, topic: str, value: bytes, partition: int, headers: Headers) -> "asyncio.Future[None]":
        await self.send_and_wait(topic, value, None, headers)
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        arrived.set_result(None)
        return arrived

    async def bounds(self) -> Bounds:
        return {self.partition: (0, len(self.stored))}

    async def records(self, partition: Partition, start: int, end: int) -> AsyncIterator[Record]:
        some: Sequence[Record] = self.stored[start:end]
        for record in some:
            yield record
