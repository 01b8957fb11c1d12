"""How long does it take to build the view anew from ten million changes, while readers read the old one, and is any read wrong?

A seeded history of users, tweets, follows and likes (history.py) in Kafka, on six partitions a topic, lz4. `viewgate project` builds the
first generation from it and stays. Then readers begin (readers.py), so many reads a second of users as popular as they are, and
`viewgate rebuild` builds a second generation beside the first; the two processes share the partitions. Timed from the start of the
command to its end, with connecting and joining the group in it. Then the second is promoted under the same readers, and every row of
it must be what the history amounts to, or the run fails. Nothing changes meanwhile, so each answer must be exactly the known one.
"""

import asyncio
import random
import resource
import time
from collections.abc import Awaitable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from app.clients import open_redis
from app.settings import Settings
from bench.command import viewgate
from bench.history import COUNTS, Amounts, History, Part
from bench.machine import cpu_seconds, machine, versions
from bench.readers import Readers, Reads
from demo import seed
from demo.publish import Publisher
from demo.servers import kafka
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, ServerError, last_lines, until
from demo.servers.server import Server
from loaders.view import ViewLoader
from schema import layout
from schema.definition import read_definition
from schema.loader import Read, Row
from schema.user import UserView

CACHE = Path(__file__).parents[1] / ".cache"
PARTITIONS, PARTS, PAGE = 6, 2, 500
READS_A_SECOND = 300
GOAL_SECONDS, GOAL_CHANGES = 100, 10_000_000
DEFINITION = read_definition(UserView)
FIELDS = tuple(f.name for f in DEFINITION.fields)
LIBRARIES = ("aiokafka", "redis", "hiredis", "msgspec", "uvloop")


class RowsDiffer(Exception):
    """The view is wrong, so how fast it was built means nothing."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One build. cpu_seconds: by process, what it used meanwhile."""

    what: str
    seconds: float
    cpu_seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Figures:
    changes: int
    users: int
    builds: list[Timed]
    reads: int
    wrong: list[str]
    failed: list[str]
    generations: list[str]
    read_ms: Mapping[str, float]
    about: str


def main(
    quick: Annotated[bool, typer.Option(help="200,000 changes: a look, not a judgement.")] = False,
    changes: Annotated[int, typer.Option(help="How many.")] = GOAL_CHANGES,
    json: Annotated[Path | None, typer.Option(help="Where to write the figures.")] = None,
) -> None:
    """Measure a rebuild under readers."""
    figures = asyncio.run(measure(200_000 if quick else changes))
    _show(figures)
    if json:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(asdict(figures)), indent=2))
    if figures.wrong or figures.failed:
        raise typer.Exit(1)


