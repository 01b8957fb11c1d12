"""All ways on one set of servers, some at a time. Shows nothing: it tells whoever asks of each point."""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from demo.drift import experiment
from demo.drift.course import Course
from demo.drift.experiment import Outcome
from demo.drift.opening import Site, open_road
from demo.drift.road import Traffic
from demo.environment import ADDRESSES
from demo.servers import connect
from demo.servers.account import scratch
from demo.servers.connect import Connect
from demo.servers.server import MissingError, Say
from demo.servers.stack import locked, stack

# while one way waits for a writer to start again, another works
LANES = 2
Told = Callable[[Sequence[Outcome]], None]


@dataclass(frozen=True, slots=True)
class Result:
    """outcomes: of the ways that were run. skipped: the others. servers: what they ran on."""

    outcomes: Sequence[Outcome]
    skipped: Sequence[str]
    servers: Sequence[str]


async def run_all(courses: Sequence[Course], traffic: Traffic, cache: Path, say: Say, told: Told) -> Result:
    """Start servers, run each way, and end all. Logs are in `cache/drift`. Raises ServerError."""
    _set_the_scene()
    logs, outcomes = cache / "drift", [Outcome(course) for course in courses]
    with scratch() as folder, locked(logs):
        for old in logs.glob("*.board"):
            old.unlink()
        async with AsyncExitStack() as opened:
            servers = await opened.enter_async_context(stack(folder, cache, say=say))
            await _Lanes(Site(servers, logs, traffic), cache, say, told).run(outcomes, opened)
    return Result(
        [outcome for outcome in outcomes if outcome.points],
        [outcome.course.way for outcome in outcomes if not outcome.points],
        [f"{server.what}, {server.kind}" for server in servers.servers],
    )


def _set_the_scene() -> None:
    # a server that was given holds somebody's data: here only our own
    for variable in ADDRESSES:
        os.environ.pop(variable, None)
    # in a minute a JVM would spend more on compiling itself well than it gains
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")


class _Lanes:
    def __init__(self, site: Site, cache: Path, say: Say, told: Told) -> None:
        self._site, self._cache, self._say, self._told = site, cache, say, told
        self._free = asyncio.Semaphore(LANES)

    async def run(self, outcomes: Sequence[Outcome], opened: AsyncExitStack) -> None:
        """In their order; Kafka Connect, which takes long, starts beside the first ones."""
        try:
            async with asyncio.TaskGroup() as group:
                captured = any(outcome.course.captured for outcome in outcomes)
                connecting = group.create_task(self._connect(opened)) if captured else None
                for number, outcome in enumerate(outcomes, 1):
                    group.create_task(self._one(outcome, number, connecting, lambda: self._told(outcomes)))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _one(
        self, outcome: Outcome, number: int, connecting: "asyncio.Task[Connect | None] | None", told: Callable[[], None]
    ) -> None:
        async with self._free:
            captures = await connecting if outcome.course.captured and connecting else None
            if outcome.course.captured and captures is None:
                return
            async with open_road(self._site, outcome.course, number, captures) as road:
                async for _ in experiment.run(road, self._site.traffic, outcome):
                    told()
            self._say(f"{outcome.course.way}: {len(outcome.last.apart.differing)} users differ after {outcome.last.kills} kills")

    async def _connect(self, opened: AsyncExitStack) -> Connect | None:
        """None, and said why, where it cannot be had."""
        address = self._site.servers.kafka.address
        try:
            return await opened.enter_async_context(connect.start(address, self._site.folder, self._cache, say=self._say))
        except MissingError as missing:
            if os.environ.get("CI") == "true":
                raise
            self._say(f"cdc and outbox are not run: {missing}")
            return None
