"""The production loop in two processes: one consumer group, each with half of the partitions. Begun when each has its half."""

import asyncio
from dataclasses import dataclass
from multiprocessing import Queue, get_context
from multiprocessing.sharedctypes import Synchronized, SynchronizedArray
from typing import Any

import uvloop

from bench.contender import Task, open_consumer
from bench.ours import Ours, Unfailing, keep
from bench.stopwatch import Run, now, peak_mb
from projectors.log import Fetched, KafkaLog
from schema.positions import Partition

PROCESSES = 2
LONGEST_SECONDS = 600


@dataclass(frozen=True, slots=True)
class _Part:
    """What one process did. Moments: see `now`."""

    began: float
    ended: float
    cpu_seconds: float
    peak_mb: int
    fetches: int


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the processes know of one another. held: how many partitions each has. applied: events, of both."""

    held: "SynchronizedArray[int]"
    applied: "Synchronized[int]"
    parts: "Queue[_Part]"


class Pair(Ours):
    """Exactly once into the view, twice."""

    promise = "exactly once; in Redis, one hash per user; by two processes, each with half of the partitions"

    def measure(self, task: Task) -> Run:
        context = get_context("spawn")
        shared = _Shared(context.Array("q", PROCESSES), context.Value("q", 0), context.Queue())
        processes = [context.Process(target=_measure_part, args=(task, number, shared)) for number in range(PROCESSES)]
        for process in processes:
            process.start()
        try:
            parts = [shared.parts.get(timeout=LONGEST_SECONDS) for _ in processes]
        finally:
            for process in processes:
                process.join(10)
                process.kill()
        return Run(
            max(part.ended for part in parts) - min(part.began for part in parts),
            sum(part.cpu_seconds for part in parts),
            sum(part.peak_mb for part in parts),
            sum(part.fetches for part in parts),
        )


class _HalfOfTheLog(KafkaLog):
    """Hands over no partition before each process has as many as the others."""

    def __init__(self, task: Task, number: int, held: "SynchronizedArray[int]") -> None:
        super().__init__(open_consumer(task, "none"))
        self._number, self._held = number, held
        self._mine: set[Partition] = set()
        self._begun = False
        self.fetches = 0
        self.began: tuple[float, float] | None = None

    async def fetch(self) -> Fetched:
        fetched = await super().fetch()
        if self._begun:
            if fetched.batches:
                self.began = self.began or now()
                self.fetches += 1
            return fetched
        self._mine = (self._mine - {*fetched.revoked}) | {*fetched.assigned}
        self._held[self._number] = len(self._mine)
        self._begun = self._mine != set() and set(self._held[:]) == {len(self._mine)}
        return Fetched(assigned=sorted(self._mine)) if self._begun else Fetched()


class _Ending(Unfailing):
    """Adds what is applied here to what is applied by all."""

    def __init__(self, applied: "Synchronized[int]") -> None:
        self._applied = applied
        self.ended: tuple[float, float] | None = None

    def applied(self, changes: int) -> None:
        if changes:
            with self._applied.get_lock():
                self._applied.value += changes
            self.ended = now()


def _measure_part(task: Task, number: int, shared: _Shared) -> None:
    uvloop.run(_project_part(task, number, shared))


async def _project_part(task: Task, number: int, shared: _Shared) -> None:
    log, ending, stop = _HalfOfTheLog(task, number, shared.held), _Ending(shared.applied), asyncio.Event()
    watching = asyncio.create_task(_stop_at_the_end(task, shared.applied, stop))
    await keep(task, log, ending, stop)
    await watching
    if log.began is None or ending.ended is None:
        raise RuntimeError("a process had nothing to do")
    wall, cpu = (end - start for start, end in zip(log.began, ending.ended, strict=True))
    shared.parts.put(_Part(log.began[0], log.began[0] + wall, cpu, peak_mb(), log.fetches))


async def _stop_at_the_end(task: Task, applied: Any, stop: asyncio.Event) -> None:
    while applied.value < task.events:  # noqa: ASYNC110 - the other process tells of it too
        await asyncio.sleep(0.01)
    stop.set()
