"""The bench of latency runs, and its percentiles are of all reads together."""

import json
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import latency
from bench.open_loop import Found


async def test_it_measures_reads_beside_each_kind_of_others(tmp_path: Path, redis_at: object) -> None:
    path = tmp_path / "figures.json"
    argv = (sys.executable, "-m", "bench.latency", "--quick", "--json", str(path), "--picture", str(tmp_path / "curve.svg"))
    process = await create_subprocess_exec(*argv, stdout=PIPE, stderr=STDOUT)
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    told = json.loads(path.read_text())
    assert {name: of["reads"] for name, of in told["figures"].items()} == dict.fromkeys(latency.BESIDE, 2_000)
    for of in told["figures"].values():
        assert 0 < of["p50"] <= of["p95"] <= of["p99"] <= of["p99.9"] <= of["max"]
    circles = list(ElementTree.parse(tmp_path / "curve.svg").iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == sum(len(told["curves"][name]) for name in latency.LABELS) == 12
    assert "Goal: p99 below 2 ms" in said.decode()


def test_percentiles_are_of_all_rounds_together() -> None:
    rounds = [Found(ms=[1.0] * 999), Found(ms=[1.0] * 997 + [50.0, 60.0, 70.0])]
    told = latency.figures(rounds)
    assert (told["reads"], told["p50"], told["p99"], told["max"]) == (1_999, 1.0, 1.0, 70.0)
    assert told["p99.9"] == pytest.approx(50.0, abs=0.5)
    assert latency.curve(rounds) == [(2, 1.0), (10, 1.0), (100, 1.0), (1000, 70.0)]
