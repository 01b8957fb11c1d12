"""`python -m tests.chaos.blocked COMMAND …`: viewgate, whose event loop stands still for BLOCKED seconds at each SIGUSR1."""

import os
import signal
import time

from app.cli import main


def _block(*_: object) -> None:
    time.sleep(float(os.environ["BLOCKED"]))


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _block)
    main()
