"""Does the projector need more memory the longer it runs?

A million seeded follow events (events.py) are published again and again, by a process of its own, so that the projector always has more
to read than it can: at most AHEAD events before what it has committed. `viewgate project`, in a process of its own too, keeps the view for
so many minutes at full speed; Kafka deletes what is old, and Redis writes its append-only file anew as it grows. Every second its
resident memory is looked at. In the end the counts of every user must be those of a round of the events times the number of rounds, or
the run fails. It fails too where the memory is not flat: the median of the last tenth above that of the second by more than GROWTH;
a run of less than SHORTEST_MINUTES tells nothing of that.
"""

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import Manager, get_context
from multiprocessing.managers import Namespace
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from rich.console import Console
from rich.table import Table

from app.settings import Settings
from bench.command import viewgate
from bench.contender import Task
from bench.events import counts, records
from bench.machine import machine, versions
from bench.ours import Ours
from bench.table import LIBRARIES
from demo.publish import Publisher, Record
from demo.servers import kafka
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, until
from schema.definition import read_definition
from schema.user import Follows, UserView

CACHE = Path(__file__).parents[1] / ".cache"
PARTITIONS, AHEAD = 6, 2_000_000
# of a partition, old events go in steps of a segment
KEPT = {"retention.bytes": str(256 << 20), "segment.bytes": str(64 << 20)}
LOOK_SECONDS, TENTHS, GROWTH = 1.0, 10, 0.05
LEVEL_SECONDS = 300
# what a process has grown to after a minute says nothing of an hour
SHORTEST_MINUTES = 10


class CountsDiffer(Exception):
    """The view is wrong, so how it was kept means nothing."""


@dataclass(frozen=True, slots=True)
class Look:
    """At the projector. seconds: since it had its first events. events: applied, as committed. mb: resident."""

    seconds: float
    events: int
    mb: float


