"""`viewgate demo`: the real stack, the seed, the main job, and one query answered in all three modes."""

import asyncio
import json
import shutil
import socket
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import asyncpg
import httpx
import typer
import uvloop
from rich.console import Console
from rich.progress import Progress

from app.cli import CommandError
from app.stopping import told_to_stop
from demo import seed
from demo.publish import Publisher
from demo.servers.kafka import create_topics
from demo.servers.process import NotReadyError, Process, ServerError, until
from demo.servers.stack import Stack, locked, stack
from demo.services import PORT, answers, service, settings
from demo.sink import end_offsets, sunk
from schema.definition import Definition, read_definition
from schema.user import UserView

MODES = ("view", "cache-aside", "sql")
QUERY = '{ user(id: "1") { username name location joinedAt tweetCount followingCount followerCount likeCount } }'
PARTITIONS = 6
CACHE = Path(".cache").absolute()
console = Console(highlight=False, soft_wrap=True)


def demo(
    port: Annotated[int, typer.Option(help="Where the gateway listens, on 127.0.0.1.", min=1, max=65535)] = PORT,
    once: Annotated[bool, typer.Option("--once", help="End after the answers.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier demo stored, and seed again.")] = False,
    embedded: Annotated[bool, typer.Option("--embedded", help="Servers from PyPI, even where real ones are installed.")] = False,
) -> None:
    """Start Kafka, Redis, PostgreSQL, a projector and the gateway; seed them; answer one query in three modes; go on until Ctrl-C.

    Examples: viewgate demo · viewgate demo --port 8001 · viewgate demo --once
    """
    _check_free(port)
    try:
        uvloop.run(_demo(port, once=once, fresh=fresh, embedded=embedded))
    except (ServerError, asyncpg.PostgresError) as error:
        raise CommandError(str(error)) from error


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as taken:
            raise CommandError(f"Port {port} is taken: stop what listens there, or choose another with `make demo PORT=8001`.") from taken


async def _demo(port: int, *, once: bool, fresh: bool, embedded: bool) -> None:
    stop = told_to_stop()
    running = asyncio.create_task(_run(port, stop, once=once, fresh=fresh, embedded=embedded))
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        console.print("Stopping …")
        running.cancel()
    waiting.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    if not running.cancelled() and (error := running.exception()):
        raise error


async def _run(port: int, stop: asyncio.Event, *, once: bool, fresh: bool, embedded: bool) -> None:
    folder = CACHE / "demo"
    seeded = folder / f"seeded-{seed.VERSION}"
    if fresh or not seeded.exists():
        _forget(folder)
    definition = read_definition(UserView)
    async with AsyncExitStack() as opened:
        starting = stack(folder, CACHE, prefer="embedded" if embedded else None, say=console.print)
        servers = await opened.enter_async_context(starting)
        size = seed.FULL if servers.kafka.what.startswith("Apache") else seed.SMALL
        await create_topics(servers.kafka.address, dict.fromkeys(definition.topics, PARTITIONS), {"retention.ms": "-1"})
        processes = await _start(opened, folder, servers, port)
        if not (servers.persistent and seeded.exists()):
            await _seed(servers, definition, size)
            if servers.persistent:
                seeded.touch()
        await _show(port, await _level(servers, definition, port))
        if once:
            return
        traffic = service("traffic", ("demo.traffic", str(size.users)), folder, settings(servers, port))
        await _open(opened, traffic)
        console.print("Live changes are coming in, 20 a second. Ctrl-C stops everything.")
        await _watch([*processes, traffic], stop)


def _forget(folder: Path) -> None:
    """An earlier seeding that was cut short is no state to go on from."""
    with locked(folder):
        for old in folder.iterdir():
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            elif old.name != "lock":
                old.unlink()


