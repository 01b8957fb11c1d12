"""What the log takes at a time of what aiokafka has at hand: in pieces, between which others run, and nothing of it is lost."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka import TopicPartition

from projectors.log import PIECE, PORTION, KafkaLog

ONE, OTHER = TopicPartition("people", 0), TopicPartition("people", 1)


@dataclass(slots=True)
class Consumer:
    """aiokafka's, with numbers for records. rebalances: after how many questions the group does."""

    held: dict[TopicPartition, list[int]]
    rebalances: int = 1_000
    asked: list[tuple[int, int]] = field(default_factory=list)

    async def getmany(self, timeout_ms: int, max_records: int) -> Mapping[TopicPartition, list[int]]:
        self.asked.append((timeout_ms, max_records))
        if len(self.asked) > self.rebalances:
            await asyncio.Event().wait()
        found = {}
        for at, records in self.held.items():
            if records and max_records:
                found[at], self.held[at] = records[:max_records], records[max_records:]
                max_records -= len(found[at])
        return found


async def portion(consumer: Consumer) -> Mapping[Any, Any]:
    return await KafkaLog(consumer)._portion()


async def test_a_portion_is_what_there_is_in_its_order_and_only_the_first_piece_is_waited_for() -> None:
    consumer = Consumer({ONE: list(range(PIECE + 10)), OTHER: list(range(PIECE))})
    assert await portion(consumer) == {ONE: list(range(PIECE + 10)), OTHER: list(range(PIECE))}
    assert [timeout > 0 for timeout, _ in consumer.asked] == [True, False, False]


async def test_no_more_than_a_portion_is_taken() -> None:
    consumer = Consumer({ONE: list(range(PORTION - 5)), OTHER: list(range(20))})
    assert await portion(consumer) == {ONE: list(range(PORTION - 5)), OTHER: list(range(5))}
    assert await portion(consumer) == {OTHER: list(range(5, 20))}


async def test_others_run_between_two_pieces() -> None:
    consumer = Consumer({ONE: list(range(PORTION))})
    seen: list[int] = []

    async def look() -> None:
        while len(consumer.asked) < PORTION // PIECE:
            seen.append(len(consumer.asked))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    await portion(consumer)
    await looking
    assert set(range(1, PORTION // PIECE)) <= set(seen)


async def test_a_rebalance_under_way_leaves_what_was_taken_before_it() -> None:
    consumer = Consumer({ONE: list(range(PORTION))}, rebalances=2)
    assert await portion(consumer) == {ONE: list(range(2 * PIECE))}
    with pytest.raises(TimeoutError):
        await portion(consumer)


async def test_partitions_that_must_be_let_go_are_not_asked_for_more() -> None:
    consumer = Consumer({ONE: list(range(PORTION))})
    log = KafkaLog(consumer)
    taking = asyncio.create_task(log._portion())
    await asyncio.sleep(0)
    revoking = asyncio.create_task(log.on_partitions_revoked([ONE]))
    taken = await taking
    assert 0 < len(taken[ONE]) < PORTION
    log._let_go.set()
    await revoking
