"""How a process of ours is told to end: SIGTERM or Ctrl-C, as an event."""

import asyncio
import signal


def told_to_stop() -> asyncio.Event:
    """An event of the running loop, set by either signal. Call it once, before anything is started."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
