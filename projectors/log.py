"""The log that changes come from: what the projector asks of one, and Kafka as one. Decides nothing about positions."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError

from projectors.connections import steadied
from projectors.topic_ids import Topic, Watch, topic_ids
from schema.positions import Partition

WAIT_MS = 100
# the most records of a fetch, of what aiokafka has at hand, and of how many of them it makes objects before anything else can run
PORTION, PIECE = 32_768, 4_096
ANEW = "Run `viewgate rebuild --from sql`, or fill the topics again from the source and run `viewgate rebuild`."
# of Kafka's protocol
FETCH = 1
# aiokafka's wait goes on while the group rebalances, and the group waits for our `on_partitions_revoked`
LONGEST_WAIT_SECONDS = 0.2
LET_GO_SECONDS = 10.0
# while Kafka is away aiokafka tries for ever to commit, and for long to say goodbye; a projector that is told to end must end
COMMIT_SECONDS, STOP_SECONDS = 1.0, 5.0
log = structlog.stdlib.get_logger()


class Record(Protocol):
    """A record as it lay in the log. value: None for a tombstone."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that one partition holds from `start` up to, not including, `end`; offsets may have gaps."""

    partition: Partition
    start: int
    end: int
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came by one fetch.

    assigned: to be taken by `seek`. revoked: to be let go by the next fetch. ends: of the partitions read, where known; asked_ms: when
    Kafka was asked for them (Unix ms), so whatever was acknowledged by then lies below them; where it is not told, by this fetch.
    topics: as they were found at or after that moment.
    """

    batches: Sequence[Batch] = ()
    assigned: Sequence[Partition] = ()
    revoked: Sequence[Partition] = ()
    ends: Mapping[Partition, int] = field(default_factory=dict)
    asked_ms: Mapping[Partition, int] = field(default_factory=dict)
    topics: Mapping[str, Topic] = field(default_factory=dict)

    def has_more(self, next_: Mapping[Partition, int]) -> bool:
        """Whether something came and the log has more than that. next_: where partitions are read that nothing came of."""
        reached = {batch.partition: batch.end for batch in self.batches}
        return bool(reached) and any(offset < self.ends.get(partition, 0) for partition, offset in {**next_, **reached}.items())


class RetentionPassed(Exception):
    """The log no longer has the position to go on from."""


class Log(Protocol):
    async def fetch(self) -> Fetched:
        """Wait a moment for more. A partition is read from where `seek` put it. Raises RetentionPassed."""
        ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Read this assigned partition from here; whatever was fetched of it before is forgotten."""
        ...

    async def bounds(self, partitions: Iterable[Partition]) -> Mapping[Partition, tuple[int, int]]:
        """First offset and end offset of each."""
        ...

    async def ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        """The broker's id of each topic, "" where it tells none."""
        ...

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """A hint for lag tools, never read again. Does not fail."""
        ...


