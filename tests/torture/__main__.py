"""`python -m tests.torture --minutes 5 --seed 7`: changes by every way of publishing, while everything is killed; then the audit."""

import asyncio
import contextlib
import random
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from demo.servers import debezium
from demo.servers.process import NotReadyError, ServerError, until
from tests.chaos.audit import Audit, audited
from tests.chaos.readers import Readers, Seen
from tests.conftest import CACHE
from tests.torture.town import CONNECTORS, Town, open_town
from tests.torture.transactions import abort_forgotten

USERS = 400
CHANGES = 300_000
TOLD_SECONDS, STUCK_SECONDS, LEVEL_SECONDS = 15, 90, 600


def main(
    minutes: Annotated[float, typer.Option(help="How long everything is killed.", min=0.2)] = 5,
    seed: Annotated[int | None, typer.Option(help="Of changes and kills; drawn and told without it.")] = None,
    changes: Annotated[int, typer.Option(help="How many, of all ways together.", min=100)] = CHANGES,
    folder: Annotated[Path, typer.Option(help="Where logs are left.")] = Path(".cache/torture"),
) -> None:
    """Exits with 1 if a field differs, or an answer was wrong."""
    seed = random.randrange(1_000_000) if seed is None else seed
    typer.echo(f"seed {seed}: {changes:,} changes in {minutes:g} minutes; logs are in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    line, exact = asyncio.run(_torture(minutes, seed, changes, folder.absolute()))
    typer.echo(line)
    sys.exit(0 if exact else 1)


async def _torture(minutes: float, seed: int, changes: int, folder: Path) -> tuple[str, bool]:
    async with open_town(folder, USERS, changes, seed) as town:
        readers = Readers(town.urls, town.history, USERS, Seen())
        stop = asyncio.Event()
        async with readers.reading():
            telling = asyncio.create_task(_tell(town, readers))
            supervising = asyncio.create_task(_supervise(town, folder))
            began = time.monotonic()
            # a fault that cannot be made ends the run at once
            async with asyncio.TaskGroup() as group:
                group.create_task(town.schedule.run(seed, stop))
                await town.writers.run(minutes * 60)
                took = (time.monotonic() - began) / 60
                stop.set()
            for ended in town.ended():
                typer.echo(f"ended by itself: {ended}")
            audit = await _audited(town)
            for task in (telling, supervising):
                task.cancel()
            await asyncio.gather(telling, supervising, return_exceptions=True)
    kills = ", ".join(f"{count} {name}" for name, count in town.schedule.told.most_common())
    seen = readers.seen
    exact = audit.passed and (audit.lost, audit.phantom, audit.double, seen.wrong, seen.older) == (0, 0, 0, 0, 0)
    found = f"{audit.fields} fields compared, 0 mismatches" if audit.passed else "the audit failed"
    for told in seen.bad:
        typer.echo(told)
    ways = ", ".join(f"{count:,} {table}" for table, count in town.writers.changes.items())
    return (
        f"torture, seed {seed}: {town.writers.done:,} changes ({ways}) in {took:.1f} minutes through {town.schedule.told.total()} faults "
        f"({kills}): {audit.rows:,} users, {found}: lost {audit.lost}, phantom {audit.phantom}, double {audit.double}. "
        f"{seen.asked:,} reads: {seen.failed:,} refused, {seen.older} older than they said, {seen.wrong} wrong.",
        exact,
    )


async def _audited(town: Town) -> Audit:
    """Once all is in Kafka, in PostgreSQL and in the view."""
    await asyncio.to_thread(town.road.publisher.flush)
    for name in CONNECTORS:
        typer.echo(f"waiting for connector {name}")
        try:
            await debezium.captured(town.road.pool, name, LEVEL_SECONDS)
        except TimeoutError as late:
            typer.echo(f"connector {name} is late: {late}")
    await until(town.sunk, LEVEL_SECONDS)
    try:
        await town.road.agree(LEVEL_SECONDS)
    except TimeoutError as late:
        typer.echo(f"not level after {LEVEL_SECONDS} s: {late}")
    audit = await audited(town.road)
    if not audit.passed:
        typer.echo(audit.told)
    return audit


async def _supervise(town: Town, folder: Path) -> None:
    """Starts what Kafka Connect has given up, and Connect itself where a connector has not run for long, as an operator of a cluster does.

    Kafka may have left a transaction open that keeps it from starting. And Connect does not always find back by itself where its broker is
    killed again and again: of its threads one may end, and it waits for it.
    """
    ran = dict.fromkeys(CONNECTORS, time.monotonic())
    while True:
        await asyncio.sleep(2)
        for name in CONNECTORS:
            with contextlib.suppress(NotReadyError):
                if await town.connect.revive(name):
                    ran[name] = time.monotonic()
        if time.monotonic() - min(ran.values()) > STUCK_SECONDS:
            typer.echo(f"Connect is started again: {', '.join(name for name in ran if time.monotonic() - ran[name] > STUCK_SECONDS)}")
            with contextlib.suppress(ServerError):
                for forgotten in await abort_forgotten(town.road.settings.kafka_bootstrap, CACHE, folder):
                    typer.echo(f"a transaction that Kafka had forgotten is aborted: {forgotten}")
            await town.schedule.kill_connect()
            ran = dict.fromkeys(CONNECTORS, time.monotonic())


async def _tell(town: Town, readers: Readers) -> None:
    while True:
        await asyncio.sleep(TOLD_SECONDS)
        seen = readers.seen
        typer.echo(
            f"{town.writers.done:,} changes, {town.schedule.told.total()} faults, {seen.asked:,} reads, "
            f"{seen.failed:,} refused, {seen.older} older than they said, {seen.wrong} wrong"
        )


if __name__ == "__main__":
    typer.run(main)
