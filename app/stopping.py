"""How a process of ours is told to end: SIGTERM or Ctrl-C, as an event; and how what it runs ends then."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import structlog

END_SECONDS = 10.0
T = TypeVar("T")
log = structlog.stdlib.get_logger()


def told_to_stop() -> asyncio.Event:
    """An event of the running loop, set by either signal. Call it once, before anything is started."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def until_told(running: Coroutine[Any, Any, T], say: Callable[[], object] = lambda: None) -> T:
    """Await it. Raises KeyboardInterrupt once told to stop, when it is cancelled and has cleaned up; `say` is called before."""
    stop = told_to_stop()
    task, told = asyncio.ensure_future(running), asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        say()
        task.cancel()
    told.cancel()
    await asyncio.gather(task, told, return_exceptions=True)
    if task.cancelled():
        raise KeyboardInterrupt
    return task.result()


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """So long, unless told to stop."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def abreast(running: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All of them. What ends one with an error ends all."""
    tasks = [asyncio.ensure_future(one) for one in running]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def within(stop: asyncio.Event, running: Coroutine[Any, Any, None]) -> None:
    """Await it; once told to stop, only so much longer: a server that hangs holds nobody up, and whatever was cut off is read again."""
    task, told = asyncio.ensure_future(running), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
        _, late = await asyncio.wait({task}, timeout=END_SECONDS if stop.is_set() else None)
        if late:
            log.warning("projector_cut_off", seconds=END_SECONDS)
    finally:
        told.cancel()
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
