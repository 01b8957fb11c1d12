"""All records of a view's topics, as often as they are asked for, by nobody's group."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from projectors.log import Record
from schema.positions import Partition

WAIT_MS = 500
Bounds = Mapping[Partition, tuple[int, int]]


class Reader(Protocol):
    """All records of all partitions of a view's topics, as often as they are asked for."""

    async def bounds(self) -> Bounds:
        """First offset and end offset of each partition."""
        ...

    def records(self, partition: Partition, start: int, end: int) -> AsyncIterator[Record]:
        """Those from offset `start` up to, not including, `end`."""
        ...


class KafkaReader:
    """The topics as they are in Kafka. consumer: started, in no group, with isolation level read_committed; it is this reader's alone."""

    def __init__(self, consumer: AIOKafkaConsumer, topics: Iterable[str]) -> None:
        self._consumer, self._topics = consumer, list(topics)

    async def bounds(self) -> Bounds:
        await self._consumer._client.set_topics(self._topics)  # aiokafka shows no other way without a subscription
        at = [TopicPartition(topic, number) for topic in self._topics for number in self._consumer.partitions_for_topic(topic) or ()]
        first, end = await self._consumer.beginning_offsets(at), await self._consumer.end_offsets(at)
        return {Partition(*p): (first[p], end[p]) for p in at}

    async def records(self, partition: Partition, start: int, end: int) -> AsyncIterator[Record]:
        at = TopicPartition(*partition)
        if start == end:
            return  # aiokafka's fetcher hangs where it is assigned and at once stopped
        self._consumer.assign([at])
        self._consumer.seek(at, start)
        # the position passes gaps and the ends of transactions too, which no record tells of
        while await self._consumer.position(at) < end:
            fetched = await self._consumer.getmany(at, timeout_ms=WAIT_MS)
            for record in fetched.get(at, ()):
                if record.offset < end:
                    yield record
