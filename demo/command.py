"""`viewgate demo`: the real stack, a scenario's seed, the main job, and one query answered in all three modes."""

import asyncio
import importlib.util
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import asyncpg
import typer
import uvloop
from rich.console import Console

from app.cli import CommandError
from app.settings import read_settings
from app.stopping import told_to_stop
from app.views import definition_of
from demo.environment import forget_the_told, told
from demo.publish import Publisher, publish_all
from demo.questions import Question, level, show
from demo.scenario import Scenario, Seed, find
from demo.seed_command import FOREVER
from demo.servers.kafka import create_topics
from demo.servers.process import Process, ServerError
from demo.servers.stack import Stack, locked, stack
from demo.services import PORT, answers, check_alive, service, settings
from schema.definition import Definition

CACHE = Path(".cache").absolute()
console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command."""

    scenario: Scenario
    definition: Definition
    port: int
    once: bool
    fresh: bool
    embedded: bool
    reload: bool

    @property
    def folder(self) -> Path:
        """What it keeps, and its logs; the scenario's own, and never one that holds anything else."""
        return CACHE / ("demo" if self.scenario.name == "users" else f"demo-{self.scenario.name}")

    @property
    def url(self) -> str:
        """Of the gateway, without a path."""
        return f"http://127.0.0.1:{self.port}"


def demo(
    port: Annotated[int, typer.Option(help="Where the gateway listens, on 127.0.0.1.", min=1, max=65535)] = PORT,
    scenario: Annotated[
        str, typer.Option(metavar="MODULE:NAME", help="What is shown: a view, its rows and its query.")
    ] = "demo.scenario:USERS",
    once: Annotated[bool, typer.Option("--once", help="End after the answers.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier demo stored, and seed again.")] = False,
    embedded: Annotated[bool, typer.Option("--embedded", help="Servers from PyPI, even where real ones are installed.")] = False,
    reload: Annotated[bool, typer.Option("--reload", help="Start gateway and projector again when a source file changes.")] = False,
) -> None:
    """Start Kafka, Redis, PostgreSQL, a projector and the gateway; seed them; answer one query in three modes; go on until Ctrl-C.

    \b
    Examples:
      viewgate demo
      viewgate demo --port 8001 --once
      viewgate demo --scenario examples.shop.scenario:SHOP --reload
    """
    forget_the_told()
    found = find(scenario)
    definition = definition_of(read_settings().model_copy(update={"view": found.view, "topic_prefix": ""}))
    _check_free(port)
    if reload and importlib.util.find_spec("watchfiles") is None:
        raise CommandError("--reload needs watchfiles, which is installed for development only: `make dev`, or leave the option out.")
    try:
        uvloop.run(_demo(Asked(found, definition, port, once, fresh, embedded, reload)))
    except (ServerError, asyncpg.PostgresError) as error:
        raise CommandError(str(error)) from error


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as taken:
            raise CommandError(f"Port {port} is taken: stop what listens there, or choose another with `make demo PORT=8001`.") from taken


async def _demo(asked: Asked) -> None:
    stop = told_to_stop()
    running = asyncio.create_task(_run(asked, stop))
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        console.print("Stopping …")
        running.cancel()
    waiting.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    if not running.cancelled() and (error := running.exception()):
        raise error


async def _run(asked: Asked, stop: asyncio.Event) -> None:
    scenario, definition = asked.scenario, asked.definition
    # what was built with another definition is no view of this one
    seeded = asked.folder / f"seeded-{scenario.version}-{definition.fingerprint}"
    if asked.fresh or not seeded.exists():
        _forget(asked.folder)
    async with AsyncExitStack() as opened:
        starting = stack(asked.folder, CACHE, prefer="embedded" if asked.embedded else None, say=console.print)
        servers = await opened.enter_async_context(starting)
        await create_topics(servers.kafka.address, dict.fromkeys(definition.topics, scenario.partitions), FOREVER)
        processes = await _start(opened, asked, servers)
        if not (servers.persistent and seeded.exists()):
            seed = _seed_for(asked, servers)
            await publish_all(Publisher(servers.kafka.address), seed.records(), seed.rows, console)
            if servers.persistent:
                seeded.touch()
        question = Question(asked.url, scenario.query)
        with console.status("Waiting until sink and projector have it all …"):
            seconds = await level(question, definition, servers, partial(check_alive, processes))
        await show(question, seconds, console.print)
        if not asked.once:
            await _go_on(opened, asked, servers, processes, stop)


def _seed_for(asked: Asked, servers: Stack) -> Seed:
    return asked.scenario.full if servers.kafka.what.startswith("Apache") else asked.scenario.small


def _forget(folder: Path) -> None:
    """An earlier seeding that was cut short is no state to go on from."""
    with locked(folder):
        for old in folder.iterdir():
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            elif old.name != "lock":
                old.unlink()


async def _start(opened: AsyncExitStack, asked: Asked, servers: Stack) -> list[Process]:
    """Sink, projector and gateway; and the file that tells other terminals of them."""
    environment = settings(servers, asked.scenario.view, asked.port)
    processes = [
        service("sink", ("demo.sink",), asked.folder, environment),
        service("projector", ("app", "project"), asked.folder, environment),
        service("gateway", ("app", "serve"), asked.folder, environment, answers(f"{asked.url}/livez")),
    ]
    opened.enter_context(told(asked.folder / "env", environment, [server.address for server in servers.servers if server.process]))
    for process in processes:
        await _open(opened, process)
    return processes


async def _open(opened: AsyncExitStack, process: Process) -> None:
    opened.push_async_callback(process.stop)
    await process.start()


async def _go_on(opened: AsyncExitStack, asked: Asked, servers: Stack, processes: Sequence[Process], stop: asyncio.Event) -> None:
    """Live changes, until Ctrl-C. Raises ServerError when one of ours has ended by itself."""
    traffic = _seed_for(asked, servers).traffic
    live = [service("traffic", traffic, asked.folder, settings(servers, asked.scenario.view, asked.port))] if traffic else []
    for process in live:
        await _open(opened, process)
    sink, *restarted = processes
    kept = [sink, *live] if asked.reload else [*processes, *live]
    ticks = _reloading(asked, servers, restarted) if asked.reload else _ticks()
    # by then files are watched
    await anext(ticks)
    _tell(asked, "Live changes are coming in. " if traffic else "")
    async for _ in ticks:
        if stop.is_set():
            return
        check_alive(kept)


def _tell(asked: Asked, live: str) -> None:
    if asked.reload:
        console.print("Gateway and projector start again when a source file changes.")
    console.print(f"In a browser:         {asked.url}/ and {asked.url}/graphql")
    console.print(f"In another terminal:  . {(asked.folder / 'env').relative_to(CACHE.parent)}")
    console.print("                then: viewgate user 1 · viewgate doctor · viewgate audit")
    console.print(f"{live}Ctrl-C stops everything.")


def _reloading(asked: Asked, servers: Stack, processes: Sequence[Process]) -> AsyncIterator[None]:
    from demo.reload import Reloading, folders_of  # noqa: PLC0415  # watchfiles is there for development only

    ours = servers.redis.address if servers.redis.process else None
    return Reloading(processes, ours, console.print).watch(folders_of(asked.scenario.view))


async def _ticks() -> AsyncIterator[None]:
    while True:
        yield
        await asyncio.sleep(0.5)
