"""The freshness bench runs, and tells no figures of a view that answers wrongly."""

import json
import sys
from asyncio.subprocess import PIPE, STDOUT, create_subprocess_exec
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench import freshness
from bench.probes import PROBED, Probe, Traffic
from demo.servers.server import Server


@pytest.fixture
def servers(apache_kafka_at: Server, redis_at: Server) -> None:
    """The bench starts its own; asked for to know that there are some."""
    if redis_at.kind == "embedded":
        pytest.skip("needs an installed redis-server")


@pytest.mark.usefixtures("servers")
async def test_a_quick_run_prints_its_ratios_and_writes_every_probe(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ("--quick", "--rate", "200", "--json", str(figures))
    process = await create_subprocess_exec(sys.executable, "-m", "bench.freshness", *arguments, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "1.00 x" in output.decode()
    found = json.loads(figures.read_text())
    probes = 5 * 200 // PROBED
    assert (found["rate"], found["seconds"], found["figures"]["acknowledged by Kafka"]["probes"]) == (200, 5, probes - probes // 4)
    assert all(len(ms) == found["figures"][name]["probes"] for name, ms in found["ms"].items())
    for name in ("acknowledged by Kafka", "at a bare consumer", "in Redis", "visible in GraphQL", "own write read back"):
        assert min(found["ms"][name]) > 0, name


@pytest.mark.usefixtures("servers")
async def test_a_view_that_is_not_what_was_sent_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = freshness._expected

    def one_more(traffic: Traffic) -> Mapping[int, tuple[int, ...]]:
        found = dict(expected(traffic))
        if traffic.probes:
            tweets, following, followers = found[7]
            found[7] = (tweets, following, followers + 1)
        return found

    monkeypatch.setattr(freshness, "_expected", one_more)
    monkeypatch.setattr(freshness, "LEVEL_SECONDS", 10)
    with pytest.raises(freshness.CountsDiffer, match=r"1 users differ; user 7 has \(1, 0, 0\) and should have \(1, 0, 1\)"):
        await freshness.measure(200, 1)


def test_what_came_while_everything_was_warming_up_is_left_out_and_spans_are_of_their_moments() -> None:
    cold = [Probe(number, 0.0, waits=number % 2 == 1, sent=9.0, acked=9.0, came=9.0, stored=9.0, seen=9.0) for number in range(4)]
    warm = [
        Probe(number, 1.0, number % 2 == 1, sent=1.001, acked=1.003, came=1.004, stored=1.006, seen=1.010, read=1.008, stranger=1.108)
        for number in range(4, 16)
    ]
    its = [*cold, *(Probe(number, 1.0, waits=False, sent=1.001, acked=1.002, came=1.004) for number in range(4, 16))]
    spans = {name: [round(one, 6) for one in ms] for name, ms in freshness._spans([*cold, *warm], its).items()}
    assert spans["at a bare consumer"] == [4.0] * 12
    assert spans["acknowledged by Kafka"] == [3.0] * 12
    assert spans["visible in GraphQL"] == [10.0] * 6
    assert spans["acknowledged to in Redis"] == [3.0] * 6
    assert (spans["own write read back"], spans["an untouched shard, after that"]) == ([5.0] * 6, [100.0] * 6)
