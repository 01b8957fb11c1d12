"""Our own processes of the demo: projector, gateway, sink, traffic, follows. Started and stopped as the servers are."""

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import httpx

from demo.servers.process import Command, NotReadyError, Process, ServerError
from demo.servers.stack import Stack

PORT = 8000


def settings(stack: Stack, view: str, port: int, topic_prefix: str = "", writes_url: str = "") -> Mapping[str, str]:
    """What each of our processes is told by its environment, whatever else that has. An empty one is the default."""
    return {
        "VIEWGATE_VIEW": view,
        "VIEWGATE_KAFKA_BOOTSTRAP": stack.kafka.address,
        "VIEWGATE_REDIS_URL": stack.redis.address,
        "VIEWGATE_POSTGRES_URL": stack.postgres.address,
        "VIEWGATE_TOPIC_PREFIX": topic_prefix,
        "VIEWGATE_ALLOW_MODE_HEADER": "1",
        "VIEWGATE_FALLBACK": "sql",
        "VIEWGATE_PORT": str(port),
        "VIEWGATE_WRITES_URL": writes_url,
    }


def service(name: str, module: tuple[str, ...], folder: Path, environment: Mapping[str, str], ready: "Ready | None" = None) -> Process:
    """A process of ours that runs `python -m module…`; its log is in the folder."""
    # a process of ours runs in /, and the view may be a module of the folder where the demo was started
    modules = os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH"))))
    variables = {**environment, "PYTHONPATH": modules}
    # `env` becomes the program: one process, one id
    argv = ("env", *(f"{key}={value}" for key, value in variables.items()), sys.executable, "-m", *module)
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
    # to read the certificates of TLS, which is not spoken here, takes 20 ms of the processor
    async with httpx.AsyncClient(trust_env=False, timeout=5, verify=False) as client:  # noqa: S501
        try:
            answer = await client.get(url)
        except httpx.HTTPError as error:
            raise NotReadyError(repr(error)) from error
    if answer.status_code != 200:
        raise NotReadyError(answer.text)


def check_alive(processes: Sequence[Process]) -> None:
    """Raises ServerError, with the name of its log, when one of them has ended."""
    for process in processes:
        if not process.alive:
            raise ServerError(f"{process.command.name} has ended by itself; its log is {process.command.log}.")
