"""Reads a changelog topic to its end: the newest value of each key, where a peer keeps its counts durably. Times nothing."""

from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition


async def newest(bootstrap: str, topic: str) -> Mapping[bytes, bytes]:
    """Of what is committed."""
    found: dict[bytes, bytes] = {}
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends: Mapping[TopicPartition, int] = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found |= {record.key: record.value for record in records}
        return found
    finally:
        await consumer.stop()
