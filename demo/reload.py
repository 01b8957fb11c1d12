"""Gateway and projector of a demo, started again when a source file changes: for who works on them. Watches files only."""

import importlib.util
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

from redis.asyncio import Redis
from watchfiles import PythonFilter, awatch

from demo.servers.process import Process, ServerError, last_lines

HOUSE = Path(__file__).parents[1]
PACKAGES = ("schema", "loaders", "projectors", "app")
OTHER_DEFINITION = "was built with another definition"
TICK_MS = 500


class Reloading:
    """redis: the address of one that may be emptied, to build a view anew whose definition has changed; None if there is none."""

    def __init__(self, processes: Sequence[Process], redis: str | None, say: Callable[[str], None]) -> None:
        self._processes, self._redis, self._say = processes, redis, say
        self._ended: set[Process] = set()

    async def watch(self, folders: Iterable[Path]) -> AsyncIterator[None]:
        """Start them again at every change below the folders. Yields about twice a second, for others to be looked after."""
        only = PythonFilter(extra_extensions=(".lua",))
        watching = awatch(*folders, watch_filter=only, rust_timeout=TICK_MS, yield_on_timeout=True, ignore_permission_denied=True)
        async for changes in watching:
            if changes:
                self._say(f"{', '.join(sorted({Path(path).name for _, path in changes}))} changed: starting gateway and projector again")
                for process in self._processes:
                    await self._restart(process)
            for process in self._processes:
                if not process.alive and process not in self._ended:
                    await self._tell(process)
            yield

    async def _restart(self, process: Process) -> None:
        self._ended.discard(process)
        try:
            await process.restart()
        except ServerError:
            # it has ended, and its log is told with that
            return

    async def _tell(self, process: Process) -> None:
        last = last_lines(process.command.log.read_bytes(), 1)
        if self._redis and OTHER_DEFINITION in last:
            self._say("The view is defined anew: building it again from Kafka; meanwhile SQL answers.")
            await _empty(self._redis)
            await self._restart(process)
        else:
            self._ended.add(process)
            self._say(f"{process.command.name} has ended, and starts again when you save the next change: {last}")


def folders_of(view: str) -> set[Path]:
    """Those of this house that gateway and projector run from, and that of the view's module."""
    module = importlib.util.find_spec(view.partition(":")[0])
    own = {Path(module.origin).parent} if module and module.origin else set()
    return own | {HOUSE / package for package in PACKAGES}


async def _empty(redis: str) -> None:
    client = Redis.from_url(redis)
    try:
        await client.flushall()
    finally:
        await client.aclose()
