"""`viewgate demo`: the real stack, a scenario's seed, the main job, and one query answered in all modes."""

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
from demo.capture import NAME, topic_prefix
from demo.environment import forget_the_told, told
from demo.publish import unpublished
from demo.publishing import Captured, Place, SingleWrite, started
from demo.questions import Question, forget_cached, level, show
from demo.scenario import Scenario, Seed, find
from demo.seed_command import FOREVER
from demo.servers import connect
from demo.servers.kafka import create_topics
from demo.servers.process import Process, ServerError, free_port
from demo.servers.server import MissingError
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
    cdc: bool

    @property
    def folder(self) -> Path:
        """What it keeps, and its logs; the scenario's own, and never one that holds anything else."""
        name = "demo" if self.scenario.name == "users" else f"demo-{self.scenario.name}"
        return CACHE / (f"{name}-cdc" if self.cdc else name)

    @property
    def topic_prefix(self) -> str:
        """Of the definition's topics."""
        return topic_prefix(NAME) if self.cdc else ""

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
    cdc: Annotated[bool, typer.Option("--cdc", help="Services write PostgreSQL, and Debezium publishes: change data capture.")] = False,
) -> None:
    """Start Kafka, Redis, PostgreSQL, a projector and the gateway; seed them; answer one query in four modes; go on until Ctrl-C.

    \b
    Examples:
      viewgate demo
      viewgate demo --port 8001 --once
      viewgate demo --cdc
      viewgate demo --scenario examples.shop.scenario:SHOP --reload
    """
    forget_the_told()
    found = find(scenario)
    prefix = topic_prefix(NAME) if cdc else ""
    definition = definition_of(read_settings().model_copy(update={"view": found.view, "topic_prefix": prefix}))
    if reason := unpublished(definition):
        raise CommandError(reason)
    _check_free(port)
    if reload and importlib.util.find_spec("watchfiles") is None:
        raise CommandError("--reload needs watchfiles, which is installed for development only: `make dev`, or leave the option out.")
    if cdc and embedded:
        raise CommandError("--cdc needs Apache Kafka, for which nothing from PyPI can stand in: leave --embedded out.")
    try:
        uvloop.run(_demo(Asked(found, definition, port, once, fresh, embedded, reload, cdc)))
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
    if asked.cdc:
        await _check_connect()
    if asked.fresh or not seeded.exists():
        _forget(asked.folder)
    async with AsyncExitStack() as opened:
        starting = stack(asked.folder, CACHE, prefer="embedded" if asked.embedded else None, say=console.print)
        servers = await opened.enter_async_context(starting)
        await create_topics(servers.kafka.address, dict.fromkeys(definition.topics, scenario.partitions), FOREVER)
        place = _place(opened, asked, servers)
        publishing = Captured(place) if asked.cdc else SingleWrite(place)
        missing = None if servers.persistent and seeded.exists() else _seed_for(asked, servers)
        processes = [*await publishing.start(opened, missing, console), *await _start(opened, asked, place)]
        if missing:
            await publishing.fill(missing, console)
            if servers.persistent:
                seeded.touch()
        question = Question(asked.url, scenario.query)
        with console.status("Waiting until PostgreSQL and the view have it all …"):
            seconds = await level(question, publishing, partial(check_alive, processes))
        # of an earlier run, or of somebody who looked at a page meanwhile
        await forget_cached(servers.redis.address, definition)
        await show(question, seconds, console.print)
        if not asked.once:
            seed = _seed_for(asked, servers)
            live = await _live(opened, place, publishing.traffic(seed), publishing.writes(seed))
            await _go_on(asked, place, live, processes, stop)


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


async def _check_connect() -> None:
    """Before anything is started: there is no stand-in."""
    try:
        await connect.find(CACHE, console.print)
    except MissingError as missing:
        raise CommandError(f"Change data capture needs Kafka Connect: {missing}. Or leave --cdc (CDC=1) out.") from missing


def _place(opened: AsyncExitStack, asked: Asked, servers: Stack) -> Place:
    """With the file that tells other terminals of it."""
    # told before it is started: with the gateway's first page
    writes_url = f"http://127.0.0.1:{free_port()}" if _seed_for(asked, servers).writes and not asked.once else ""
    environment = settings(servers, asked.scenario.view, asked.port, asked.topic_prefix, writes_url)
    opened.enter_context(told(asked.folder / "env", environment, [server.address for server in servers.servers if server.process]))
    return Place(servers, asked.definition, environment, asked.folder, CACHE)


async def _start(opened: AsyncExitStack, asked: Asked, place: Place) -> list[Process]:
    """Projector, invalidator and gateway."""
    processes = [
        service("projector", ("app", "project"), place.folder, place.environment),
        service("invalidator", ("app", "invalidate"), place.folder, place.environment),
        service("gateway", ("app", "serve"), place.folder, place.environment, answers(f"{asked.url}/livez")),
    ]
    for process in processes:
        await started(opened, process)
    return processes


async def _live(opened: AsyncExitStack, place: Place, traffic: tuple[str, ...], writes: tuple[str, ...]) -> list[Process]:
    """What writes while the demo goes on: the live changes, and the service behind the button of /compare."""
    url = place.environment["VIEWGATE_WRITES_URL"]
    live = [service("traffic", traffic, place.folder, place.environment)] if traffic else []
    if writes:
        live.append(service("follows", writes, place.folder, place.environment, answers(f"{url}/livez")))
    for process in live:
        await started(opened, process)
    return live


async def _go_on(asked: Asked, place: Place, live: Sequence[Process], processes: Sequence[Process], stop: asyncio.Event) -> None:
    """Until Ctrl-C. live: the processes that write. Raises ServerError when one of ours has ended by itself."""
    publishes, *restarted = processes
    kept = [publishes, *live] if asked.reload else [*processes, *live]
    ticks = _reloading(asked, place.servers, restarted) if asked.reload else _ticks()
    # by then files are watched
    await anext(ticks)
    _tell(asked, "Live changes are coming in. " if live else "")
    async for _ in ticks:
        if stop.is_set():
            return
        check_alive(kept)


def _tell(asked: Asked, live: str) -> None:
    if asked.reload:
        console.print("Gateway and projector start again when a source file changes.")
    console.print(f"In a browser:         {asked.url}/compare and {asked.url}/graphql")
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
