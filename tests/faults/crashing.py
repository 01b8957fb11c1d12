"""`python -m tests.faults.crashing POINT N`: the projector as it is, but it kills itself at a named point, the N-th time it comes there.

half      of a batch's calls sent, the rest not             checkpoint  a batch applied, its checkpoint not begun
answer    all calls of a batch sent, no answer acted upon    commit      a checkpoint written, nothing told to Kafka
headers   half of the headers of a new generation written    promote     half of the headers promoted
pointer   headers promoted, record and pointer not           never       lives until somebody else kills it

SESSION_MS in the environment: how long Kafka waits for a member that has gone silent. DROPPED: a file to which the number of
duplicates is appended each time some are dropped, for the metrics of one that was killed cannot be asked. LATE: it is frozen at its
point in place of killed, and once woken writes there how many of the calls that it sends late were refused, and how many it sends.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

from aiokafka import AIOKafkaConsumer

from app import feeds, worker
from app.commands import project
from app.telemetry import ProjectorMetrics
from projectors.apply import Applied, Header, RedisStore, Reply
from projectors.calls import Call
from projectors.log import KafkaLog
from schema.positions import Partition


class Death:
    """Comes when its point is reached for the last of so many times."""

    def __init__(self, point: str, times: int) -> None:
        self._point, self._left = point, times

    def at(self, point: str) -> bool:
        """Whether this is the point, this time."""
        self._left -= point == self._point
        return point == self._point and self._left == 0

    def come(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP if "LATE" in os.environ else signal.SIGKILL)

    def come_at(self, point: str) -> None:
        if self.at(point):
            self.come()


death = Death(sys.argv[1], int(sys.argv[2])) if __name__ == "__main__" else Death("never", 1)


class Store(RedisStore):
    applied = False

    async def apply(self, calls: Sequence[Call]) -> Sequence[Reply]:
        if not any(call.keys for call in calls):
            if Store.applied:
                death.come_at("checkpoint")
            return await super().apply(calls)
        half = len(calls) > 1 and death.at("half")
        if half:
            first, rest = calls[: len(calls) // 2], calls[len(calls) // 2 :]
            replies = await super().apply(first)
            death.come()
            replies = [*replies, *(late := await super().apply(rest))]
            _tell(f"{sum(not isinstance(reply, Applied) for reply in late)} {len(late)}")
        else:
            replies = await super().apply(calls)
        death.come_at("answer")
        Store.applied = True
        return replies

    async def open(self, headers: Mapping[int, Header]) -> None:
        half = death.at("headers")
        await super().open(dict(list(headers.items())[: len(headers) // 2]) if half else headers)
        if half:
            death.come()

    async def finish(self, builds: Mapping[int, str]) -> None:
        half = death.at("promote")
        await super().finish(dict(list(builds.items())[: len(builds) // 2]) if half else builds)
        if half:
            death.come()
        death.come_at("pointer")


def _tell(words: str) -> None:
    Path(os.environ["LATE"]).write_text(words)


class Log(KafkaLog):
    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        if Store.applied:
            death.come_at("commit")
        await super().commit(offsets)


class Metrics(ProjectorMetrics):
    def duplicates(self, changes: int) -> None:
        super().duplicates(changes)
        if changes and "DROPPED" in os.environ:
            with Path(os.environ["DROPPED"]).open("a") as dropped:
                dropped.write(f"{changes}\n")


def main() -> None:
    session = int(os.environ.get("SESSION_MS", "10000"))
    consumer = partial(AIOKafkaConsumer, session_timeout_ms=session, heartbeat_interval_ms=session // 6)
    with (
        patch.object(worker, "RedisStore", Store),
        patch.object(feeds, "RedisStore", Store),
        patch.object(feeds, "KafkaLog", Log),
        patch.object(feeds, "AIOKafkaConsumer", consumer),
        patch.object(project, "ProjectorMetrics", Metrics),
    ):
        project.project()


if __name__ == "__main__":
    main()
