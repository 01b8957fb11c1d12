"""The stack that is compared: servers, the way changes are published, and for one mode after another what that mode needs, and no more."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

import asyncpg
import httpx
from redis.asyncio import Redis
from rich.console import Console

from app.settings import read_settings
from app.views import definition_of
from bench.compare.residence import Residence, Writes
from bench.compare.scenario import Scenario
from bench.read_servers import FIELDS
from demo import capture, seed
from demo.publishing import Captured, Place, Publishing, SingleWrite, started
from demo.questions import forget_cached
from demo.scenario import Seed
from demo.servers.kafka import create_topics
from demo.servers.process import NotReadyError, Process, free_port, until
from demo.servers.stack import Stack, stack
from demo.services import answers, check_alive, service, settings
from schema.definition import Definition
from schema.loader import CACHED, MODES, Mode

# what keeps the answers of a mode right, beside its gateway
KEEPERS: dict[Mode, tuple[str, str]] = {"view": ("projector", "project"), "cache-invalidate": ("invalidator", "invalidate")}
PARTITIONS = 6
LEVEL_SECONDS = 120


@dataclass(slots=True)
class Compared:
    """A stack, seeded. captured: whether services write PostgreSQL, and change data capture publishes. base: each user's tweets."""

    scenario: Scenario
    definition: Definition
    place: Place
    publishing: Publishing
    captured: bool
    always: Sequence[Process]
    pool: asyncpg.Pool
    redis: Redis
    base: dict[int, int] = field(default_factory=dict)

    @property
    def servers(self) -> Stack:
        return self.place.servers

    @property
    def postgres(self) -> Process | None:
        return self.servers.postgres.process

    @property
    def writes(self) -> Writes:
        bootstrap = "" if self.captured else self.servers.kafka.address
        return Writes(bootstrap, self.place.environment["VIEWGATE_TOPIC_PREFIX"], self.servers.postgres.address)

    async def empty_caches(self) -> None:
        await forget_cached(self.servers.redis.address, self.definition)

    async def written(self) -> float:
        """Wait until PostgreSQL and Kafka have all that was acknowledged; since when, in Unix seconds."""
        return await self.publishing.published(partial(check_alive, self.always))

    @asynccontextmanager
    async def residence(self, mode: Mode, *, warm: bool = True, **told: str) -> AsyncIterator[Residence]:
        """Only what the mode needs, level with all that was written, caches empty but for what `warm` reads."""
        async with AsyncExitStack() as opened:
            moment = await self.written()
            await self.empty_caches()
            keeper = await self._keeper(opened, mode)
            running = await self._gateway(opened, mode, keeper, told)
            if mode == "view":
                await until(partial(_as_of, running, moment), LEVEL_SECONDS)
            if warm and mode in CACHED:
                await running.read_all(self.scenario.users)
            yield running

    @asynccontextmanager
    async def all_modes(self) -> AsyncIterator[Sequence[Residence]]:
        """Abreast, to be compared."""
        async with AsyncExitStack() as opened:
            yield [await opened.enter_async_context(self.residence(mode, warm=False)) for mode in MODES]

    async def _keeper(self, opened: AsyncExitStack, mode: Mode) -> Process | None:
        if mode not in KEEPERS:
            return None
        name, command = KEEPERS[mode]
        port = free_port()
        environment = {**self.place.environment, "VIEWGATE_PROJECTOR_METRICS_PORT": str(port)}
        keeper = service(name, ("app", command), self.place.folder, environment)
        await started(opened, keeper)
        if mode == "cache-invalidate":
            await until(partial(_caught_up, port, PARTITIONS * len(self.definition.topics)), LEVEL_SECONDS)
        return keeper

    async def _gateway(self, opened: AsyncExitStack, mode: Mode, keeper: Process | None, told: dict[str, str]) -> Residence:
        port = free_port()
        environment = {
            **self.place.environment,
            "VIEWGATE_PORT": str(port),
            "VIEWGATE_MODE": mode,
            "VIEWGATE_FALLBACK": "none",
            "VIEWGATE_ALLOW_MODE_HEADER": "",
            "VIEWGATE_CACHE_TTL_SECONDS": f"{self.scenario.ttl_seconds:g}",
            **told,
        }
        process = service(f"gateway-{mode}", ("app", "serve"), self.place.folder, environment, answers(f"http://127.0.0.1:{port}/livez"))
        await started(opened, process)
        return Residence(mode, "127.0.0.1", port, {}, process, keeper)


@asynccontextmanager
async def compared(scenario: Scenario, folder: Path, cache: Path, console: Console) -> AsyncIterator[Compared]:
    """Servers in the folder, seeded, and level. Raises ServerError."""
    captured = scenario.publishing == "capture"
    prefix = capture.topic_prefix(capture.NAME) if captured else ""
    definition = definition_of(read_settings().model_copy(update={"topic_prefix": prefix, "view": "schema.user:UserView"}))
    async with AsyncExitStack() as opened:
        servers = await opened.enter_async_context(stack(folder, cache, say=console.print))
        await create_topics(servers.kafka.address, dict.fromkeys(definition.topics, PARTITIONS))
        environment = settings(servers, "schema.user:UserView", 0, prefix)
        place = Place(servers, definition, environment, folder, cache)
        publishing: Publishing = Captured(place) if captured else SingleWrite(place)
        size = seed.sized(scenario.users)
        filled = Seed(size.rows, partial(seed.records, size))
        always = await publishing.start(opened, filled, console)
        await publishing.fill(filled, console)
        pool = await opened.enter_async_context(asyncpg.create_pool(servers.postgres.address, min_size=1, max_size=2))
        redis = await opened.enter_async_context(Redis.from_url(servers.redis.address))
        made = Compared(scenario, definition, place, publishing, captured, always, pool, redis)
        await made.written()
        counted = await pool.fetch("SELECT user_id, count(*) FROM tweets GROUP BY user_id")
        made.base |= {int(user): int(count) for user, count in counted}
        yield made


async def _as_of(running: Residence, moment: float) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        answer = await client.post(f"{running.url}/graphql", json={"query": f'{{ user(id: "1") {{ {FIELDS} }} }}'})
    as_of = answer.headers.get("viewgate-as-of")
    if as_of is None or datetime.fromisoformat(as_of).timestamp() < moment:
        raise NotReadyError(f"the view is as of {as_of}")


async def _caught_up(port: int, partitions: int) -> None:
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    except httpx.HTTPError as error:
        raise NotReadyError(repr(error)) from error
    lags = [line for line in text.splitlines() if line.startswith("viewgate_invalidation_lag_records{")]
    if len(lags) < partitions or any(not line.endswith(" 0.0") for line in lags):
        raise NotReadyError(f"{len(lags)} of {partitions} partitions are read")
