"""Histories of everything that may happen, in memory; and the two runs by which anyone repeats them."""

import os

from tests.simulation.__main__ import run

# `make simulate` draws another each time
SEED, HISTORIES = 11, 150


def test_any_history_is_exact_at_each_step_and_level_within_a_bounded_number_of_rounds() -> None:
    seed = int(os.environ.get("SEED") or SEED)
    try:
        run(seed, int(os.environ.get("N") or HISTORIES))
    except BaseException as error:
        error.add_note(f"repeat it with: make simulate SEED={seed}")
        raise
