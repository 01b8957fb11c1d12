"""Records written to Kafka in one transaction: all of them or none. Says nothing of what they are."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaProducer

from schema.positions import Partition


class Outgoing(NamedTuple):
    to: Partition
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


async def write_together(producer: AIOKafkaProducer, records: Iterable[Outgoing]) -> None:
    """producer: started, transactional, nobody else's; when it started Kafka shut out the one before. Raises KafkaError."""
    await producer.begin_transaction()
    sent = [await producer.send(r.to.topic, r.value, r.key, partition=r.to.number, headers=r.headers) for r in records]
    await asyncio.wait(sent)
    # aiokafka commits also without a record that failed
    failed = [error for future in sent if (error := future.exception())]
    if failed:
        _forget_transaction(producer)
        raise failed[0]
    await producer.commit_transaction()


def _forget_transaction(producer: AIOKafkaProducer) -> None:
    """Its end has failed too, which nobody awaits: asyncio would log that."""
    waiting = producer._txn_manager.wait_for_transaction_end()
    if waiting.done():
        waiting.exception()
