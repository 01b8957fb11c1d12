"""How many follow events per second go from Kafka into Redis, exactly once, and how many the plain way (plain.py)?

One million seeded events, each of which changes two users, on six partitions (lz4), spread evenly over a million users and
heavy-tailed. Both contenders read the same topic from its beginning with the same consumer settings and the same decoder, in
turns, each time in a new process, with a new consumer group, into a Redis just started. Timed from the moment in which the first
fetch hands records to Python, to the moment in which Redis has acknowledged the last event's last effect; connecting, joining the
group and opening the generation are before it, the last commit or checkpoint after it. What Redis then holds must be what the
events amount to, for every user, or the run fails.
"""

import asyncio
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer

from bench.contender import Contender, Run, Task
from bench.events import Counts, Distribution, counts, records
from bench.ours import Ours
from bench.plain import Plain
from bench.table import Result, print_results, write_json
from demo.publish import Publisher
from demo.servers import kafka
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from schema.definition import read_definition
from schema.user import Follows, UserView

CACHE = Path(__file__).parents[1] / ".cache"
PARTITIONS = 6
CONTENDERS: dict[str, Contender] = {"plain": Plain(), "viewgate": Ours()}
DISTRIBUTIONS: tuple[Distribution, ...] = ("uniform", "heavy-tailed")


class CountsDiffer(Exception):
    """A contender's answers are wrong, so its speed means nothing."""


def main(
    quick: Annotated[bool, typer.Option(help="50,000 events and one round: a look, not a judgement.")] = False,
    rounds: Annotated[int, typer.Option(help="How often each contender runs; the median counts.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Where to write every run's figures.")] = None,
) -> None:
    """Measure the projector against the plain way."""
    events, rounds = (50_000, 1) if quick else (1_000_000, rounds)
    results, servers = asyncio.run(_measure(events, rounds))
    print_results(results, events, servers)
    if json:
        write_json(json, results, events, servers)


async def _measure(events: int, rounds: int) -> tuple[list[Result], list[str]]:
    results: list[Result] = []
    with scratch() as folder:
        async with kafka.start(folder, CACHE, prefer="installed", say=print) as broker:
            for distribution in DISTRIBUTIONS:
                await _publish(broker.address, events, distribution)
            expected = {distribution: counts(events, distribution) for distribution in DISTRIBUTIONS}
            for number in range(rounds):
                for distribution in DISTRIBUTIONS:
                    for name in CONTENDERS:
                        home = folder / f"{distribution}-{name}-{number}"
                        run, redis = await _run(name, broker.address, home, events, distribution, expected[distribution])
                        results.append(Result(name, distribution, run))
                        print(f"round {number + 1}: {name}, {distribution}: {events / run.seconds:,.0f} events/s")
            return results, [broker.what, redis]


async def _publish(bootstrap: str, events: int, distribution: Distribution) -> None:
    prefix = f"{distribution}."
    await kafka.create_topics(bootstrap, dict.fromkeys(read_definition(UserView, prefix).topics, PARTITIONS))
    publisher = Publisher(bootstrap, prefix)
    publisher.send_all(records(Follows.source.topic, events, distribution))
    publisher.flush()


async def _run(name: str, bootstrap: str, home: Path, events: int, distribution: Distribution, expected: Counts) -> tuple[Run, str]:
    """One contender into a Redis of its own, its answers proven. Raises CountsDiffer."""
    async with redis_server.start(home, CACHE, prefer="installed", say=lambda _: None) as redis:
        task = Task(bootstrap, redis.address, f"{distribution}.", home.name, events)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            run = await asyncio.get_running_loop().run_in_executor(process, CONTENDERS[name].measure, task)
        stored = await CONTENDERS[name].stored(redis.address)
        if stored != expected:
            wrong = [user for user in stored.keys() | expected.keys() if stored.get(user) != expected.get(user)]
            raise CountsDiffer(
                f"{name}, {distribution}: {len(wrong)} users differ; user {wrong[0]} has {stored.get(wrong[0])} "
                f"and should have {expected.get(wrong[0])} (following, followers)"
            )
        return run, redis.what


if __name__ == "__main__":
    typer.run(main)
