"""One mode as it runs, wherever that is: where it is asked, and what it answers about itself. Starts nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx

from bench.compare.reading import MANY
from demo.servers.process import Process, ServerError
from schema.loader import Mode

PAGE = 100


class Writes(NamedTuple):
    """Where changes are written: published to a Kafka, or, where `bootstrap` is empty, committed to PostgreSQL."""

    bootstrap: str
    topic_prefix: str
    postgres_url: str


@dataclass(frozen=True, slots=True)
class Residence:
    """headers: that ask for the mode. gateway, and keeper, which keeps its answers right: None where they are not ours, or not needed."""

    mode: Mode
    host: str
    port: int
    headers: Mapping[str, str]
    gateway: Process | None = None
    keeper: Process | None = None

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://{self.host}:{self.port}"

    async def ask(self, client: httpx.AsyncClient, ids: Sequence[str], query: str = MANY) -> Any:
        """The response, as JSON has it."""
        answer = await client.post(f"{self.url}/graphql", json={"query": query, "variables": {"ids": ids}}, headers=self.headers)
        return answer.json()

    async def read_all(self, users: int) -> None:
        """Every user once: what can be warm is."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            for ids in pages(users):
                await self.ask(client, ids)

    async def metric(self, name: str, *labels: str) -> float:
        """The sum of what /metrics of the gateway tells under this name and with these labels, each as `name="value"`."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            lines = (await client.get(f"{self.url}/metrics")).text.splitlines()
        found = [line for line in lines if line.startswith((f"{name}{{", f"{name} ")) and all(label in line for label in labels)]
        return sum(float(line.rpartition(" ")[2]) for line in found)


def pages(users: int) -> Sequence[Sequence[str]]:
    """The ids of all users, some at a time."""
    return [[str(number) for number in range(start, min(start + PAGE, users + 1))] for start in range(1, users + 1, PAGE)]


async def check_equal(running: Sequence[Residence], users: int) -> None:
    """Raises ServerError where two modes answer a user differently, or one not at all."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        for ids in pages(users):
            told = [await one.ask(client, ids) for one in running]
            for one, answer in zip(running, told, strict=True):
                if answer != told[-1] or "errors" in answer or None in answer["data"]["users"]:
                    found = f"users {ids[0]} to {ids[-1]} otherwise than {running[-1].mode} does, or lacks one: {str(answer)[:300]}"
                    raise ServerError(f"Mode {one.mode} answers {found}")
