"""The bench from commit to GraphQL runs, and its spans are counted from the commit."""

import json
import sys
from asyncio.subprocess import PIPE, STDOUT, create_subprocess_exec
from pathlib import Path

import pytest

from bench import cdc
from bench.probes import PROBED, Probe
from tests.demos import need_real_servers


@pytest.mark.servers
async def test_a_quick_run_prints_its_ratios_and_writes_every_probe(tmp_path: Path) -> None:
    await need_real_servers()
    figures = tmp_path / "figures.json"
    arguments = ("--quick", "--rate", "100", "--json", str(figures))
    process = await create_subprocess_exec(sys.executable, "-m", "bench.cdc", *arguments, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "1.00 x" in output.decode()
    found = json.loads(figures.read_text())
    probes = 5 * 100 // PROBED
    assert found["figures"]["visible in GraphQL"]["probes"] == sum(number % 2 == 0 for number in range(probes // 4, probes))
    assert all(seen > 0 for seen in found["ms"]["visible in GraphQL"])


def test_spans_are_counted_from_the_commit_and_leave_out_what_was_cold() -> None:
    cold = [Probe(number, 0.0, waits=False, acked=9.0, came=9.0, stored=9.0, seen=9.0) for number in range(4)]
    warm = [Probe(number, 1.0, waits=number % 2 == 1, acked=1.001, came=1.011, stored=1.021, seen=1.051) for number in range(4, 16)]
    spans = {name: [round(one, 6) for one in ms] for name, ms in cdc._spans([*cold, *warm], [*cold, *warm]).items()}
    assert spans["at a bare consumer"] == [10.0] * 12
    assert spans["in Redis"] == [20.0] * 6
    assert spans["visible in GraphQL"] == [50.0] * 6
    assert spans["due to committed"] == [1.0] * 6
