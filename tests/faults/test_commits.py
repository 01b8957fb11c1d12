"""The offsets that are committed for lag tools: whatever becomes of them, the projector goes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError
from aiokafka.util import commit_structure_validate

from projectors.log import KafkaLog
from schema.positions import Partition

OURS, THEIRS = Partition("users", 0), Partition("users", 1)


@dataclass(slots=True)
class Consumer:
    """aiokafka's, as far as a commit goes."""

    committed: list[Mapping[TopicPartition, int]] = field(default_factory=list)
    fails: bool = False

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(*OURS)}

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        commit_structure_validate(offsets)
        if self.fails:
            raise CommitFailedError
        self.committed.append(offsets)


async def test_only_what_is_ours_is_committed_and_nothing_at_all_is_no_error() -> None:
    consumer = Consumer()
    log = KafkaLog(consumer)
    await log.commit({OURS: 5, THEIRS: 7})
    await log.commit({THEIRS: 8})
    await log.commit({})
    assert consumer.committed == [{TopicPartition(*OURS): 5}]


async def test_a_commit_that_fails_is_passed_over() -> None:
    consumer = Consumer(fails=True)
    await KafkaLog(consumer).commit({OURS: 5})
    assert consumer.committed == []
