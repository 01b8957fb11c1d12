"""Each rule of exactly once broken on purpose: the simulation notices every one."""

import subprocess
import sys

import pytest

from tests.simulation.mutations import MUTATIONS, ROOT

SEED, HISTORIES = "7", "1500"


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_broken_is_in_the_code_once(name: str) -> None:
    mutation = MUTATIONS[name]
    text = (ROOT / (mutation.module.replace(".", "/") + ".py")).read_text()
    assert text.count(mutation.old) == 1


@pytest.mark.servers  # processes of their own: too slow for `make check`
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_rule_is_noticed(name: str) -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", SEED, "--histories", HISTORIES, "--broken", name, "--as-found"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, f"nobody noticed that this does not hold any more: {MUTATIONS[name].rule}"
    assert "is to be mutated" not in ended.stderr, ended.stderr
    assert "Failing test case" in ended.stderr, ended.stderr
