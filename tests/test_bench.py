"""The bench runs, and times nothing that answers wrongly."""

import json
import sys
from asyncio.subprocess import PIPE, STDOUT, create_subprocess_exec
from pathlib import Path

import pytest

from bench import projector
from bench.events import Counts, counts, events
from bench.plain import Plain
from demo.servers.server import Server

EVENTS = 2000


async def test_a_quick_run_prints_its_ratios_and_writes_every_run(apache_kafka_at: Server, redis_at: Server, tmp_path: Path) -> None:
    if redis_at.kind == "embedded":
        pytest.skip("needs an installed redis-server")
    figures = tmp_path / "figures.json"
    process = await create_subprocess_exec(
        sys.executable, "-m", "bench.projector", "--quick", "--json", str(figures), stdout=PIPE, stderr=STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "1.00 x" in output.decode()
    runs = json.loads(figures.read_text())["runs"]
    measured = {(run["distribution"], run["contender"]) for run in runs}
    assert measured == {(distribution, contender) for distribution in projector.DISTRIBUTIONS for contender in projector.CONTENDERS}
    assert all(run["run"]["seconds"] > 0 for run in runs)


async def test_a_contender_whose_counts_are_wrong_is_not_timed(
    apache_kafka_at: Server, redis_at: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if redis_at.kind == "embedded":
        pytest.skip("needs an installed redis-server")
    stored = Plain.stored

    async def one_too_many(plain: Plain, redis_url: str) -> Counts:
        found = dict(await stored(plain, redis_url))
        user, (following, followers) = next(iter(found.items()))
        return {**found, user: (following, followers + 1)}

    monkeypatch.setattr(Plain, "stored", one_too_many)
    with pytest.raises(projector.CountsDiffer, match="plain, uniform: 1 users differ"):
        await projector._measure(EVENTS, 1)


def test_the_counts_are_what_the_events_amount_to() -> None:
    follows = [(event.op, event.follow.follower_id, event.follow.followee_id) for event in events(EVENTS, "heavy-tailed")]
    sign = {"c": 1, "d": -1}
    for user in (1, 2, 77):
        following = sum(sign[op] for op, follower, _ in follows if follower == user)
        followers = sum(sign[op] for op, _, followee in follows if followee == user)
        assert counts(EVENTS, "heavy-tailed").get(user, (0, 0)) == (following, followers)
    assert sum(op == "d" for op, *_ in follows) == EVENTS // 10
