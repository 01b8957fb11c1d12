"""What a demo asks its gateway: one query in every mode, when all that was written is in PostgreSQL and in the view."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import httpx
from redis.asyncio import Redis

from demo.publishing import LEVEL_SECONDS, Check, Publishing
from demo.servers.process import NotReadyError, ServerError, until
from schema import layout
from schema.definition import Definition
from schema.loader import CACHED, MODES

# one alone tells more of the machine's other work than of the mode
TIMES = 21


@dataclass(frozen=True, slots=True)
class Question:
    """gateway: its URL, without a path."""

    gateway: str
    query: str

    async def ask(self, mode: str, times: int = 1) -> tuple[httpx.Response, float]:
        """The last response of so many, one after the other, and how many ms one took over an open connection: the median."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            await client.get(f"{self.gateway}/livez")
            took = []
            for _ in range(times):
                began = time.perf_counter()
                answer = await client.post(f"{self.gateway}/graphql", json={"query": self.query}, headers={"viewgate-mode": mode})
                took.append((time.perf_counter() - began) * 1000)
            return answer, statistics.median(took)


async def level(question: Question, publishing: Publishing, check: Check) -> float:
    """Wait until PostgreSQL and the view have all that was written; the seconds it took. Raises ServerError, and as `check` does."""
    began = time.monotonic()
    try:
        moment = await publishing.published(check)

        async def reached() -> None:
            check()
            await _passed(question, moment)

        await until(reached, LEVEL_SECONDS)
    except TimeoutError as late:
        raise ServerError(f"The view was not level after {LEVEL_SECONDS // 60} minutes: {late}. See the logs of its processes.") from late
    return time.monotonic() - began


async def forget_cached(redis_url: str, definition: Definition) -> None:
    """What an earlier demo left in the cache is out of date by now, as cache-aside is until its time is up."""
    async with Redis.from_url(redis_url) as redis:
        patterns = [layout.cache_key(definition.name, mode, "*", "*") for mode in CACHED]
        keys = [key for pattern in patterns async for key in redis.scan_iter(pattern, count=1000)]
        if keys:
            await redis.unlink(*keys)


async def _passed(question: Question, moment: float) -> None:
    """Raises NotReadyError until the view has everything that was published at `moment`, in Unix seconds."""
    answer, _ = await question.ask("view")
    as_of = answer.headers.get("viewgate-as-of")
    if answer.headers.get("viewgate-mode") != "view" or as_of is None or datetime.fromisoformat(as_of).timestamp() < moment:
        raise NotReadyError(f"the view is as of {as_of}")


async def show(question: Question, level_seconds: float, say: Callable[[str], None]) -> None:
    """Ask in every mode, and say what each answers. Raises ServerError where they differ."""
    url = f"{question.gateway}/graphql"
    say(f"\n[bold]GraphQL at {url}[/] (PostgreSQL and view level after {level_seconds:.1f} s)\n\n{question.query}\n")
    given: dict[str, Mapping[str, object]] = {}
    for mode in MODES:
        await question.ask(mode)
        answer, ms = await question.ask(mode, TIMES)
        given[mode] = answer.json()
        say(f"{mode:>16} {ms:6.1f} ms  {json.dumps(given[mode], ensure_ascii=False)}")
    if any("errors" in answer or answer != given["sql"] for answer in given.values()):
        raise ServerError("The modes do not answer alike. That is a bug: please report it with the output above.")
    body = json.dumps({"query": question.query})
    say(f"\ncurl {url} -H 'content-type: application/json' -d '{body}'\n")
