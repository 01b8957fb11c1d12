"""Quix Streams: peers/quix_app.py, one process, the counts in RocksDB and a changelog topic."""

import msgspec

from bench.changelog import newest
from bench.contender import Task
from bench.events import Counts
from bench.peers import environment, program
from bench.stopwatch import Run
from demo.servers.server import Say
from schema.user import Follows

_COUNTS = msgspec.json.Decoder(tuple[int, int])


class Quix:
    """Reads, repartitions by user, counts, commits a checkpoint each 5 s."""

    promise = "exactly once (a transaction each 5 s); in RocksDB and a changelog topic, where nobody else reads them"

    async def prepare(self, say: Say) -> None:
        await environment.prepare("quixstreams", say)

    def measure(self, task: Task) -> Run:
        topic = task.topic_prefix + Follows.source.topic
        arguments = task.kafka, topic, task.group, str(task.home / "state"), str(task.events)
        return program.run(environment.command("bench.peers.quix_app", *arguments))

    async def stored(self, task: Task) -> Counts:
        topic = task.topic_prefix + Follows.source.topic
        found = await newest(task.kafka, f"changelog__{task.group}--repartition.{topic}.user--default")
        # a key is the user, a bar, and the name of the state
        counts = {int(key.partition(b"|")[0]): _COUNTS.decode(value) for key, value in found.items()}
        return {user: pair for user, pair in counts.items() if pair != (0, 0)}
