"""Histories of everything that may happen, in memory; and the two runs by which anyone repeats them."""

import os
import random

from tests.simulation.__main__ import run

HISTORIES = 300


def test_any_history_is_exact_at_each_step_and_level_within_a_bounded_number_of_rounds() -> None:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**32))
    try:
        run(seed, int(os.environ.get("N") or HISTORIES))
    except BaseException as error:
        error.add_note(f"repeat it with: make simulate SEED={seed}")
        raise