@dataclass(frozen=True, slots=True)
class Figures:
    minutes: float
    rounds: int
    events: int
    looks: Sequence[Look]
    about: str

    def tenth(self, number: int) -> Sequence[Look]:
        """Of the looks; the last of each is the first of the next."""
        first, last = ((len(self.looks) - 1) * edge // TENTHS for edge in (number, number + 1))
        return self.looks[first : last + 1]

    @property
    def growth(self) -> float:
        """Of the memory, from the second tenth to the last: 0.05 is 5 %."""
        second, last = (statistics.median(look.mb for look in self.tenth(number)) for number in (1, TENTHS - 1))
        return last / second - 1

    @property
    def flat(self) -> bool | None:
        """None: too short to tell."""
        return None if self.minutes < SHORTEST_MINUTES else self.growth <= GROWTH


def main(
    quick: Annotated[bool, typer.Option(help="20,000 events, for one minute: a look, not a judgement.")] = False,
    minutes: Annotated[float | None, typer.Option(help="How long; an hour where it is not said.", min=0.2)] = None,
    json: Annotated[Path | None, typer.Option(help="Where to write the figures.")] = None,
) -> None:
    """Measure the projector's memory over an hour of full speed."""
    figures = asyncio.run(measure(minutes or (1 if quick else 60), 20_000 if quick else 1_000_000))
    _show(figures)
    if json:
        json.write_bytes(
            msgspec.json.format(msgspec.json.encode({**asdict(figures), "growth": figures.growth, "flat": figures.flat}), indent=2)
        )
    if figures.flat is False:
        raise typer.Exit(1)


async def measure(minutes: float, events: int) -> Figures:
    """Raises CountsDiffer."""
    with scratch() as folder:
        async with (
            kafka.start(folder, CACHE, prefer="installed", say=print) as broker,
            redis_server.start(folder, CACHE, prefer="installed", say=print) as redis_at,
        ):
            topics = read_definition(UserView).topics
            await kafka.create_topics(broker.address, dict.fromkeys(topics, PARTITIONS), KEPT)
            settings = Settings(kafka_bootstrap=broker.address, redis_url=redis_at.address)
            looks, rounds = await _kept(settings, folder, minutes, events)
            await _check(settings, events, rounds)
            about = f"{broker.what}, {redis_at.what}; {machine()}; {versions(*LIBRARIES)}"
            return Figures(minutes, rounds, rounds * events, looks, about)


async def _kept(settings: Settings, folder: Path, minutes: float, events: int) -> tuple[Sequence[Look], int]:
    """The looks, and how often all events were published. Returns when all are applied."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        with Manager() as manager, ProcessPoolExecutor(1, get_context("spawn")) as process:
            told = manager.Namespace()
            told.committed, told.stop = 0, False
            publishing = asyncio.get_running_loop().run_in_executor(process, _publish, settings.kafka_bootstrap, events, told)
            async with viewgate(settings, folder, "project") as projector:
                try:
                    looks = await _looks(admin, settings.consumer_group, projector.pid, minutes, told)
                finally:
                    told.stop = True
                while not publishing.done():
                    told.committed = await _committed(admin, settings.consumer_group)
                    await asyncio.sleep(1)
                rounds = await publishing
                await until(lambda: _level(admin, settings.consumer_group, rounds * events), LEVEL_SECONDS)
            return looks, rounds
    finally:
        await admin.close()


async def _looks(admin: AIOKafkaAdminClient, group: str, pid: int, minutes: float, told: Namespace) -> Sequence[Look]:
    looks: list[Look] = []
    began = 0.0
    while not looks or looks[-1].seconds < minutes * 60:
        await asyncio.sleep(LOOK_SECONDS)
        told.committed = committed = await _committed(admin, group)
        if committed:
            began = began or time.monotonic()
            looks.append(Look(time.monotonic() - began, committed, resident_mb(pid)))
    return looks


def resident_mb(pid: int) -> float:
    """The memory that a process has now. Raises OSError where there is no such process, or no Linux."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


async def _committed(admin: AIOKafkaAdminClient, group: str) -> int:
    try:
        offsets = await admin.list_consumer_group_offsets(group)
    except GroupCoordinatorNotAvailableError:
        # no group has ever been
        return 0
    return sum(stored.offset for at, stored in offsets.items() if at.topic == Follows.source.topic and stored.offset > 0)


async def _level(admin: AIOKafkaAdminClient, group: str, events: int) -> None:
    if (committed := await _committed(admin, group)) < events:
        raise NotReadyError(f"{committed:,} of {events:,} events were applied")


def _publish(bootstrap: str, events: int, told: Namespace) -> int:
    """Whole rounds until told to stop; how many."""
    publisher, round_, rounds = Publisher(bootstrap), list(records(Follows.source.topic, events, "uniform")), 0
    while not told.stop:
        publisher.send_all(_held_back(round_, rounds * events, told))
        rounds += 1
    publisher.flush()
    return rounds


def _held_back(round_: Sequence[Record], published: int, told: Namespace) -> Iterator[Record]:
    for number, record in enumerate(round_):
        while number % 10_000 == 0 and published + number > told.committed + AHEAD:
            time.sleep(0.1)
        yield record


async def _check(settings: Settings, events: int, rounds: int) -> None:
    stored = await Ours().stored(Task(settings.kafka_bootstrap, settings.redis_url, "", settings.consumer_group, events))
    once = counts(events, "uniform")
    expected = {user: (following * rounds, followers * rounds) for user, (following, followers) in once.items()}
    if stored != expected:
        wrong = [user for user in stored.keys() | expected.keys() if stored.get(user) != expected.get(user)]
        raise CountsDiffer(
            f"{len(wrong)} users differ after {rounds} rounds; user {wrong[0]} has {stored.get(wrong[0])} "
            f"and should have {expected.get(wrong[0])} (following, followers)"
        )


def _show(figures: Figures) -> None:
    console = Console(width=140)
    console.print(f"\n{figures.about}")
    console.print(f"{figures.events:,} follow events in {figures.minutes:g} minutes and until all were applied, two counts each")
    table = Table()
    table.add_column("minutes")
    for heading in ("events/s", "MB, median", "MB, most", "MB to the second line's"):
        table.add_column(heading, justify="right")
    second = statistics.median(look.mb for look in figures.tenth(1))
    for number in range(TENTHS):
        looks = figures.tenth(number)
        first, last, mbs = looks[0], looks[-1], [look.mb for look in looks]
        rate = (last.events - first.events) / (last.seconds - first.seconds)
        median = statistics.median(mbs)
        table.add_row(
            f"{first.seconds / 60:.1f} to {last.seconds / 60:.1f}",
            f"{rate:,.0f}",
            f"{median:.0f}",
            f"{max(mbs):.0f}",
            f"{median / second:.2f} x",
        )
    console.print(table)
    verdict = {None: "too short to tell", True: "flat", False: "NOT FLAT"}[figures.flat]
    console.print(
        f"- {verdict}: from the second tenth to the last {figures.growth:+.1%}; up to {GROWTH:+.0%} is called flat.", highlight=False
    )
    console.print(f"- The counts of every user are {figures.rounds:,} times those of a round.", highlight=False)
    console.print("- One machine: the projector shares its cores with the publisher, Kafka and Redis.", highlight=False)


if __name__ == "__main__":
    typer.run(main)
