"""One writer: a service in a process of its own, to be killed at any moment. Does the acts of its plan in one way, at a steady rate."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import msgspec
import uvloop

from app.stopping import told_to_stop
from demo.drift.board import Board
from demo.drift.plan import Act, owned, plan, size_of
from demo.drift.ways import WAYS, SingleWrite, Way
from demo.publish import Publisher
from demo.servers.process import until
from demo.sink import end_offsets, sunk
from schema.definition import read_definition
from schema.user import UserView

POLL_SECONDS = 0.001
SUNK_SECONDS = 60
# as many requests are served at once, over as many connections: what a kill can catch in the midst
AT_ONCE = 8


class Task(msgspec.Struct, frozen=True):
    """What a writer is told as its only argument.

    way: of WAYS. acts: of the whole plan; burst: of one burst. rate: acts a second. board: a file.
    """

    way: str
    writer: int
    users: int
    seed: int
    acts: int
    burst: int
    rate: float
    kafka: str
    prefix: str
    postgres: str
    board: str


class Writer:
    """Begins each act once, whatever became of it when the process before was killed: a client that got no answer does not ask again."""

    def __init__(self, acts: Sequence[Act], way: Way, board: Board, rate: float) -> None:
        self._acts, self._way, self._board, self._rate = acts, way, board, rate
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def run(self, stop: asyncio.Event) -> None:
        """As far as the board says, whenever it says so, until told to stop."""
        while not stop.is_set():
            until = self._board.until
            if self._board.done < until:
                await self._burst(until)
                self._board.done = until
            await asyncio.sleep(POLL_SECONDS)

    async def _burst(self, until: int) -> None:
        loop = asyncio.get_running_loop()
        began, first = loop.time(), self._board.begun
        async with asyncio.TaskGroup() as doing:
            for number in range(first, until):
                await asyncio.sleep(began + (number - first) / self._rate - loop.time())
                await self._turns.acquire()
                self._board.begun = number + 1
                doing.create_task(self._do(self._acts[number]))

    async def _do(self, act: Act) -> None:
        try:
            await self._way.do(act)
        finally:
            self._turns.release()


async def _main(task: Task) -> None:
    acts = plan(size_of(task.users), task.seed, task.acts)
    board = Board(Path(task.board))
    async with asyncpg.create_pool(task.postgres, min_size=AT_ONCE, max_size=AT_ONCE) as pool:
        way = WAYS[task.way](pool, Publisher(task.kafka, task.prefix))
        if isinstance(way, SingleWrite):
            acts = owned(acts, task.burst)
            await _brought(pool, task)
        await Writer(acts[task.writer], way, board, task.rate).run(told_to_stop())


async def _brought(pool: asyncpg.Pool, task: Task) -> None:
    """What was published before is in PostgreSQL: who was killed can no longer tell what he wrote last."""
    ends = await end_offsets(task.kafka, read_definition(UserView, task.prefix).topics)
    await until(lambda: sunk(pool, ends), SUNK_SECONDS)


if __name__ == "__main__":
    uvloop.run(_main(msgspec.json.decode(sys.argv[1], type=Task)))
