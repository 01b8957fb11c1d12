"""A scene: the whole road with its processes, changes that come in and readers who ask, all the while that a fault lasts.

A test opens one, does its damage, says by `mended` that the damage is over and how it knows that it hit, and then awaits `healed`.
"""

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from demo.servers.process import NotReadyError, free_port, until
from demo.servers.server import Server
from demo.services import answers
from demo.sink import end_offsets, sunk
from projectors.apply import RedisStore
from projectors.generations import Generations
from tests.chaos.audit import audited
from tests.chaos.history import History
from tests.chaos.readers import Readers, now_ms
from tests.chaos.records import Outcome
from tests.chaos.writer import Writer
from tests.road import Road, client_of, open_road

USERS = 300
RATE = 200.0
# Kafka waits so long for a projector that was killed
HEAL_SECONDS = 60.0
# of a gateway on a machine that does much else
START_SECONDS = 90.0


@dataclass(slots=True)
class Scene:
    """kafka, redis, postgres: as they were given. gateways, projectors: processes that run now. said: what processes of ours wrote."""

    road: Road
    outcome: Outcome
    kafka: Server
    redis: Server
    postgres: Server
    folder: Path
    history: History
    writer: Writer
    readers: Readers
    projectors: dict[asyncio.subprocess.Process, int] = field(default_factory=dict)
    gateways: dict[asyncio.subprocess.Process, int] = field(default_factory=dict)
    sink: asyncio.subprocess.Process | None = None
    _mended_ms: float = 0.0

    @property
    def said(self) -> Path:
        return self.folder / "said"

    async def project(self, *module: str, **environment: str) -> asyncio.subprocess.Process:
        """One more projector. module: what to run in place of `viewgate project`."""
        port = free_port()
        process = await self.road.start(
            "-m", *(module or ("app", "project")), said=self.said, VIEWGATE_PROJECTOR_METRICS_PORT=str(port), **environment
        )
        self.projectors[process] = port
        return process

    async def serve(self, port: int | None = None, **environment: str) -> asyncio.subprocess.Process:
        """One more gateway, which answers by now; readers are not told of it."""
        port = port or free_port()
        process = await self.road.start("-m", "app", "serve", "--port", str(port), said=self.said, **environment)
        self.gateways[process] = port
        await until(answers(f"http://127.0.0.1:{port}/livez"), START_SECONDS)
        return process

    async def start_sink(self, **environment: str) -> None:
        """What brings the topics into PostgreSQL."""
        self.sink = await self.road.start("-m", "demo.sink", said=self.said, **environment)

    async def end_sink(self) -> None:
        """When it is told to."""
        assert self.sink
        self.sink.terminate()
        await self.sink.wait()

    async def counted(self, name: str) -> float:
        """The sum of a metric over the projectors that run; those that have ended are forgotten, and so is what they had counted."""
        total = 0.0
        for process, port in list(self.projectors.items()):
            if process.returncode is None:
                with contextlib.suppress(httpx.HTTPError):
                    total += await metric(port, name)
        return total

    async def counts(self, name: str, least: float) -> None:
        """Raises NotReadyError until the metric is at least this."""
        if (value := await self.counted(name)) < least:
            raise NotReadyError(f"{name} is {value}")

    async def goes_on(self, seconds: float = 3.0) -> None:
        """The fault lasts, or peace does: changes and readers go on for so long."""
        await asyncio.sleep(seconds)

    async def watermarks(self) -> dict[tuple[int, str], int]:
        """The offset that is stored, by shard and partition, of the live generation."""
        # the road's own client may have connections to a Redis that was killed
        async with client_of(self.redis.address) as client:
            generations = Generations(client, self.road.definition)
            record = await generations.read(str(await generations.live()))
            assert record is not None
            headers = await RedisStore.of(client, self.road.definition, record).headers()
        return {
            (shard, partition): watermark.offset
            for shard, header in enumerate(headers)
            for partition, watermark in header.watermarks.items()
        }

    async def gone_back(self, before: Mapping[tuple[int, str], int]) -> int:
        """How many watermarks are lower than they were, or gone."""
        now = await self.watermarks()
        return sum(now.get(key, -1) < offset for key, offset in before.items())

    @contextlib.contextmanager
    def frozen_projectors(self) -> Iterator[None]:
        """None of them does anything until the block ends."""
        running = [process for process in self.projectors if process.returncode is None]
        for process in running:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in running:
                process.send_signal(signal.SIGCONT)

    def proves(self, words: str) -> None:
        """Write down that the fault was hit."""
        self.outcome.proof.append(words)

    def mended(self) -> None:
        """From now on nothing stands in the way of healing."""
        self._mended_ms = now_ms()

    async def healed(self, seconds: float = HEAL_SECONDS) -> None:
        """Return once readers have all that was changed by the end of the fault, and every field of every row is as SQL has it."""
        assert self.outcome.proof, "a fault that has not been proven was perhaps not hit"
        await until(lambda: self.readers.level(self._mended_ms), seconds)
        self.outcome.healed = (now_ms() - self._mended_ms) / 1000

    async def begin(self) -> None:
        """Every user, and what brings changes on from where they are written."""
        self.writer.begin()
        await self.writer.flush()
        await self.start_sink()

    async def arrived(self, seconds: float = 120) -> None:
        """Return when all that was changed by now is in SQL, and where the projector finds it."""
        await self.writer.flush()
        ends = await end_offsets(self.road.settings.kafka_bootstrap, self.road.definition.topics)
        await until(lambda: sunk(self.road.pool, ends), seconds)

    async def audit(self) -> None:
        """Everything in SQL, then row by row and by `viewgate audit`."""
        # to servers that were killed
        await self.road.redis.connection_pool.disconnect()
        await self.road.pool.expire_connections()
        await self.arrived()
        try:
            await self.road.agree(60)
        finally:
            self.outcome.audit = await audited(self.road)
        assert self.outcome.audit.passed, self.outcome.audit.told


@asynccontextmanager
async def open_scene(
    outcome: Outcome, kafka: Server, redis: Server, postgres: Server, folder: Path, *, rate: float = RATE, partitions: int = 6
) -> AsyncIterator[Scene]:
    """One projector, one gateway, the sink; changes and readers begin at once, the audit comes at the end. Then the outcome is kept."""
    async with open_road(kafka, redis, postgres, partitions=partitions) as road:
        history = History(road.definition)
        writer = Writer(road.publisher, history, USERS, rate, seed=sum(outcome.name.encode()))
        scene = Scene(road, outcome, kafka, redis, postgres, folder, history, writer, Readers([], history, USERS, outcome.seen))
        async with played(scene):
            yield scene


@asynccontextmanager
async def played(scene: Scene) -> AsyncIterator[None]:
    """The scene from its first change to its outcome."""
    outcome, readers, seen = scene.outcome, scene.readers, scene.outcome.seen
    await scene.begin()
    await scene.project()
    gateway = await scene.serve()
    port = scene.gateways[gateway]
    await until(answers(f"http://127.0.0.1:{port}/readyz"), 60)
    readers.urls.append(f"http://127.0.0.1:{port}/graphql")
    try:
        async with readers.reading():
            async with scene.writer.writing():
                await until(lambda: readers.level(now_ms() - 10_000), 30)
                yield
            await scene.audit()
        assert (seen.wrong, seen.older) == (0, 0), seen.bad
        outcome.passed = True
    finally:
        outcome.changes = scene.writer.published
        outcome.keep()


async def metric(port: int, name: str) -> float:
    """The sum of a metric's samples, or one of them where labels are named too; of whoever has its /metrics there."""
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE))
