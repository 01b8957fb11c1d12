"""How long after its commit is a change in Kafka, in Redis, and visible in GraphQL, by change data capture, at 1,000 changes a second?

Open loop: a change is due when the schedule says; each is a transaction of its own in PostgreSQL, by eight services. Debezium on Kafka
Connect publishes exactly once, one process projects, another serves, and all of it shares one machine. One change of twenty is a probe, a
tweet of a user who has no other; half of the probes are looked for all the time, in Redis by a ViewLoader and in GraphQL over HTTP, one
look after the other. The peer is a consumer that only notes when records came to it: the way to Kafka alone. It gets the same traffic
first, with nothing of ours beside it. In the end every user's counts in the view must be what was committed, or the run fails.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Annotated, cast

import asyncpg
import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from bench import bare
from bench.commits import Commits, services
from bench.contender import Task
from bench.freshness import LEVEL_SECONDS, USERS, as_text, figures, milliseconds, ours, proven
from bench.machine import machine, versions
from bench.probes import PROBED, Probe, View
from demo import capture, seed
from demo.publish import Publisher
from demo.publishing import copy_rows
from demo.servers import connect, debezium, kafka, postgres
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.maven import debezium_version
from demo.servers.process import NotReadyError, until
from demo.tables import create_tables
from schema.definition import read_definition
from schema.user import Users, UserView

CACHE = Path(__file__).parents[1] / ".cache"
LIBRARIES = ("aiokafka", "asyncpg", "redis", "hiredis", "strawberry-graphql", "uvicorn")
PARTITIONS = 6
RATE, SECONDS = 1000, 60
GOAL_MS = 100
PREFIX = capture.topic_prefix(capture.NAME)
DEFINITION = read_definition(UserView, PREFIX)
CAVEATS = (
    "The bare consumer had the machine for itself, Debezium and the load generator: no projector, no gateway, no looks.",
    "One machine: everything shares its cores, the load generator and the looks too. Compare with the bare consumer, not elsewhere.",
    "Visible is when the answer that has it has come; one look after the other, so it is later by up to one look.",
    "Debezium polls every 20 ms (poll.interval.ms; 500 by default), and each poll is one Kafka transaction.",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds of each probe, by what was measured. late_ms: by how much a change was written too late, at most."""

    ms: Mapping[str, Sequence[float]]
    late_ms: float
    look_ms: float
    servers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Places:
    """Addresses: of Kafka, Redis, PostgreSQL. told: what they are."""

    kafka: str
    redis: str
    postgres: str
    told: Sequence[str]


def main(
    quick: Annotated[bool, typer.Option(help="Five seconds: a look, not a judgement.")] = False,
    seconds: Annotated[int, typer.Option(help="For how long changes come.")] = SECONDS,
    rate: Annotated[int, typer.Option(help="Changes per second.")] = RATE,
    json: Annotated[Path | None, typer.Option(help="Where to write every probe's figures.")] = None,
) -> None:
    """Measure from commit to GraphQL."""
    seconds = 5 if quick else seconds
    measured = asyncio.run(measure(rate, seconds))
    _print(measured, rate, seconds)
    if json:
        about = {"machine": machine(), "servers": measured.servers, "versions": versions(*LIBRARIES), "rate": rate, "seconds": seconds}
        told = {name: figures(ms) for name, ms in measured.ms.items()}
        rounded = {name: [round(one, 2) for one in ms] for name, ms in measured.ms.items()}
        found = {**about, "late_ms": measured.late_ms, "look_ms": measured.look_ms, "figures": told, "ms": rounded}
        json.write_text(as_text(found))