class KafkaLog(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka's classes are untyped
    """The topics, as member of a consumer group. The consumer must not commit or reset offsets by itself."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        # by partition, when Kafka was asked last that has answered, and the end offset that it told
        self._told: dict[Partition, tuple[int, int]] = {}
        self._watch = Watch()
        self._starts: dict[Partition, int] = {}
        self._assigned: list[Partition] = []
        self._revoked: list[Partition] = []
        self._let_go = asyncio.Event()
        self._let_go.set()
        self._closing = False
        self._held_until = 0.0
        # the most records a second of all partitions together, while there is a limit
        self.limit: Callable[[], float | None] = lambda: None

    async def start(self, topics: Iterable[str]) -> None:
        self._consumer.subscribe(list(topics), listener=self)
        await self._start(topics)

    async def start_alone(self, topics: Iterable[str]) -> Sequence[Partition]:
        """All partitions that the topics have now, as member of no group; a topic that does not exist has none."""
        await self._start(topics)
        await self._consumer._client.set_topics(list(topics))  # aiokafka shows no other way without a subscription
        partitions = await self.partitions(topics)
        at = [TopicPartition(*partition) for partition in partitions]
        self._consumer.assign(at)
        await self.on_partitions_assigned(at)
        return partitions

    async def _start(self, topics: Iterable[str]) -> None:
        # aiokafka tells when an answer came, and not when it was asked for: behind a slow link, or while nobody answers, that is long ago
        client = self._consumer._client
        steadied(client)
        client.send = partial(self._send, client.send)
        self._watch.wanted = sorted(topics)
        await self._consumer.start()

    async def stop(self) -> None:
        self._closing = True
        self._watch.end()
        self._let_go.set()
        await end(self._consumer.stop())

    async def partitions(self, topics: Iterable[str]) -> Sequence[Partition]:
        """All partitions of the topics; a topic that does not exist has none."""
        await self._consumer._client.force_metadata_update()  # aiokafka shows no other way to what is new
        return [Partition(topic, number) for topic in topics for number in sorted(self._consumer.partitions_for_topic(topic) or ())]

    async def fetch(self) -> Fetched:
        if self._revoked or self._assigned:
            changed = Fetched(assigned=self._assigned, revoked=self._revoked)
            for partition in (*self._revoked, *self._assigned):
                self._starts.pop(partition, None)
            self._assigned, self._revoked = [], []
            return changed
        self._let_go.set()
        if (held := self._held_until - time.monotonic()) > 0:
            await asyncio.sleep(min(held, LONGEST_WAIT_SECONDS))
            return Fetched()
        if not await self._watch.look(self._consumer._client):
            # what would come might be of another topic of that name
            if self._watch.gone:
                raise RetentionPassed(f"Kafka no longer has topic {', '.join(self._watch.gone)}. {ANEW}")
            return Fetched()
        try:
            fetched = await self._portion()
        except TimeoutError:
            return Fetched()
        except OffsetOutOfRangeError as error:
            raise RetentionPassed(f"Kafka no longer has what comes next ({error}). {ANEW}") from error
        self._hold(sum(map(len, fetched.values())))
        batches = [await self._batch(partition, fetched) for partition in list(self._starts)]
        told = {partition: self._told[partition] for partition in self._starts if partition in self._told}
        return Fetched(
            batches=[batch for batch in batches if batch],
            ends={partition: end for partition, (_, end) in told.items()},
            asked_ms={partition: min(asked_ms, self._watch.looked_ms) for partition, (asked_ms, _) in told.items()},
            topics=self._watch.topics,
        )

    async def _portion(self) -> Mapping[TopicPartition, list[Record]]:
        """What there is, piece by piece, so that Redis is not kept waiting. Raises TimeoutError if it is not known what is ours."""
        fetched: dict[TopicPartition, list[Record]] = {}
        room, has_more = PORTION, True
        while room and has_more and not self._revoked:
            asked = min(PIECE, room)
            try:
                # nothing is lost by the time-out: records leave aiokafka's buffer after the last await
                async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                    piece = await self._consumer.getmany(timeout_ms=0 if fetched else WAIT_MS, max_records=asked)
            except TimeoutError:
                if not fetched:
                    raise
                break
            for at, records in piece.items():
                fetched.setdefault(at, []).extend(records)
            found = sum(map(len, piece.values()))
            room, has_more = room - found, found == asked
            await asyncio.sleep(0)
        return fetched

    async def _send(self, send: Callable[..., Awaitable[Any]], node_id: int, request: Any, **options: Any) -> Any:
        asked_ms = time.time_ns() // 1_000_000
        answer = await send(node_id, request, **options)
        if request.API_KEY == FETCH:
            for topic, partitions in answer.topics:
                for number, error, highwater, *more in partitions:
                    stable = more[0] if answer.API_VERSION >= 4 else -1
                    told = asked_ms, stable if stable >= 0 else highwater
                    if not error:
                        partition = Partition(topic, number)
                        # a broker that has lost the lead may answer late
                        self._told[partition] = max(told, self._told.get(partition, told))
        return answer

    def _hold(self, records: int) -> None:
        """Fetch no more until so many records may have come: this process has its partitions' share of the limit."""
        limit = self.limit()
        if limit is not None and records:
            topics = {partition.topic for partition in self._starts}
            partitions = sum(len(self._consumer.partitions_for_topic(topic) or ()) for topic in topics)
            self._held_until = time.monotonic() + records / limit * partitions / len(self._starts)

    async def _batch(self, partition: Partition, fetched: Mapping[TopicPartition, Sequence[Record]]) -> Batch | None:
        at = TopicPartition(*partition)
        try:
            # past gaps and transaction markers too, which no record tells of
            end = await self._consumer.position(at)
        except IllegalStateError:
            self._starts.pop(partition, None)
            return None
        start = self._starts.get(partition)
        if start is None or end <= start or partition in self._assigned:
            return None
        self._starts[partition] = end
        return Batch(partition, start, end, fetched.get(at, ()))

    def seek(self, partition: Partition, offset: int) -> None:
        at = TopicPartition(*partition)
        if at in self._consumer.assignment():
            self._consumer.seek(at, offset)
            self._consumer.resume(at)
            self._starts[partition] = offset

    async def bounds(self, partitions: Iterable[Partition]) -> Mapping[Partition, tuple[int, int]]:
        at = [TopicPartition(*partition) for partition in partitions]
        first, end = await asyncio.gather(self._consumer.beginning_offsets(at), self._consumer.end_offsets(at))
        return {Partition(*p): (first[p], end[p]) for p in at}

    async def ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        return await topic_ids(self._consumer._client, topics)  # aiokafka shows no other way to its connections

    async def committed(self, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        """Those of the group; partitions that have none are missing."""
        return {p: offset for p in partitions if (offset := await self._consumer.committed(TopicPartition(*p))) is not None}

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        mine = self._consumer.assignment()
        hints = {TopicPartition(*p): o for p, o in offsets.items() if TopicPartition(*p) in mine}
        if not hints:
            # which aiokafka calls an error: all partitions were lost at once, or have gone to others
            return
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._consumer.commit(hints)
        except (KafkaError, TimeoutError) as error:
            log.info("commit_skipped", error=repr(error))

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Waits until the projector has finished what it has of them: aiokafka rebalances only after this."""
        let_go = [Partition(*p) for p in revoked]
        if not let_go or self._closing:
            return
        self._revoked += let_go
        self._assigned = [p for p in self._assigned if p not in let_go]
        self._let_go.clear()
        try:
            await asyncio.wait_for(self._let_go.wait(), LET_GO_SECONDS)
        except TimeoutError:
            # the next owner's watermarks are compared with ours: nothing counts twice
            log.warning("partitions_not_let_go", partitions=[str(p) for p in let_go], seconds=LET_GO_SECONDS)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Paused until the projector knows from where. Put somewhere at once, else aiokafka would miss a committed offset."""
        for at in assigned:
            self._consumer.seek(at, 0)
        self._consumer.pause(*assigned)
        self._assigned += [Partition(*p) for p in assigned]


async def end(stopping: Coroutine[Any, Any, None]) -> None:
    """Run the `stop` of one of aiokafka's clients, for as long as Kafka may take. Does not fail."""
    # a task of its own: a consumer's stop ends as cancelled when it has cancelled a fetch
    task = asyncio.ensure_future(stopping)
    _, late = await asyncio.wait({task}, timeout=STOP_SECONDS)
    if late or (not task.cancelled() and task.exception()):
        log.warning("kafka_not_told_of_the_end", seconds=STOP_SECONDS)
    task.cancel()
