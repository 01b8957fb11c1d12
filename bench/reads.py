"""How many GraphQL reads does a core answer: by viewgate, by the fastest servers of Node, by Python's others?

Every server has a core of its own, one process each; the load and Redis have the other core. All read the same hashes of the same Redis
with 100,000 users, through the same schema; what they answer is proven equal before anything is timed. Each server is asked in its turn
for some seconds by 16 connections, several rounds; figures are medians, with the least and the most. viewgate runs as `viewgate serve`
starts it, with all of its limits and defences; what the others leave out by default they leave out here.
"""

import asyncio
import itertools
import json as json_
import os
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import uvloop
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from app.clients import open_redis
from app.settings import Settings
from app.shared_connection import SharedConnection
from bench.closed_loop import CONNECTIONS, Load, answer, body, load, request
from bench.machine import machine, versions
from bench.memory import Writer, demo_users, live_generation
from bench.peers import environment, node
from bench.picture import bars
from bench.read_servers import DEFINITION, FIELDS, OURS, SERVER_CORE, layout_told, server
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.process import run
from projectors.fold import Effects
from schema import layout

CACHE = Path(__file__).parents[1] / ".cache"
LOAD_CORE = 1
LISTED, AT_ONCE = 50, 1_000
NODE = ("mercurius-jit", "mercurius", "apollo", "yoga")
PYTHON = ("strawberry", "strawberry-caches", "ariadne", "uvicorn", "uvicorn-asgi", "granian-asgi", "granian-bare")
# say nothing of the other queries that they do not say of one user
ONE_QUERY = ("uvicorn-asgi", "granian-asgi", "granian-bare")
LIMITS = ("uvicorn", "granian-bare")
WHAT = {
    OURS: "all its defences on",
    "mercurius-jit": "Mercurius with JIT, Fastify",
    "mercurius": "the same without JIT",
    "apollo": "Apollo Server, standalone",
    "yoga": "GraphQL Yoga, node:http",
    "strawberry": "Strawberry as it comes, uvicorn",
    "strawberry-caches": "with ParserCache and ValidationCache",
    "ariadne": "Ariadne, uvicorn",
    "uvicorn": "limit: the same bytes, read from nowhere",
    "uvicorn-asgi": "this gateway without its short road, uvicorn",
    "granian-asgi": "this gateway without its short road, granian",
    "granian-bare": "limit: the same bytes, granian",
    "redis": "limit: the same HMGETs, without HTTP",
}
LABELS = {"uvicorn-asgi": "viewgate by ASGI", "granian-asgi": "the same, granian"}
# query, contender: ours is to be at least so many times that
GOALS = {
    ("user", "mercurius-jit"): 1.2,
    ("user", "uvicorn"): 0.7,
    ("user", "strawberry"): 30.0,
    ("users", "mercurius-jit"): 2.0,
    ("unseen", "mercurius-jit"): 1.0,
}


class AnswersDiffer(Exception):
    """The servers do not say the same, so their rates mean nothing."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One server's turn at one query. Latencies in milliseconds."""

    query: str
    server: str
    rate: float
    p50: float
    p99: float


class Asking:
    """The bodies of each query, ids drawn from a seed."""

    def __init__(self, users: int) -> None:
        self._users, self._random, self._number = users, random.Random(8), itertools.count()

    def user(self) -> bytes:
        return body(f"query User($id: ID!) {{ user(id: $id) {{ {FIELDS} }} }}", {"id": self._id()})

    def users(self) -> bytes:
        return body(f"query Users($ids: [ID!]!) {{ users(ids: $ids) {{ {FIELDS} }} }}", {"ids": [self._id() for _ in range(LISTED)]})

    def unseen(self) -> bytes:
        """No server has met its text."""
        return body(f"query Q{next(self._number)}($id: ID!) {{ user(id: $id) {{ {FIELDS} }} }}", {"id": self._id()})

    def _id(self) -> str:
        return str(self._random.randint(1, self._users))