async def measure(rate: int, seconds: int) -> Measured:
    """Raises CountsDiffer, and what Traffic raises."""
    with scratch() as folder:
        async with _running(folder, rate * seconds // PROBED + USERS) as at, Redis.from_url(at.redis) as client:
            async with services(at.postgres) as writing:
                # Traffic asks no more of a publisher than what these services have
                publisher = cast(Publisher, writing)
                peer = Commits(publisher, rate, seconds, USERS, writing=writing)
                await _peer(at, peer)
                async with ours(folder, at.kafka, at.redis, PREFIX) as graphql:
                    traffic = Commits(publisher, rate, seconds, USERS, View(client, DEFINITION, graphql), writing=writing)
                    await proven(traffic)
                    await traffic.run()
                    await proven(traffic)
            return Measured(_spans(traffic.probes, peer.probes), traffic.late * 1000, median(traffic.looks) * 1000, at.told)


@asynccontextmanager
async def _running(folder: Path, users: int) -> AsyncIterator[Places]:
    """All servers, with so many users in PostgreSQL, captured."""
    async with (
        kafka.start(folder, CACHE, prefer="installed", say=print) as broker,
        redis_server.start(folder, CACHE, prefer="installed", say=print) as redis,
        postgres.start(folder, CACHE, prefer="installed", say=print) as database,
        connect.start(broker.address, folder, CACHE, say=print) as worker,
    ):
        await kafka.create_topics(broker.address, dict.fromkeys(DEFINITION.topics, PARTITIONS))
        connection = await asyncpg.connect(database.address)
        await create_tables(connection, DEFINITION)
        await copy_rows(connection, Users, [seed.user(number) for number in range(1, users + 1)])
        await worker.capture(capture.connector(capture.NAME, database.address, DEFINITION))
        await debezium.captured(connection, capture.NAME, LEVEL_SECONDS)
        await connection.close()
        told = [broker.what, redis.what, database.what, f"Debezium {debezium_version()}"]
        yield Places(broker.address, redis.address, database.address, told)


async def _peer(at: Places, traffic: Commits) -> None:
    """The same changes, and when each probe came to a bare consumer; then they are deleted, which our view counts too."""
    context = get_context("spawn")
    mine, its = context.Pipe()
    task = Task(at.kafka, "", PREFIX, "bare", traffic.changes // PROBED)
    process = context.Process(target=bare.note, args=(task, f"{PREFIX}tweets", its), daemon=True)
    process.start()
    try:
        if await asyncio.to_thread(mine.recv) != bare.READY:
            raise RuntimeError("the bare consumer did not start")
        await traffic.run()
        came: Mapping[bytes, float] = await asyncio.to_thread(mine.recv)
    finally:
        process.terminate()
        process.join()
    for probe in traffic.probes:
        probe.came = came[b'{"tweet_id":%d}' % probe.user]
    connection = await asyncpg.connect(at.postgres)
    await until(partial(_written, connection, traffic.changes), LEVEL_SECONDS)
    await connection.execute("DELETE FROM tweets; DELETE FROM follows")
    await debezium.captured(connection, capture.NAME, LEVEL_SECONDS)
    await connection.close()


async def _written(connection: "asyncpg.Connection[asyncpg.Record]", changes: int) -> None:
    """Raises NotReadyError until services have written so many rows."""
    found = await connection.fetchval("SELECT (SELECT count(*) FROM tweets) + (SELECT count(*) FROM follows)")
    if found != changes:
        raise NotReadyError(f"{found} of {changes} rows are written")


def _spans(probes: Sequence[Probe], peer: Sequence[Probe]) -> Mapping[str, Sequence[float]]:
    """What is told, in its order. Of the first quarter nothing: there everything is still warming up."""
    looked = [probe for probe in probes[len(probes) // 4 :] if not probe.waits]
    return {
        "at a bare consumer": milliseconds(peer[len(peer) // 4 :], lambda p: p.came - p.acked),
        "in Redis": milliseconds(looked, lambda p: p.stored - p.acked),
        "visible in GraphQL": milliseconds(looked, lambda p: p.seen - p.acked),
        "due to committed": milliseconds(looked, lambda p: p.acked - p.due),
    }


def _print(measured: Measured, rate: int, seconds: int) -> None:
    console = Console(width=140, highlight=False)
    console.print(f"\n{machine()}; {', '.join(measured.servers)}; {versions(*LIBRARIES)}")
    peer = figures(measured.ms["at a bare consumer"])["p95"]
    table = Table(title=f"{rate:,} changes/s for {seconds} s; ms since the commit had returned", title_justify="left")
    for heading in ("", "p50", "p95", "p99", "max", "p95 to the bare consumer's", "probes"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, ms in measured.ms.items():
        told = figures(ms)
        ratio = f"{told['p95'] / peer:.2f} x"
        table.add_row(name, *(str(told[key]) for key in ("p50", "p95", "p99", "max")), ratio, str(told["probes"]))
    console.print(table)
    visible = figures(measured.ms["visible in GraphQL"])["p95"]
    console.print(f"Goal: p95 below {GOAL_MS} ms, {'met' if visible < GOAL_MS else 'NOT met'} with {visible} ms.")
    console.print(
        f"- A change was due at most {measured.late_ms:.1f} ms before it was given to a service; a look took {measured.look_ms:.1f} ms."
    )
    for caveat in CAVEATS:
        console.print(f"- {caveat}")


if __name__ == "__main__":
    typer.run(main)
