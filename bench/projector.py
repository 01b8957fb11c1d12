"""How many follow events per second go from Kafka into Redis, exactly once, and how many by other ways of keeping the same counts?

One million seeded events, each of which changes two users, on six partitions (lz4), spread evenly over a million users and
heavy-tailed. All contenders read the same topic from its beginning and keep both counts of each user, in turns, each time in a new
process, with a new consumer group, into a Redis just started; those in Python by the same decoder, those of aiokafka with the same
consumer settings. Timed from the moment in which the first fetch hands records over, to the moment in which the last event's last
effect is acknowledged, as the contender does that: by Redis, by Kafka's commit, or by nobody, where it promises nothing. Connecting,
joining the group and opening the generation are before it; of ours and plain, the last commit or checkpoint after it. What is then
stored must be what the events amount to, for every user, or the run fails. A peer that cannot be had on this machine is named and left out.
"""

import asyncio
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer
from redis.asyncio import Redis

from bench.bytewax import Bytewax
from bench.contender import Contender, Task
from bench.events import Counts, Distribution, counts, records
from bench.kafka_streams import KafkaStreams
from bench.ours import Ours, Profiled
from bench.pair import Pair
from bench.plain import Plain
from bench.quix import Quix
from bench.table import Result, print_results, write_json
from demo.publish import Publisher
from demo.servers import kafka
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.server import MissingError
from schema.definition import read_definition
from schema.user import Follows, UserView

CACHE = Path(__file__).parents[1] / ".cache"
PARTITIONS = 6
CONTENDERS: dict[str, Contender] = {
    "plain": Plain(),
    "viewgate": Ours(),
    "viewgate-2": Pair(),
    "kafka-streams": KafkaStreams(),
    "bytewax": Bytewax("memory"),
    "bytewax-recovery": Bytewax("recovery"),
    "quix": Quix(),
}
DISTRIBUTIONS: tuple[Distribution, ...] = ("uniform", "heavy-tailed")


class CountsDiffer(Exception):
    """A contender's answers are wrong, so its speed means nothing."""


def main(
    quick: Annotated[bool, typer.Option(help="50,000 events and one round: a look, not a judgement.")] = False,
    rounds: Annotated[int, typer.Option(help="How often each contender runs; the median counts.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Where to write every run's figures.")] = None,
    profile: Annotated[Path | None, typer.Option(help="Where cProfile tells of viewgate's last run, which it makes slower.")] = None,
    contender: Annotated[list[str] | None, typer.Option(help=f"Only this one; again for more. Of {', '.join(CONTENDERS)}.")] = None,
) -> None:
    """Measure the projector against the plain way and its peers."""
    chosen = contender or list(CONTENDERS)
    if unknown := sorted(set(chosen) - CONTENDERS.keys()):
        raise typer.BadParameter(f"no contender is named {', '.join(unknown)}: there are {', '.join(CONTENDERS)}")
    if profile:
        CONTENDERS["viewgate"] = Profiled(profile.resolve())
    events, rounds = (50_000, 1) if quick else (1_000_000, rounds)
    results, servers, missing = asyncio.run(_measure(chosen, events, rounds))
    if results:
        print_results(results, {name: CONTENDERS[name].promise for name in chosen}, events, servers)
    if json and results:
        write_json(json, results, events, servers)
    for name, why in missing.items():
        print(f"{name} WAS LEFT OUT: {why}")
    if not results:
        raise typer.Exit(1)


async def _measure(names: Sequence[str], events: int, rounds: int) -> tuple[list[Result], list[str], dict[str, str]]:
    """What was measured, by which servers, and why which contender was left out."""
    chosen, missing = await _prepare(names)
    if not chosen:
        return [], [], missing
    results: list[Result] = []
    whats: dict[str, None] = {}
    with scratch() as folder:
        async with kafka.start(folder, CACHE, prefer="installed", say=print) as broker:
            whats[broker.what] = None
            for distribution in DISTRIBUTIONS:
                await _publish(broker.address, events, distribution)
            expected = {distribution: counts(events, distribution) for distribution in DISTRIBUTIONS}
            for number in range(rounds):
                for distribution in DISTRIBUTIONS:
                    for name in chosen:
                        home = folder / f"{distribution}-{name}-{number}"
                        result, redis = await _run(name, broker.address, home, events, distribution, expected[distribution])
                        whats[redis] = None
                        shutil.rmtree(home)
                        results.append(result)
                        print(f"round {number + 1}: {name}, {distribution}: {events / result.run.seconds:,.0f} events/s")
    return results, list(whats), missing


async def _prepare(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    chosen, missing = [], {}
    for name in names:
        try:
            await CONTENDERS[name].prepare(print)
            chosen.append(name)
        except MissingError as error:
            missing[name] = str(error)
            print(f"{name} IS LEFT OUT: {error}")
    return chosen, missing


async def _publish(bootstrap: str, events: int, distribution: Distribution) -> None:
    prefix = f"{distribution}."
    await kafka.create_topics(bootstrap, dict.fromkeys(read_definition(UserView, prefix).topics, PARTITIONS))
    publisher = Publisher(bootstrap, prefix)
    publisher.send_all(records(Follows.source.topic, events, distribution))
    publisher.flush()


async def _run(name: str, bootstrap: str, home: Path, events: int, distribution: Distribution, expected: Counts) -> tuple[Result, str]:
    """One contender into a Redis of its own, its answers proven. Raises CountsDiffer."""
    async with redis_server.start(home, CACHE, prefer="installed", say=lambda _: None) as redis:
        task = Task(bootstrap, redis.address, f"{distribution}.", home.name, events, home)
        before = await _cpu_seconds(redis.address)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            run = await asyncio.get_running_loop().run_in_executor(process, CONTENDERS[name].measure, task)
        cost = await _cpu_seconds(redis.address) - before
        stored = await CONTENDERS[name].stored(task)
        if stored != expected:
            wrong = [user for user in stored.keys() | expected.keys() if stored.get(user) != expected.get(user)]
            raise CountsDiffer(
                f"{name}, {distribution}: {len(wrong)} users differ; user {wrong[0]} has {stored.get(wrong[0])} "
                f"and should have {expected.get(wrong[0])} (following, followers)"
            )
        return Result(name, distribution, run, cost), redis.what


async def _cpu_seconds(redis_url: str) -> float:
    async with Redis.from_url(redis_url) as redis:
        used = await redis.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"])


if __name__ == "__main__":
    typer.run(main)
