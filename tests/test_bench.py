"""The bench runs, and times nothing that answers wrongly."""

import json
import os
import re
import sys
from asyncio.subprocess import PIPE, STDOUT, create_subprocess_exec
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bench import projector
from bench.contender import Task
from bench.events import Counts, counts, events
from bench.plain import Plain
from bench.stopwatch import Run, peak_mb
from bench.table import Result, print_results
from demo.servers.server import Server

EVENTS = 2000


async def test_a_quick_run_prints_its_ratios_and_writes_every_run(apache_kafka_at: Server, redis_at: Server, tmp_path: Path) -> None:
    if redis_at.kind == "embedded":
        pytest.skip("needs an installed redis-server")
    figures = tmp_path / "figures.json"
    chosen = ("--contender", "plain", "--contender", "viewgate")
    process = await create_subprocess_exec(
        sys.executable, "-m", "bench.projector", *chosen, "--quick", "--json", str(figures), stdout=PIPE, stderr=STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "1.00 x" in output.decode()
    runs = json.loads(figures.read_text())["runs"]
    measured = {(run["distribution"], run["contender"]) for run in runs}
    assert measured == {(distribution, contender) for distribution in projector.DISTRIBUTIONS for contender in ("plain", "viewgate")}
    assert all(run["run"]["seconds"] > 0 for run in runs)


async def test_a_contender_whose_counts_are_wrong_is_not_timed(
    apache_kafka_at: Server, redis_at: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if redis_at.kind == "embedded":
        pytest.skip("needs an installed redis-server")
    stored = Plain.stored

    async def one_too_many(plain: Plain, task: Task) -> Counts:
        found = dict(await stored(plain, task))
        user, (following, followers) = next(iter(found.items()))
        return {**found, user: (following, followers + 1)}

    monkeypatch.setattr(Plain, "stored", one_too_many)
    with pytest.raises(projector.CountsDiffer, match="plain, uniform: 1 users differ"):
        await projector._measure(["plain"], EVENTS, 1)


@pytest.mark.parametrize("name", sorted(projector.CONTENDERS.keys() - {"plain", "viewgate"}))
async def test_a_peer_keeps_the_same_counts(apache_kafka_at: Server, redis_at: Server, name: str) -> None:
    if redis_at.kind == "embedded":
        pytest.skip("needs an installed redis-server")
    results, _, missing = await projector._measure([name], EVENTS, 1)
    if missing and os.environ.get("CI") != "true":
        pytest.skip(missing[name])
    assert missing == {}
    assert [(result.contender, result.distribution) for result in results] == [(name, each) for each in projector.DISTRIBUTIONS]
    assert all(result.run.seconds > 0 and result.run.cpu_seconds > 0 and result.run.peak_mb > 0 for result in results)


def test_a_peer_that_cannot_be_had_is_named_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "java").write_text("#!/bin/sh\necho 'openjdk version \"17.0.1\"'\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere")
    ended = CliRunner().invoke(_program(), ["--contender", "kafka-streams", "--quick"])
    assert ended.exit_code == 1
    assert "kafka-streams WAS LEFT OUT: no javac on PATH; install a JDK" in ended.output


def test_a_contender_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    ended = CliRunner().invoke(_program(), ["--contender", "faust"])
    assert ended.exit_code == 2
    assert "faust" in ended.output
    assert "kafka-streams" in ended.output


def test_the_table_tells_how_many_times_as_fast_as_each_contender_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = {("viewgate", "uniform"): 2.0, ("quix", "uniform"): 15.0, ("viewgate", "heavy-tailed"): 1.0, ("quix", "heavy-tailed"): 5.0}
    results = [Result(*which, Run(each, each, 100)) for which, each in seconds.items()]
    print_results(results, {"viewgate": "exactly once", "quix": "now and then"}, EVENTS, ["a Kafka"])
    told = capsys.readouterr().out
    ratios = {tuple(re.findall(r"[\w-]+", line)[:2]): line.split("│")[5].strip() for line in told.splitlines() if " x " in line}
    assert ratios == {
        ("uniform", "viewgate"): "1.00 x",
        ("uniform", "quix"): "7.50 x",
        ("heavy-tailed", "viewgate"): "1.00 x",
        ("heavy-tailed", "quix"): "5.00 x",
    }
    assert "- quix: now and then." in told


def _program() -> typer.Typer:
    program = typer.Typer()
    program.command()(projector.main)
    return program


def test_the_memory_of_a_run_is_its_own_and_not_that_of_who_started_it() -> None:
    held = bytearray(400 << 20)
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        assert 5 < process.submit(peak_mb).result() < 200
    assert peak_mb() > len(held) >> 20


def test_the_counts_are_what_the_events_amount_to() -> None:
    follows = [(event.op, event.follow.follower_id, event.follow.followee_id) for event in events(EVENTS, "heavy-tailed")]
    sign = {"c": 1, "d": -1}
    for user in (1, 2, 77):
        following = sum(sign[op] for op, follower, _ in follows if follower == user)
        followers = sum(sign[op] for op, _, followee in follows if followee == user)
        assert counts(EVENTS, "heavy-tailed").get(user, (0, 0)) == (following, followers)
    assert sum(op == "d" for op, *_ in follows) == EVENTS // 10
