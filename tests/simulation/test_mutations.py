"""Each rule of exactly once broken on purpose: the simulation notices every one."""

import subprocess
import sys

import pytest

from tests.simulation.mutations import MUTATIONS

SEED, HISTORIES = "7", "1500"


@pytest.mark.servers  # processes of their own: too slow for `make check`
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_rule_is_noticed(name: str) -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", SEED, "--histories", HISTORIES, "--broken", name, "--as-found"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, f"nobody noticed that this does not hold any more: {MUTATIONS[name].rule}"
    assert "Violation: " in ended.stderr or "AssertionError: " in ended.stderr, ended.stderr
