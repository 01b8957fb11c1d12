"""How long after a change is due is it acknowledged by Kafka, in Redis, and visible in GraphQL, while 1,000 changes come a second?

Open loop: a change is due when the schedule says, and is timed from then, however late it was sent. One process projects, another
serves; Kafka with six partitions, Redis, and a load generator share the machine with them. One change of twenty is a probe, a tweet
of a user who has no other. Half of the probes are looked for all the time, in Redis by a ViewLoader and in GraphQL over HTTP, one
look after the other; of the other half the writer reads its own write with the token that Kafka's acknowledgement gave it, and then
a row of a shard that the write did not touch. The peer is a consumer that only notes when records came to it; it gets the same traffic
first, on topics of its own, with nothing of ours beside it. In the end every user's counts in the view must be what was sent, or the
run fails; so it does where a read with a token lacks its write.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any

import msgspec
import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from bench import bare
from bench.contender import Task
from bench.machine import machine, versions
from bench.probes import PROBED, Probe, Traffic, View
from demo import seed
from demo.publish import Publisher, record
from demo.servers import kafka
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, free_port, until
from demo.servers.server import Server
from demo.services import answers, service
from loaders.view import ViewLoader
from schema.definition import read_definition
from schema.loader import Read, ViewNotReady
from schema.user import UserView

CACHE = Path(__file__).parents[1] / ".cache"
LIBRARIES = ("aiokafka", "redis", "hiredis", "strawberry-graphql", "uvicorn", "confluent-kafka")
PARTITIONS = 6
PEER = "peer."
RATE, SECONDS, USERS = 1000, 60, 5000
LEVEL_SECONDS = 60
GOAL_MS = 50
DEFINITION = read_definition(UserView)
COUNTS = ("tweet_count", "following_count", "follower_count")
CAVEATS = (
    "One machine: everything shares its cores, the load generator and the looks too. Compare with the bare consumer, not elsewhere.",
    "The bare consumer had the machine for itself and the load generator: no projector, no gateway, no looks.",
    "Visible is when the answer that has it has come; one look after the other, so it is later by up to one look.",
    "The producer lingers 5 ms, as the demo's does. Redis writes its append-only file (everysec).",
)


class CountsDiffer(Exception):
    """What the view holds in the end is not what was sent, so its speed means nothing."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds of each probe, by what was measured. late_ms: by how much a change was sent too late, at most."""

    ms: Mapping[str, Sequence[float]]
    late_ms: float
    look_ms: float
    servers: Sequence[str]


def main(
    quick: Annotated[bool, typer.Option(help="Five seconds: a look, not a judgement.")] = False,
    seconds: Annotated[int, typer.Option(help="For how long changes come.")] = SECONDS,
    rate: Annotated[int, typer.Option(help="Changes per second.")] = RATE,
    json: Annotated[Path | None, typer.Option(help="Where to write every probe's figures.")] = None,
) -> None:
    """Measure how fresh the view is."""
    seconds = 5 if quick else seconds
    measured = asyncio.run(measure(rate, seconds))
    _print(measured, rate, seconds)
    if json:
        about = {"machine": machine(), "servers": measured.servers, "versions": versions(*LIBRARIES), "rate": rate, "seconds": seconds}
        told = {name: figures(ms) for name, ms in measured.ms.items()}
        rounded = {name: [round(one, 2) for one in ms] for name, ms in measured.ms.items()}
        found = {**about, "late_ms": measured.late_ms, "look_ms": measured.look_ms, "figures": told, "ms": rounded}
        json.write_text(as_text(found))


def as_text(found: Mapping[str, Any]) -> str:
    """JSON, the numbers of one span on one line."""
    written = msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
    return re.sub(r"\[[-\d.,\s]+\]", lambda numbers: re.sub(r"\s+", " ", numbers[0]), written) + "\n"