def main(
    quick: Annotated[bool, typer.Option(help="2,000 users, short turns: a look, not a judgement.")] = False,
    json: Annotated[Path | None, typer.Option(help="Where to write the figures.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Where to draw those of one user, as SVG.")] = None,
) -> None:
    """Measure GraphQL reads."""
    os.sched_setaffinity(0, {LOAD_CORE})
    users, rounds, seconds = (2_000, 1, 0.5) if quick else (100_000, 5, 2.0)
    turns, about = uvloop.run(measure(users, rounds, seconds))
    _show(turns, about, users)
    if json:
        figures = {"about": about, "users": users, "turns": [asdict(turn) for turn in turns]}
        json.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2))
    if picture:
        picture.write_text(drawn(turns))


async def measure(users: int, rounds: int, seconds: float) -> tuple[Sequence[Turn], str]:
    """Raises AnswersDiffer, MissingError where Node or the peers cannot be had."""
    await environment.prepare("ariadne", print)
    await environment.prepare("granian", print)
    package = await node.prepare(print)
    with scratch() as folder:
        async with (
            redis_server.start(folder, CACHE, prefer="installed", say=print) as redis_at,
            Redis.from_url(redis_at.address) as redis,
            AsyncExitStack() as running,
        ):
            if redis_at.process:
                os.sched_setaffinity(redis_at.process.pid, {LOAD_CORE})
            await _fill(redis, users)
            config = folder / "config.json"
            config.write_text(json_.dumps(layout_told(redis_at.address)))
            commands: dict[str, tuple[str, ...]] = {OURS: (sys.executable, "-m", "app", "serve")}
            commands |= {name: ("node", str(package / "server.mjs"), name) for name in NODE}
            commands |= {name: environment.command("bench.peers.read_app", name) for name in PYTHON}
            ports: dict[str, int] = {}
            for name, argv in commands.items():
                ports[name] = await running.enter_async_context(server(name, argv, config, redis_at.address, folder))
            await _check(ports, users)
            turns = [turn for _ in range(rounds) for turn in await _round(ports, redis_at.address, users, seconds)]
            libraries = versions("strawberry-graphql", "graphql-core", "uvicorn", "httptools", "uvloop", "redis", "hiredis")
            return turns, f"{redis_at.what}; Node {(await run('node', '--version')).strip()}; {machine()}; {libraries}"


async def _round(ports: Mapping[str, int], address: str, users: int, seconds: float) -> list[Turn]:
    turns = []
    for query in ("user", "users", "unseen"):
        for name, port in ports.items():
            if name in ONE_QUERY and query != "user":
                continue
            next_: Callable[[], bytes] = getattr(Asking(users), query)
            await load(port, lambda next_=next_: request(next_()), seconds / 5)  # type: ignore[misc]  # mypy infers no default
            found = await load(port, lambda next_=next_: request(next_()), seconds)  # type: ignore[misc]
            turns.append(_turn(query, name, found))
    turns.append(Turn("user", "redis", await _redis_alone(address, users, seconds), 0.0, 0.0))
    return turns


def _turn(query: str, server: str, found: Load) -> Turn:
    cuts = statistics.quantiles([one * 1000 for one in found.latencies], n=100)
    return Turn(query, server, found.rate, cuts[49], cuts[98])


async def _redis_alone(address: str, users: int, seconds: float) -> float:
    """HMGETs a second over one connection, as many waiting as there are connections of HTTP; this process has the servers' core for it."""
    os.sched_setaffinity(0, {SERVER_CORE})
    client = open_redis(Settings(), address)
    try:
        record = live_generation()
        keys = layout.Layout(DEFINITION.name, record.name, record.shards)
        codes = [record.codes[DEFINITION.columns[0].name], *(record.codes[f.name] for f in DEFINITION.fields if f.camel in FIELDS.split())]
        chance, shared = random.Random(8), SharedConnection(client.connection_pool, 5.0)  # type: ignore[arg-type]  # it is of one server
        loop = asyncio.get_running_loop()
        until_, asked = loop.time() + seconds, 0

        async def ask() -> None:
            nonlocal asked
            while loop.time() < until_:
                row_id = str(chance.randint(1, users))
                await shared.ask([("HMGET", keys.rows_prefix(keys.shard(row_id), record.build) + row_id, *codes)])
                asked += 1

        await asyncio.gather(*[ask() for _ in range(CONNECTIONS)])
        return asked / seconds
    finally:
        await client.aclose()
        os.sched_setaffinity(0, {LOAD_CORE})


