"""`python -m tests.simulation`: so many histories from a seed, which is printed; ends with 1 and the history where one goes wrong."""

import argparse
import asyncio
import random
import time

from tests.simulation.mutations import MUTATIONS, broken

STEPS = 30


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="as printed by an earlier run")
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--broken", choices=MUTATIONS, help="with the code broken on purpose")
    parser.add_argument("--as-found", action="store_true", help="do not look for a shorter history that fails too")
    asked = parser.parse_args()
    if asked.broken:
        broken(asked.broken)
    print(f"seed {asked.seed}", flush=True)
    began = time.monotonic()
    run(asked.seed, asked.histories, shorter=not asked.as_found)
    seconds = time.monotonic() - began
    print(f"{asked.histories:,} histories, each healed and exact, in {seconds:.1f} s: {asked.histories / seconds * 60:,.0f} a minute")


def run(seed: int, histories: int, *, shorter: bool = True) -> None:
    """Raises what the first history that goes wrong raises, with its steps as a note."""
    # a mutation must come first
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis import seed as seeded
    from hypothesis.stateful import run_state_machine_as_test

    from tests.simulation.machine import Histories, quiet

    quiet()
    phases = [Phase.generate, *([Phase.shrink] if shorter else [])]
    asked = settings(
        max_examples=histories,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=phases,
        print_blob=False,
    )
    with asyncio.Runner() as runner:
        Histories.loop = runner.get_loop()
        run_state_machine_as_test(seeded(seed)(Histories), settings=asked)


if __name__ == "__main__":
    main()
