"""`python -m tests.faults.crashing_stage POINT N`: the projector as it is, but it kills itself where a stage comes to POINT the N-th time.

fetched   a batch in hand, nothing written        half       half of its changes sent
sent      all of them with Kafka, not committed   committed  in the rows topic, nothing done about it
taken     a stage has begun, and read nothing     never      lives until somebody else kills it

ROWS_GROUP in the environment: the group of its stages, for Kafka would wait for the member that died before it.
"""

import os
import signal
import sys
from collections.abc import Sequence
from unittest.mock import patch

from aiokafka import AIOKafkaProducer

from app import stages
from app.commands import project
from projectors.log import Batch
from projectors.rows import Written
from projectors.stage import KafkaJournal, Stage

POINT, TIMES = sys.argv[1], int(sys.argv[2])
left = TIMES


def at(point: str) -> None:
    global left  # noqa: PLW0603  # one process, one death
    left -= point == POINT
    if point == POINT and left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)


class Producer(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka's classes are untyped
    async def commit_transaction(self) -> None:
        at("sent")
        await super().commit_transaction()
        at("committed")


class Journal(KafkaJournal):
    async def write(self, records: Sequence[Written]) -> None:
        if POINT == "half" and len(records) > 1:
            await self._producer.begin_transaction()
            to, number = self._partition
            for record in records[: len(records) // 2]:
                await self._producer.send_and_wait(to, record.value, record.key, partition=number, headers=record.headers)
            at("half")
        await super().write(records)


class Crashing(Stage):
    async def begin(self, topic_id: str) -> None:
        await super().begin(topic_id)
        at("taken")

    async def take(self, batch: Batch) -> None:
        if batch.records:
            at("fetched")
        await super().take(batch)


def main() -> None:
    with (
        patch.object(stages, "KafkaJournal", Journal),
        patch.object(stages, "AIOKafkaProducer", Producer),
        patch.object(stages, "Stage", Crashing),
        patch.object(stages.RowTopics, "group", os.environ["ROWS_GROUP"]),
    ):
        project.project()


if __name__ == "__main__":
    main()
