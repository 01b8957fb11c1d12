"""The two generators beside each other, each in a process of its own: readers of a residence, and who writes what they read."""

import asyncio
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

import msgspec

from bench.compare import reading, writing
from bench.compare.deployed import Deployed
from bench.compare.residence import Residence, Writes
from bench.compare.scenario import Scenario
from bench.compare.stack import Compared
from bench.compare.staleness import Log

# from when both are ready
START_SECONDS = 0.1
PIPE = asyncio.subprocess.PIPE
CLOSED_CONNECTIONS, OPEN_CONNECTIONS = 32, 64
T = TypeVar("T", bound=msgspec.Struct)


@dataclass(slots=True)
class Generators:
    """log: what was written, since the beginning."""

    made: Compared | Deployed
    seed: int
    log: Log = field(default_factory=Log)
    _first: int = field(default_factory=lambda: time.time_ns() // 1_000_000 << 12)

    @property
    def scenario(self) -> Scenario:
        return self.made.scenario

    async def both(
        self, running: Residence, rate: float, seconds: float, name: str, *, skew: float | None = None, as_for: float = 0.0
    ) -> reading.Found:
        """Reads, and the changes that go with them, from the same moment on. as_for: with so many reads a second, where `rate` is 0."""
        readers = Apart("bench.compare.reading", self._reading(running, rate, seconds, name, skew), reading.Found)
        if self.made.writes is None:
            async with readers:
                return await readers.run(time.monotonic() + START_SECONDS)
        task = self._writing(self.made.writes, self.changes(rate or as_for), seconds, name)
        writers = Apart("bench.compare.writing", task, writing.Acknowledged)
        async with readers, writers:
            began = time.monotonic() + START_SECONDS
            found, done = await asyncio.gather(readers.run(began), writers.run(began))
        self.log.add(done.tweets)
        return found

    async def read(self, running: Residence, rate: float, seconds: float, name: str) -> reading.Found:
        async with Apart("bench.compare.reading", self._reading(running, rate, seconds, name, None), reading.Found) as readers:
            return await readers.run(time.monotonic() + START_SECONDS)

    async def write(self, writes: Writes, rate: float, seconds: float, name: str) -> writing.Acknowledged:
        async with Apart("bench.compare.writing", self._writing(writes, rate, seconds, name), writing.Acknowledged) as writers:
            done = await writers.run(time.monotonic() + START_SECONDS)
        self.log.add(done.tweets)
        return done

    def changes(self, rate: float) -> float:
        """How many a second go with so many reads."""
        return max(1.0, rate / self.scenario.reads_per_write)

    def _reading(self, running: Residence, rate: float, seconds: float, name: str, skew: float | None) -> reading.Task:
        one = self.scenario
        return reading.Task(
            host=running.host,
            port=running.port,
            headers=dict(running.headers),
            rate=rate,
            seconds=seconds,
            users=one.users,
            skew=one.skew if skew is None else skew,
            celebrity=one.celebrity,
            page=one.page,
            seed=random.Random(f"{self.seed} {name}").randrange(2**32),
            connections=OPEN_CONNECTIONS if rate else CLOSED_CONNECTIONS,
        )

    def _writing(self, writes: Writes, rate: float, seconds: float, name: str) -> writing.Task:
        one = self.scenario
        self._first += 1_000_000
        return writing.Task(
            **writes._asdict(),
            rate=rate,
            seconds=seconds,
            users=one.users,
            skew=one.skew,
            celebrity=one.celebrity,
            seed=random.Random(f"{self.seed} writes {name}").randrange(2**32),
            first=self._first,
        )


class Apart(Generic[T]):
    """A generator in a process of its own: it is told its task, says that it is ready, is told when to begin, and says what it found."""

    def __init__(self, module: str, task: msgspec.Struct, answer: type[T]) -> None:
        self._module, self._task, self._answer = module, task, answer

    async def __aenter__(self) -> Self:
        """Ready. Raises RuntimeError."""
        argv = (sys.executable, "-m", self._module)
        self._process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=1 << 30)
        try:
            self._tell(msgspec.json.encode(self._task))
            assert self._process.stdout is not None  # noqa: S101 - it is a pipe
            if await self._process.stdout.readline() != b"ready\n":
                raise await self._failure()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def run(self, began: float) -> T:
        """Raises RuntimeError with what it said."""
        self._tell(f"{began}".encode())
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        out = await self._process.stdout.read()
        if await self._process.wait():
            raise await self._failure()
        return msgspec.json.decode(out, type=self._answer)

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(line + b"\n")

    async def _failure(self) -> RuntimeError:
        assert self._process.stderr is not None  # noqa: S101 - it is a pipe
        return RuntimeError(f"{self._module} has failed: {(await self._process.stderr.read()).decode()[-2000:]}")
