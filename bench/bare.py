"""The peer of freshness.py: a consumer of the same topics that does nothing but note when each record came. In a process of its own."""

import time
from multiprocessing.connection import Connection

import uvloop

from bench.contender import Task, open_consumer
from projectors.log import WAIT_MS
from schema.definition import read_definition
from schema.user import UserView

READY = "ready"
LONGEST_SECONDS = 600


def note(task: Task, topic: str, pipe: Connection) -> None:
    """Send READY, then, when all `task.events` records of one topic have come, by key: when (`time.monotonic`, the machine's)."""
    uvloop.run(_note(task, topic, pipe))


async def _note(task: Task, topic: str, pipe: Connection) -> None:
    consumer = open_consumer(task, "latest")
    consumer.subscribe(list(read_definition(UserView, task.topic_prefix).topics))
    await consumer.start()
    came: dict[bytes, float] = {}
    try:
        await consumer.seek_to_end()
        for partition in consumer.assignment():
            await consumer.position(partition)
        pipe.send(READY)
        until = time.monotonic() + LONGEST_SECONDS
        while len(came) < task.events and time.monotonic() < until:
            fetched = await consumer.getmany(timeout_ms=WAIT_MS)
            now = time.monotonic()
            for partition, records in fetched.items():
                if partition.topic == topic:
                    came |= dict.fromkeys((record.key for record in records), now)
    finally:
        pipe.send(came)
        await consumer.stop()