async def _start(opened: AsyncExitStack, folder: Path, servers: Stack, port: int) -> list[Process]:
    environment = settings(servers, port)
    processes = [
        service("sink", ("demo.sink",), folder, environment),
        service("projector", ("app", "project"), folder, environment),
        service("gateway", ("app", "serve"), folder, environment, answers(f"http://127.0.0.1:{port}/livez")),
    ]
    for process in processes:
        await _open(opened, process)
    return processes


async def _open(opened: AsyncExitStack, process: Process) -> None:
    opened.push_async_callback(process.stop)
    await process.start()


async def _seed(servers: Stack, definition: Definition, size: seed.Size) -> None:
    """Publish the seed to Kafka, as the services would: nothing is written to PostgreSQL or Redis here."""
    publisher = Publisher(servers.kafka.address, definition.topic_prefix)
    with Progress(console=console) as progress:
        bar = progress.add_task(f"Publishing {size.rows:,} changes to Kafka", total=size.rows)
        for number, (topic, key, value) in enumerate(seed.records(size), 1):
            publisher.send(topic, key, value)
            if number % 5000 == 0:
                progress.update(bar, completed=number)
                await asyncio.sleep(0)
        await asyncio.to_thread(publisher.flush)
        progress.update(bar, completed=size.rows)


async def _level(servers: Stack, definition: Definition, port: int) -> float:
    """Wait until PostgreSQL and the view have everything published so far; the seconds it took."""
    began = time.monotonic()
    moment = time.time()
    ends = await end_offsets(servers.kafka.address, definition.topics)
    connection = await asyncpg.connect(servers.postgres.address)
    try:
        with console.status("Waiting until sink and projector have it all …"):
            await until(partial(sunk, connection, ends), 300)
            await until(partial(_passed, port, moment), 300)
    except TimeoutError as late:
        raise ServerError(f"The view was not level after 5 minutes: {late}. See the logs in {CACHE / 'demo'}.") from late
    finally:
        await connection.close()
    return time.monotonic() - began


async def _passed(port: int, moment: float) -> None:
    """Raises NotReadyError until the view has everything that was published at `moment`, in Unix seconds."""
    answer, _ = await _ask(port, "view")
    as_of = answer.headers.get("viewgate-as-of")
    if answer.headers.get("viewgate-mode") != "view" or as_of is None or datetime.fromisoformat(as_of).timestamp() < moment:
        raise NotReadyError(f"the view is as of {as_of}")


async def _ask(port: int, mode: str) -> tuple[httpx.Response, float]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        url = f"http://127.0.0.1:{port}/graphql"
        await client.get(f"http://127.0.0.1:{port}/livez")
        began = time.perf_counter()
        answer = await client.post(url, json={"query": QUERY}, headers={"viewgate-mode": mode})
        return answer, (time.perf_counter() - began) * 1000


async def _show(port: int, level_seconds: float) -> None:
    url = f"http://127.0.0.1:{port}/graphql"
    console.print(f"\n[bold]GraphQL at {url}[/] (sink and projector level after {level_seconds:.1f} s)\n\n{QUERY}\n")
    given: dict[str, Mapping[str, object]] = {}
    for mode in MODES:
        await _ask(port, mode)
        answer, ms = await _ask(port, mode)
        given[mode] = answer.json()
        console.print(f"{mode:>12} {ms:6.1f} ms  {json.dumps(given[mode], ensure_ascii=False)}")
    if any("errors" in answer or answer != given["sql"] for answer in given.values()):
        raise ServerError("The modes do not answer alike. That is a bug: please report it with the output above.")
    body = json.dumps({"query": QUERY})
    console.print(f"\ncurl {url} -H 'content-type: application/json' -d '{body}'\n")


async def _watch(processes: list[Process], stop: asyncio.Event) -> None:
    """Until Ctrl-C. Raises ServerError when one of ours has ended by itself."""
    while not stop.is_set():
        for process in processes:
            if not process.alive:
                raise ServerError(f"{process.command.name} has ended by itself; its log is {process.command.log}.")
        await asyncio.sleep(0.5)