async def measure(rate: int, seconds: int) -> Measured:
    """Raises CountsDiffer, and what Traffic raises."""
    with scratch() as folder:
        async with _servers(folder) as (broker, redis), Redis.from_url(redis.address) as client:
            publisher = Publisher(broker.address)
            await _seed(publisher, broker.address, rate * seconds // PROBED + USERS)
            peer = await _peer(broker.address, rate, seconds)
            async with ours(folder, broker.address, redis.address) as graphql:
                traffic = Traffic(publisher, rate, seconds, USERS, View(client, DEFINITION, graphql))
                await proven(traffic)
                await traffic.run()
                await proven(traffic)
            return Measured(_spans(traffic.probes, peer), traffic.late * 1000, median(traffic.looks) * 1000, [broker.what, redis.what])


@asynccontextmanager
async def _servers(folder: Path) -> AsyncIterator[tuple[Server, Server]]:
    async with (
        kafka.start(folder, CACHE, prefer="installed", say=print) as broker,
        redis_server.start(folder, CACHE, prefer="installed", say=print) as redis,
    ):
        yield broker, redis


@asynccontextmanager
async def ours(folder: Path, bootstrap: str, redis_url: str, prefix: str = "") -> AsyncIterator[str]:
    """`viewgate project` and `viewgate serve`, of topics with this prefix; the URL of GraphQL."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    given = {"VIEWGATE_KAFKA_BOOTSTRAP": bootstrap, "VIEWGATE_REDIS_URL": redis_url, "VIEWGATE_PORT": str(port)}
    given["VIEWGATE_TOPIC_PREFIX"] = prefix
    # a read with a token is timed, however long it waits
    given["VIEWGATE_AFTER_WAIT_SECONDS"] = "30"
    # the view comes from Kafka and Redis alone: PostgreSQL is never asked
    processes = [
        service("projector", ("app", "project"), folder, given),
        service("gateway", ("app", "serve"), folder, given, answers(f"{url}/readyz")),
    ]
    try:
        for process in processes:
            await process.start()
        yield f"{url}/graphql"
    finally:
        for process in processes:
            await process.stop()


async def _seed(publisher: Publisher, bootstrap: str, users: int) -> None:
    await kafka.create_topics(bootstrap, dict.fromkeys(DEFINITION.topics, PARTITIONS))
    publisher.send_all(record("c", None, seed.user(number), 1) for number in range(1, users + 1))
    publisher.flush()


async def _peer(bootstrap: str, rate: int, seconds: int) -> Sequence[Probe]:
    """The same changes on topics of its own, and when each probe came to a bare consumer."""
    await kafka.create_topics(bootstrap, dict.fromkeys((PEER + topic for topic in DEFINITION.topics), PARTITIONS))
    traffic = Traffic(Publisher(bootstrap, PEER), rate, seconds, USERS)
    context = get_context("spawn")
    ours, its = context.Pipe()
    task = Task(bootstrap, "", PEER, "bare", traffic.changes // PROBED)
    process = context.Process(target=bare.note, args=(task, f"{PEER}tweets", its), daemon=True)
    process.start()
    try:
        if await asyncio.to_thread(ours.recv) != bare.READY:
            raise RuntimeError("the bare consumer did not start")
        await traffic.run()
        came: Mapping[bytes, float] = await asyncio.to_thread(ours.recv)
    finally:
        process.terminate()
        process.join()
    for probe in traffic.probes:
        probe.came = came[str(probe.user).encode()]
    return traffic.probes


async def proven(traffic: Traffic) -> None:
    """Raises CountsDiffer where the view does not come to hold what was sent."""
    if traffic.view is None:
        raise ValueError("nothing is looked for")
    try:
        await until(partial(_level, traffic.view, _expected(traffic)), LEVEL_SECONDS)
    except TimeoutError as late:
        raise CountsDiffer(str(late)) from late


def _expected(traffic: Traffic) -> Mapping[int, tuple[int, ...]]:
    """By user: tweets, following, followers, of what was sent."""
    users = range(1, traffic.changes // PROBED + USERS + 1)
    tweeted = {probe.user for probe in traffic.probes}
    return {user: (int(user in tweeted), traffic.following.get(user, 0), traffic.followers.get(user, 0)) for user in users}


async def _level(view: View, expected: Mapping[int, tuple[int, ...]]) -> None:
    """Raises NotReadyError until every user's counts are as expected."""
    try:
        rows = (await ViewLoader(view.redis, view.definition).load([Read("id", str(user), COUNTS) for user in expected])).rows
    except ViewNotReady as not_yet:
        raise NotReadyError(str(not_yet)) from not_yet
    found = {user: None if row is None else tuple(map(int, row)) for user, row in zip(expected, rows, strict=True)}
    if wrong := [user for user in expected if found[user] != expected[user]]:
        one = wrong[0]
        raise NotReadyError(f"{len(wrong)} users differ; user {one} has {found[one]} and should have {expected[one]} ({', '.join(COUNTS)})")


def _spans(probes: Sequence[Probe], peer: Sequence[Probe]) -> Mapping[str, Sequence[float]]:
    """What is told, in its order. Of the first quarter nothing: there everything is still warming up."""
    warm, its = probes[len(probes) // 4 :], peer[len(peer) // 4 :]
    looked, waited = [p for p in warm if not p.waits], [p for p in warm if p.waits]
    return {
        "at a bare consumer": milliseconds(its, lambda p: p.came - p.due),
        "acknowledged by Kafka": milliseconds(warm, lambda p: p.acked - p.due),
        "in Redis": milliseconds(looked, lambda p: p.stored - p.due),
        "visible in GraphQL": milliseconds(looked, lambda p: p.seen - p.due),
        "due to sent": milliseconds(looked, lambda p: p.sent - p.due),
        "sent to acknowledged": milliseconds(looked, lambda p: p.acked - p.sent),
        "acknowledged to in Redis": milliseconds(looked, lambda p: p.stored - p.acked),
        "in Redis to visible in GraphQL": milliseconds(looked, lambda p: p.seen - p.stored),
        "own write read back": milliseconds(waited, lambda p: p.read - p.acked),
        "an untouched shard, after that": milliseconds(waited, lambda p: p.stranger - p.read),
    }


def milliseconds(probes: Sequence[Probe], span: Callable[[Probe], float]) -> list[float]:
    return [span(probe) * 1000 for probe in probes]


def figures(ms: Sequence[float]) -> Mapping[str, Any]:
    cuts = quantiles(ms, n=100, method="inclusive")
    return {"probes": len(ms), "p50": round(cuts[49], 1), "p95": round(cuts[94], 1), "p99": round(cuts[98], 1), "max": round(max(ms), 1)}


def _print(measured: Measured, rate: int, seconds: int) -> None:
    console = Console(width=140, highlight=False)
    console.print(f"\n{machine()}; {', '.join(measured.servers)}; {versions(*LIBRARIES)}")
    names = list(measured.ms)
    peer = figures(measured.ms["at a bare consumer"])["p95"]
    titles = (
        f"{rate:,} changes/s for {seconds} s; ms since each was due",
        "where the time goes, ms",
        "read your writes, ms since Kafka's answer",
    )
    for title, part in zip(titles, (names[:4], names[4:8], names[8:]), strict=True):
        table = Table(title=title, title_justify="left")
        for heading in ("", "p50", "p95", "p99", "max", "p95 to the bare consumer's", "probes"):
            table.add_column(heading, justify="right" if heading else "left")
        for name in part:
            told = figures(measured.ms[name])
            table.add_row(
                name, *(str(told[key]) for key in ("p50", "p95", "p99", "max")), f"{told['p95'] / peer:.2f} x", str(told["probes"])
            )
        console.print(table)
    visible = figures(measured.ms["visible in GraphQL"])["p95"]
    console.print(f"Goal: p95 below {GOAL_MS} ms, {'met' if visible < GOAL_MS else 'NOT met'} with {visible} ms.")
    console.print(f"- A change was sent at most {measured.late_ms:.1f} ms too late; a look took {measured.look_ms:.1f} ms (median).")
    for caveat in CAVEATS:
        console.print(f"- {caveat}")


if __name__ == "__main__":
    typer.run(main)