async def _fill(redis: Redis, users: int) -> None:
    writer = Writer(redis, live_generation())
    await writer.open()
    people = demo_users(users)
    while part := list(itertools.islice(people, AT_ONCE)):
        counts: dict[str, dict[int | str, int]] = {
            f.name: {user.user_id: found[f.name] for user, found in part} for f in DEFINITION.aggregates
        }
        await writer.write(Effects(counts, {user.user_id: user for user, _ in part}))


async def _check(ports: Mapping[str, int], users: int) -> None:
    """Raises AnswersDiffer."""
    asking = Asking(users * 2)  # half of them do not exist
    for asked in [asking.user() for _ in range(40)] + [asking.users() for _ in range(5)] + [asking.unseen()]:
        answers = {name: msgspec.json.decode(await answer(port, asked)) for name, port in ports.items() if name not in LIMITS}
        wrong = [name for name, found in answers.items() if found.get("data") != answers[OURS]["data"] or "errors" in found]
        if wrong:
            raise AnswersDiffer(f"{wrong[0]} says {answers[wrong[0]]!r}, viewgate {answers[OURS]!r}")


def drawn(turns: Sequence[Turn]) -> str:
    """One user: a bar for each server, the fastest first, without the limits."""
    names = [name for name in dict.fromkeys(turn.server for turn in turns) if not WHAT[name].startswith("limit")]
    values = {LABELS.get(name, name): statistics.median(rates(turns, "user", name)) for name in names}
    fastest = dict(sorted(values.items(), key=lambda value: -value[1]))
    return bars("One user, 8 fields: requests a second of one core", "/s", fastest, OURS)


def rates(turns: Sequence[Turn], query: str, server: str) -> list[float]:
    return [turn.rate for turn in turns if (turn.query, turn.server) == (query, server)]


def goals(turns: Sequence[Turn]) -> list[tuple[str, str, float, float]]:
    """Of each goal: the query, whom it is against, how many times ours is to be that, and how many it is."""
    found = []
    for (query, peer), wanted in GOALS.items():
        ours, theirs = (statistics.median(rates(turns, query, name)) for name in (OURS, peer))
        found.append((query, peer, wanted, ours / theirs))
    return found


def _show(turns: Sequence[Turn], about: str, users: int) -> None:
    console = Console(width=140)
    console.print(f"\n{about}")
    for query in dict.fromkeys(turn.query for turn in turns):
        title = {"user": "one user, 8 fields", "users": f"{LISTED} users", "unseen": "a text never seen before"}[query]
        table = Table(title=f"{title}: requests a second of one core, {CONNECTIONS} connections, {users:,} users", title_justify="left")
        for heading in ("server", "as what"):
            table.add_column(heading)
        for heading in ("requests/s", "min to max", "viewgate to it", "p50 ms", "p99 ms"):
            table.add_column(heading, justify="right")
        ours = statistics.median(rates(turns, query, OURS))
        for name in dict.fromkeys(turn.server for turn in turns if turn.query == query):
            found, own = rates(turns, query, name), [turn for turn in turns if (turn.query, turn.server) == (query, name)]
            median = statistics.median(found)
            times = [f"{statistics.median(one):.2f}" if any(one) else "" for one in ([t.p50 for t in own], [t.p99 for t in own])]
            table.add_row(name, WHAT[name], f"{median:,.0f}", f"{min(found):,.0f} to {max(found):,.0f}", f"{ours / median:.2f}", *times)
        console.print(table)
    for query, peer, wanted, is_ in goals(turns):
        told = "met" if is_ >= wanted else "MISSED"
        console.print(f"- Goal, {query} against {peer}: {wanted:g} x; it is {is_:.2f}: {told}.", highlight=False)
    console.print("- The load shares its core with Redis. Compare the ratios, not the rates.", highlight=False)


if __name__ == "__main__":
    typer.run(main)
