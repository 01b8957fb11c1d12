"""Bytewax: peers/bytewax_flow.py, one worker. In memory, as it runs when nothing is said, and with its recovery store."""

from typing import Literal

from bench.contender import Task
from bench.events import Counts
from bench.peers import environment, program
from bench.stopwatch import Run
from demo.servers.server import Say
from schema.user import Follows

Keeping = Literal["memory", "recovery"]
_PROMISES = {
    "memory": "no promise, it does less: its counts are in memory alone and lost with the process; told once, after it was timed",
    "recovery": "counts exactly once, tells at least once; in memory, each 10 s in SQLite; told once, at the end",
}


class Bytewax:
    """Reads, exchanges by user, counts."""

    def __init__(self, keeping: Keeping) -> None:
        self._keeping: Keeping = keeping
        self.promise = _PROMISES[keeping]

    async def prepare(self, say: Say) -> None:
        await environment.prepare("bytewax", say)

    def measure(self, task: Task) -> Run:
        topic = task.topic_prefix + Follows.source.topic
        arguments = task.kafka, topic, str(task.home), str(task.events), self._keeping
        return program.run(environment.command("bench.peers.bytewax_flow", *arguments))

    async def stored(self, task: Task) -> Counts:
        lines = (task.home / "counts").read_text().splitlines()
        found = {user: (following, followers) for user, following, followers in (map(int, line.split()) for line in lines)}
        return {user: pair for user, pair in found.items() if pair != (0, 0)}