async def measure(changes: int) -> Figures:
    """Raises RowsDiffer."""
    parts = [Part(number, PARTS, changes // PARTS // 100 * 100) for number in range(PARTS)]
    with scratch() as folder:
        async with (
            kafka.start(folder, CACHE, prefer="installed", say=print) as broker,
            redis_server.start(folder, CACHE, prefer="installed", say=print) as redis_at,
        ):
            await kafka.create_topics(broker.address, dict.fromkeys(DEFINITION.topics, PARTITIONS))
            amounts = await _published(broker.address, parts)
            run = Run(Settings(kafka_bootstrap=broker.address, redis_url=redis_at.address), [broker, redis_at], folder, amounts)
            about = f"{broker.what}, {redis_at.what}; {machine()}; {versions(*LIBRARIES)}"
            return await run.measure(sum(part.changes for part in parts), parts[0].users, about)


async def _published(bootstrap: str, parts: list[Part]) -> Amounts:
    amounts = Amounts.nothing(parts[0].users)
    with ProcessPoolExecutor(len(parts), get_context("spawn")) as processes:
        loop = asyncio.get_running_loop()
        for one in await asyncio.gather(*(loop.run_in_executor(processes, _publish, bootstrap, part) for part in parts)):
            amounts.add(one)
    return amounts


def _publish(bootstrap: str, part: Part) -> Amounts:
    history, publisher = History(part), Publisher(bootstrap)
    publisher.send_all(history.records())
    publisher.flush()
    return history.amounts


class Run:
    """The builds of one history on one stack. folder: where the processes log."""

    def __init__(self, settings: Settings, servers: list[Server], folder: Path, amounts: Amounts) -> None:
        self._settings, self._servers, self._folder, self._amounts = settings, servers, folder, amounts

    async def measure(self, changes: int, users: int, about: str) -> Figures:
        redis = open_redis(self._settings, self._settings.redis_url)
        dice = random.Random(users)
        readers = Readers(redis, DEFINITION, READS_A_SECOND, lambda: str(seed.popular(dice, users)), self.expected)
        try:
            async with viewgate(self._settings, self._folder, "project") as projector:
                first = await self._timed("first, nobody reads", {"project": projector.pid}, until(partial(_live, redis), 3600))
                async with readers.reading() as reads:
                    second = await self._timed("rebuild, under readers", {"project": projector.pid}, self._told("rebuild"))
                    await self._told("promote", "g2")
                    await until(partial(_seen, reads, "g2"), 30)
            await self.check(redis, "g2", users)
        finally:
            await redis.aclose()
        took = {name: reads.percentile_ms(share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))}
        judged = len(reads.seconds)
        return Figures(changes, users, [first, second], judged, reads.wrong, reads.failed, reads.generations, took, about)

    def expected(self, user: str) -> Row:
        number = int(user)
        values = msgspec.structs.asdict(self._amounts.user(number))
        values |= {name: counts[number - 1] for name, counts in zip(COUNTS, self._amounts.counts, strict=True)}
        return [layout.encode(values[name]) for name in FIELDS]

    async def check(self, redis: Redis, generation: str, users: int) -> None:
        """Every row, and no row more. Raises RowsDiffer."""
        loader = ViewLoader(redis, DEFINITION, generation)
        for start in range(1, users + 1, PAGE):
            ids = [str(number) for number in range(start, min(users, start + PAGE - 1) + 1)]
            rows = await loader.load([Read("id", user, FIELDS) for user in ids])
            for user, row in zip(ids, rows.rows, strict=True):
                if row != self.expected(user):
                    raise RowsDiffer(f"user {user} of {generation} is {row}, and should be {self.expected(user)}")
        keys = layout.Layout(DEFINITION.name, generation, layout.SHARDS)
        there = sum([keys.row_id(key.decode()) is not None async for key in redis.scan_iter(keys.rows_pattern(), count=5000)])
        if there != users:
            raise RowsDiffer(f"{generation} has {there:,} rows, and there are {users:,} users")

    async def _timed(self, what: str, projectors: Mapping[str, int], work: Awaitable[object]) -> Timed:
        pids = {**{server.name: server.process.pid for server in self._servers if server.process}, **projectors}
        before, since = {name: cpu_seconds(pid) for name, pid in pids.items()}, time.monotonic()
        mine, children = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        await work
        seconds = time.monotonic() - since
        used = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        used["readers"] = time.process_time() - mine
        used["rebuild"] = ended.ru_utime + ended.ru_stime - children.ru_utime - children.ru_stime
        return Timed(what, seconds, {name: max(0.0, round(cpu, 2)) for name, cpu in used.items()})

    async def _told(self, *command: str) -> None:
        """Run a command to its end. Raises ServerError with what it said."""
        async with viewgate(self._settings, self._folder, *command) as process:
            if await process.wait():
                raise ServerError(f"viewgate {' '.join(command)}: {last_lines((self._folder / f'{command[0]}.log').read_bytes())}")


async def _live(redis: Redis) -> None:
    try:
        name = await redis.get(layout.live_key(DEFINITION.name))
    except RedisError as busy:
        raise NotReadyError(str(busy)) from busy
    if name is None:
        raise NotReadyError("no generation is live yet")


async def _seen(reads: Reads, generation: str) -> None:
    if reads.generations[-1:] != [generation]:
        raise NotReadyError(f"readers still read {reads.generations}")


def _show(figures: Figures) -> None:
    console = Console(width=140)
    console.print(f"\n{figures.about}")
    title = f"{figures.changes:,} changes of {figures.users:,} users"
    table = Table(title=title, title_justify="left")
    table.add_column("build")
    names = list(figures.builds[0].cpu_seconds)
    for heading in ("seconds", "changes/s", *(f"CPU s of {name}" for name in names)):
        table.add_column(heading, justify="right")
    for build in figures.builds:
        cpu = (f"{build.cpu_seconds[name]:.1f}" for name in names)
        table.add_row(build.what, f"{build.seconds:.1f}", f"{figures.changes / build.seconds:,.0f}", *cpu)
    console.print(table)
    times = ", ".join(f"{name} {took:.1f} ms" for name, took in figures.read_ms.items())
    judged = f"{figures.reads:,} reads at {READS_A_SECOND}/s, {len(figures.wrong)} wrong, {len(figures.failed)} failed"
    console.print(f"- {judged}; {times}; answered by {', then '.join(figures.generations)}.", highlight=False)
    console.print(f"- Every row of the second generation was compared: {figures.users:,} users, nothing differs.", highlight=False)
    console.print(
        "- One machine: Kafka, Redis, projectors and readers share its cores. Redis writes its append-only file (everysec).",
        highlight=False,
    )
    if figures.changes >= GOAL_CHANGES:
        told = "met" if figures.builds[1].seconds < GOAL_SECONDS else "MISSED"
        console.print(f"- Goal: a rebuild from ten million changes in under {GOAL_SECONDS} s: {told}.", highlight=False)


if __name__ == "__main__":
    typer.run(main)
