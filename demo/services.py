"""Our own processes of the demo: projector, gateway, sink, traffic. Started and stopped as the servers are."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import httpx

from demo.servers.process import Command, NotReadyError, Process
from demo.servers.stack import Stack

PORT = 8000


def settings(stack: Stack, port: int) -> Mapping[str, str]:
    """What each of our processes is told by its environment."""
    return {
        "VIEWGATE_KAFKA_BOOTSTRAP": stack.kafka.address,
        "VIEWGATE_REDIS_URL": stack.redis.address,
        "VIEWGATE_POSTGRES_URL": stack.postgres.address,
        "VIEWGATE_ALLOW_MODE_HEADER": "1",
        "VIEWGATE_FALLBACK": "sql",
        "VIEWGATE_PORT": str(port),
    }


def service(name: str, module: tuple[str, ...], folder: Path, environment: Mapping[str, str], ready: "Ready | None" = None) -> Process:
    """A process of ours that runs `python -m module…`; its log is in the folder."""
    # `env` becomes the program: one process, one id
    argv = ("env", *(f"{key}={value}" for key, value in environment.items()), sys.executable, "-m", *module)
    log = folder / f"{name}.log"
    log.write_bytes(b"")
    return Process(Command(name, argv, log, ready or _at_once))


Ready = Callable[[], Awaitable[object]]


async def _at_once() -> None:
    pass


def answers(url: str) -> Ready:
    """Ready when this address answers with 200."""
    return partial(_answers, url)


async def _answers(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        try:
            answer = await client.get(url)
        except httpx.HTTPError as error:
            raise NotReadyError(repr(error)) from error
    if answer.status_code != 200:
        raise NotReadyError(answer.text)
