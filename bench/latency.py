"""How long does a read take at 1,000 reads a second, while 1,000 changes a second are applied, and while others mean no good?

Open loop: a read is due when the schedule says, and is timed from then. The road of a read (gateway, Redis, the client that is timed) has
one core; the road of a message (writer, Kafka, projector) and the other clients have the other. Each round measures in turn: nothing
beside it; the changes; the changes and slow clients; the changes and one that sends the worst documents as fast as they are answered.
What the gateway answers is proven before anything is timed. Percentiles are of all rounds' reads together, never means of percentiles.
"""

import asyncio
import os
import statistics
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from app.settings import Settings
from bench.closed_loop import answer, body
from bench.command import viewgate
from bench.freshness import CACHE, DEFINITION, PARTITIONS, USERS
from bench.hostile import hostile, slow
from bench.machine import machine, versions
from bench.open_loop import Found
from bench.picture import Line, log_log
from bench.probes import PROBED, Traffic
from demo import seed
from demo.publish import Publisher, record
from demo.servers import kafka
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, free_port, until
from demo.servers.server import Server

RATE = 1_000
CORES = sorted(os.sched_getaffinity(0))
READ_CORE, MESSAGE_CORE = CORES[0], CORES[-1]
BESIDE = {
    "nothing": "nothing beside it",
    "changes": f"{RATE:,} changes/s beside it",
    "slow": "and 170 clients that send or read slowly",
    "hostile": "and one that sends the worst documents",
}
# in the picture, where slow clients would lie on the line of the changes
LABELS = {"nothing": "alone", "changes": "changes", "hostile": "hostile"}
# milliseconds; and how many times a read's p99 may be what it is without the clients that mean no good
GOALS = {"p99": 2.0, "p99.9": 10.0}
LEVEL = {"p95": 5.0, "max": 10.0}
MOST_TIMES = 2.0


def main(
    quick: Annotated[bool, typer.Option(help="One round of two seconds each: a look, not a judgement.")] = False,
    json: Annotated[Path | None, typer.Option(help="Where to write the figures.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Where to draw the curves, as SVG.")] = None,
) -> None:
    """Measure how long reads take."""
    rounds, seconds = (1, 2) if quick else (5, 10)
    found, servers = asyncio.run(measure(rounds, seconds))
    about = f"{machine()}; {', '.join(servers)}; {versions('uvicorn', 'uvloop', 'httptools', 'redis', 'hiredis', 'aiokafka')}"
    _show(found, about, rounds, seconds)
    if json:
        told = {name: figures(rounds_) | {"rounds": [figures([one]) for one in rounds_]} for name, rounds_ in found.items()}
        curves = {name: curve(rounds_) for name, rounds_ in found.items()}
        json.write_bytes(msgspec.json.format(msgspec.json.encode({"about": about, "figures": told, "curves": curves}), indent=2) + b"\n")
    if picture:
        picture.write_text(drawn({name: curve(rounds_) for name, rounds_ in found.items()}))


async def measure(rounds: int, seconds: int) -> tuple[Mapping[str, Sequence[Found]], Sequence[str]]:
    """Of each of BESIDE, each round; and what the servers are. Raises RuntimeError where the gateway answers wrongly or not at all."""
    with scratch() as folder:
        async with _servers(folder, rounds * seconds * 3) as (port, publisher, servers):
            found: dict[str, list[Found]] = {name: [] for name in BESIDE}
            for name in [name for _ in range(rounds) for name in BESIDE]:
                async with AsyncExitStack() as beside:
                    if name in {"slow", "hostile"}:
                        await beside.enter_async_context(slow(port) if name == "slow" else hostile(port))
                    traffic = asyncio.create_task(Traffic(publisher, RATE, seconds + 1, USERS).run()) if name != "nothing" else None
                    found[name].append(await _read(port, seconds))
                    if traffic:
                        await traffic
            return found, servers


@asynccontextmanager
async def _servers(folder: Path, seconds: int) -> AsyncIterator[tuple[int, Publisher, Sequence[str]]]:
    """The gateway's port, and what changes are published by."""
    os.sched_setaffinity(0, {MESSAGE_CORE})
    async with AsyncExitStack() as running:
        broker: Server = await running.enter_async_context(kafka.start(folder, CACHE, prefer="installed", say=print))
        with _on(READ_CORE):
            redis: Server = await running.enter_async_context(redis_server.start(folder, CACHE, prefer="installed", say=print))
        publisher = Publisher(broker.address)
        users = RATE * seconds // PROBED + USERS
        await kafka.create_topics(broker.address, dict.fromkeys(DEFINITION.topics, PARTITIONS))
        publisher.send_all(record("c", None, seed.user(number), 1) for number in range(1, users + 1))
        publisher.flush()
        port = free_port()
        settings = Settings(kafka_bootstrap=broker.address, redis_url=redis.address, port=port)
        await running.enter_async_context(viewgate(settings, folder, "project"))
        with _on(READ_CORE):
            await running.enter_async_context(viewgate(settings, folder, "serve"))
        await until(lambda: _proven(port, users), 60)
        yield port, publisher, [broker.what, redis.what]


