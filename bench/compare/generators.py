"""The two generators beside each other, each in a process of its own: readers of a residence, and who writes what they read."""

import asyncio
import random
import sys
import time
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from bench.compare import reading, writing
from bench.compare.scenario import Scenario
from bench.compare.stack import Compared, Residence
from bench.compare.staleness import Log

# to bring both up
START_SECONDS = 0.8
CLOSED_CONNECTIONS, OPEN_CONNECTIONS = 32, 64
T = TypeVar("T", bound=msgspec.Struct)


@dataclass(slots=True)
class Generators:
    """log: what was written, since the beginning."""

    made: Compared
    seed: int
    log: Log = field(default_factory=Log)
    _first: int = field(default_factory=lambda: time.time_ns() // 1_000_000 << 12)

    @property
    def scenario(self) -> Scenario:
        return self.made.scenario

    async def both(self, running: Residence, rate: float, seconds: float, name: str, skew: float | None = None) -> reading.Found:
        """Reads, and the changes that go with them."""
        began = time.monotonic() + START_SECONDS
        found, done = await asyncio.gather(
            self.read(running, rate, seconds, name, began, skew), self.write(self.changes(rate), seconds, began, name)
        )
        self.log.add(done.tweets)
        return found

    def changes(self, rate: float) -> float:
        return max(1.0, rate / self.scenario.reads_per_write)

    async def read(
        self, running: Residence, rate: float, seconds: float, name: str, began: float = 0.0, skew: float | None = None
    ) -> reading.Found:
        one = self.scenario
        task = reading.Task(
            host="127.0.0.1",
            port=running.port,
            headers={},
            rate=rate,
            seconds=seconds,
            users=one.users,
            skew=one.skew if skew is None else skew,
            celebrity=one.celebrity,
            page=one.page,
            seed=random.Random(f"{self.seed} {name}").randrange(2**32),
            connections=OPEN_CONNECTIONS if rate else CLOSED_CONNECTIONS,
            began=began,
        )
        return await _apart("bench.compare.reading", task, reading.Found)

    async def write(self, rate: float, seconds: float, began: float, name: str) -> writing.Acknowledged:
        one, place = self.scenario, self.made.place
        self._first += 1_000_000
        task = writing.Task(
            bootstrap="" if self.made.captured else place.servers.kafka.address,
            topic_prefix=place.environment["VIEWGATE_TOPIC_PREFIX"],
            postgres_url=place.servers.postgres.address,
            rate=rate,
            seconds=seconds,
            users=one.users,
            skew=one.skew,
            celebrity=one.celebrity,
            seed=random.Random(f"{self.seed} writes {name}").randrange(2**32),
            first=self._first,
            began=began or time.monotonic(),
        )
        return await _apart("bench.compare.writing", task, writing.Acknowledged)


async def _apart(module: str, task: msgspec.Struct, answer: type[T]) -> T:
    """Run a module in a process of its own. Raises RuntimeError with what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await process.communicate(msgspec.json.encode(task))
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"{module} has failed: {err.decode()[-2000:]}")
    return msgspec.json.decode(out, type=answer)
