"""What does the worst body cost a gateway?

Each of bodies.py, no longer than a gateway takes by default, is sent to a gateway of its own that has never seen it, and then once more:
the CPU time of both, in milliseconds, without a socket and over rows in memory. Every answer must be what GraphQL over HTTP has, and no
mistake of ours, or the run fails; it fails too where one costs more than MOST_MS.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from app.server import application
from app.settings import Settings
from app.telemetry import GatewayMetrics
from bench.bodies import BODIES, LARGEST
from bench.closed_loop import body as query
from bench.machine import machine, versions
from schema.definition import read_definition
from schema.loader import Read, Rows
from schema.user import UserView

MOST_MS = 25.0
DEFINITION = read_definition(UserView)
SCOPE = {"type": "http", "method": "POST", "path": "/graphql", "query_string": b"", "headers": [(b"content-type", b"application/json")]}
SMALL = query("query ($i: ID!) { user(id: $i) { id } }", {"i": "1"})


class WrongAnswer(Exception):
    """A mistake of ours, or no GraphQL over HTTP."""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU milliseconds, the median of the rounds: of the first time, and of the second. code: of the answer, "ok" without errors."""

    body: str
    size: int
    first_ms: float
    second_ms: float
    status: int
    code: str


class Nobody:
    """A loader that finds no row."""

    async def load(self, reads: Sequence[Read]) -> Rows:
        return Rows([None] * len(reads), "view", "g1", 1)

    async def ready(self) -> None:
        return


def main(
    quick: Annotated[bool, typer.Option(help="One round of each: a look, not a judgement.")] = False,
    json: Annotated[Path | None, typer.Option(help="Where to write the figures.")] = None,
) -> None:
    """Measure what the worst bodies cost."""
    small, costs = asyncio.run(measure(1 if quick else 5))
    about = f"{machine()}; {versions('strawberry-graphql', 'graphql-core', 'msgspec')}"
    _show(small, costs, about)
    if json:
        json.write_bytes(
            msgspec.json.format(msgspec.json.encode({"about": about, "small": small, "bodies": list(map(asdict, costs))}), indent=2)
        )
    if not quick and max(cost.first_ms for cost in costs) > MOST_MS:
        raise typer.Exit(1)


async def measure(rounds: int) -> tuple[Cost, Sequence[Cost]]:
    """Of a small query, and of each body, the dearest first. Raises WrongAnswer."""
    for name, body in BODIES.items():
        if len(body) > LARGEST:
            raise WrongAnswer(f"{name} has {len(body):,} bytes: it would be refused unread")
    costs = [await _cost(name, body, rounds) for name, body in BODIES.items()]
    return await _cost("a small query", SMALL, rounds), sorted(costs, key=lambda cost: -cost.first_ms)


async def _cost(name: str, body: bytes, rounds: int) -> Cost:
    firsts: list[float] = []
    seconds: list[float] = []
    for _ in range(rounds):
        app = application(Settings(_env_file=None, pages=False), DEFINITION, {"view": Nobody()}, GatewayMetrics())  # type: ignore[call-arg]  # pydantic-settings' own
        # what is made by the first request of all is nobody's cost
        await asked(app, SMALL.replace(b"id }", b"username }"))
        gc.collect()
        for times in (firsts, seconds):
            began = time.process_time()
            status, code = await asked(app, body)
            times.append((time.process_time() - began) * 1000)
    return Cost(name, len(body), statistics.median(firsts), statistics.median(seconds), status, code)


async def asked(app: Any, body: bytes) -> tuple[int, str]:
    """The status, and the code of the first error, of the last operation. Raises WrongAnswer."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(dict(SCOPE), receive, send)
    status, answer = sent[0]["status"], msgspec.json.decode(sent[1]["body"])
    code = "ok"
    for one in answer if isinstance(answer, list) else [answer]:
        errors = one.get("errors", [])
        code = errors[0]["extensions"]["code"] if errors else "ok"
        if status >= 500 or code == "INTERNAL" or not (errors or "data" in one):
            raise WrongAnswer(f"{status} {sent[1]['body']!r} to {body[:100]!r}")
    return status, code


def _show(small: Cost, costs: Sequence[Cost], about: str) -> None:
    console = Console(width=140)
    console.print(f"\n{about}")
    table = Table(title="CPU of one request, in ms", title_justify="left")
    table.add_column("body")
    for heading in ("bytes", "first time", "to a small query", "once more"):
        table.add_column(heading, justify="right")
    table.add_column("answer")
    for cost in (*costs, small):
        ratio, answer = cost.first_ms / small.first_ms, f"{cost.status} {cost.code}"
        table.add_row(cost.body, f"{cost.size:,}", f"{cost.first_ms:.2f}", f"{ratio:.1f} x", f"{cost.second_ms:.2f}", answer)
    console.print(table)
    worst = costs[0]
    console.print(f"- The worst takes {worst.first_ms:.1f} ms, of {MOST_MS:g} that it may.", highlight=False)


if __name__ == "__main__":
    typer.run(main)