@contextmanager
def _on(core: int) -> Iterator[None]:
    """Processes that are started in this block run on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def _proven(port: int, users: int) -> None:
    """Raises NotReadyError until every user is answered as it was sent."""
    query = "query ($ids: [ID!]!) { users(ids: $ids) { username tweetCount } }"
    numbers = range(1, users + 1)
    for part in [numbers[at : at + 100] for at in range(0, users, 100)]:
        try:
            told = msgspec.json.decode(await answer(port, body(query, {"ids": [str(number) for number in part]})))
        except OSError as error:
            raise NotReadyError(str(error)) from error
        wanted = [{"username": seed.user(number).username, "tweetCount": 0} for number in part]
        if told.get("data") != {"users": wanted}:
            raise NotReadyError(f"users {part[0]} to {part[-1]} are answered {str(told)[:200]}")


async def _read(port: int, seconds: int) -> Found:
    argv = (sys.executable, "-m", "bench.open_loop", *map(str, (port, RATE, seconds, USERS)))
    with _on(READ_CORE):
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    found = msgspec.json.decode(told, type=Found)
    if found.failed or len(found.ms) != RATE * seconds:
        raise RuntimeError(f"{found.failed} reads failed, {len(found.ms)} of {RATE * seconds} were answered")
    return found


def figures(rounds: Sequence[Found]) -> dict[str, Any]:
    """Milliseconds, of all reads of the rounds."""
    ms = [one for found in rounds for one in found.ms]
    cuts = statistics.quantiles(ms, n=1000, method="inclusive")
    shown = {"p50": cuts[499], "p95": cuts[949], "p99": cuts[989], "p99.9": cuts[998], "max": max(ms)}
    return {"reads": len(ms)} | {name: round(value, 2) for name, value in shown.items()} | {"late": max(found.late_ms for found in rounds)}


def curve(rounds: Sequence[Found]) -> list[tuple[float, float]]:
    """One of so many reads takes at least so long (ms): for 2, 10, 100 … of them."""
    ms = sorted((one for found in rounds for one in found.ms), reverse=True)
    steps = [2, *(10**power for power in range(1, 7))]
    return [(step, round(ms[len(ms) // step - 1], 3)) for step in steps if step <= len(ms)]


def drawn(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    lines = [Line(label, curves[name], told=name == "changes") for name, label in LABELS.items()]
    return log_log(f"Reads at {RATE:,}/s: how long the slowest of so many take", "reads, one of which takes at least so long", "ms", lines)


def _show(found: Mapping[str, Sequence[Found]], about: str, rounds: int, seconds: int) -> None:
    console = Console(width=140, highlight=False)
    console.print(f"\n{about}")
    told = {name: figures(of) for name, of in found.items()}
    table = Table(
        title=f"one user, 8 fields, at {RATE:,} reads/s; ms since each was due; {rounds} rounds of {seconds} s", title_justify="left"
    )
    for heading in ("", "p50", "p95", "p99", "p99.9", "max", "its p99 to that beside the changes"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, of in told.items():
        times = of["p99"] / told["changes"]["p99"]
        table.add_row(BESIDE[name], *(f"{of[key]:.2f}" for key in ("p50", "p95", "p99", "p99.9", "max")), f"{times:.2f} x")
    console.print(table)
    for key, most in (GOALS | LEVEL).items():
        is_ = told["changes"][key]
        what = "Goal" if key in GOALS else "Service level"
        console.print(f"- {what}: {key} below {most:g} ms beside the changes; it is {is_:.2f}: {_met(is_ < most)}.")
    for name in ("slow", "hostile"):
        times = told[name]["p99"] / told["changes"]["p99"]
        console.print(f"- Goal: {BESIDE[name]}: p99 at most {MOST_TIMES:g} x; it is {times:.2f}: {_met(times <= MOST_TIMES)}.")
    console.print(f"- A read was sent at most {max(of['late'] for of in told.values()):.2f} ms after it was due, which counts.")


def _met(is_so: bool) -> str:
    return "met" if is_so else "MISSED"


if __name__ == "__main__":
    typer.run(main)
