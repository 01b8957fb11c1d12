"""Records that are no change: kept as they were in a topic of their own, with where they lay and why."""

from typing import Protocol

from aiokafka import AIOKafkaProducer

from projectors.log import Record
from schema.positions import Partition


class DeadLetters(Protocol):
    async def bury(self, partition: Partition, record: Record, reason: str) -> None:
        """Return once it is kept. A record that is read again is buried again, under the same position."""
        ...


class DeadLetterTopic:
    """Key, value and headers as they were; `viewgate-position` (topic:partition:offset) and `viewgate-reason` beside them."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer, self.topic = producer, topic

    async def bury(self, partition: Partition, record: Record, reason: str) -> None:
        own = [("viewgate-position", f"{partition}:{record.offset}".encode()), ("viewgate-reason", reason.encode())]
        await self._producer.send_and_wait(self.topic, value=record.value, key=record.key, headers=[*record.headers, *own])
