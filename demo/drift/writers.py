"""The writers as processes: started, driven as far as they are to go, and killed on the way. Knows nothing of what they write."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from demo.drift.board import Board
from demo.drift.writer import Task
from demo.servers.process import NotReadyError, Process, ServerError, until
from demo.services import service

POLL_SECONDS = 0.001
BURST_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to this writer once it has begun so many acts."""

    writer: int
    at: int


class Writers:
    """One process for each task. folder: their logs, and the boards that the tasks name."""

    def __init__(self, tasks: Sequence[Task], folder: Path, environment: Mapping[str, str]) -> None:
        self._boards = [Board(Path(task.board)) for task in tasks]
        self.processes = [_process(task, folder, environment) for task in tasks]

    @property
    def begun(self) -> int:
        """How many acts all of them have begun."""
        return sum(board.begun for board in self._boards)

    async def start(self) -> None:
        await asyncio.gather(*(process.start() for process in self.processes))

    async def stop(self) -> None:
        await asyncio.gather(*(process.stop() for process in self.processes))
        for board in self._boards:
            board.close()

    async def drive(self, end: int, kill: Kill | None, check: Callable[[], None]) -> None:
        """Have each go on to this number of acts; return when all are there. check: raises what is to end it. Raises ServerError."""
        for board in self._boards:
            board.until = end
        try:
            if kill is not None:
                await self._kill(kill, check)
            await until(partial(self._arrived, end, check), BURST_SECONDS)
        except TimeoutError as late:
            begun = [board.begun for board in self._boards]
            log = self.processes[0].command.log
            raise ServerError(f"the writers were at {begun} of {end} acts after {BURST_SECONDS} s; the log of one is {log}") from late

    async def _kill(self, kill: Kill, check: Callable[[], None]) -> None:
        """In the midst of its work, and have it start again."""
        board, process = self._boards[kill.writer], self.processes[kill.writer]
        async with asyncio.timeout(BURST_SECONDS):
            while board.begun < kill.at:
                check()
                await asyncio.sleep(POLL_SECONDS)
        await process.kill()
        await process.start()

    async def _arrived(self, end: int, check: Callable[[], None]) -> None:
        check()
        if any(board.done < end for board in self._boards):
            raise NotReadyError("not there yet")


def _process(task: Task, folder: Path, environment: Mapping[str, str]) -> Process:
    argument = msgspec.json.encode(task).decode()
    return service(f"{task.way}-writer{task.writer}", ("demo.drift.writer", argument), folder, environment)
