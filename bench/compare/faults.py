"""The faults of a time line, and the time line itself: what readers met in each second before, during and after."""

import asyncio
import time
from collections.abc import Sequence

from bench.compare.reading import Found, Read, histogram
from bench.compare.results import Moment, Timeline
from bench.compare.stack import Compared
from demo.servers.process import Process, ServerError
from schema.loader import Mode

# PostgreSQL runs for so long, and stands still for so long, in turn
RUNS_SECONDS, STANDS_SECONDS = 0.02, 0.06


async def timeline(made: Compared, mode: Mode, fault: str, rate: float, seconds: float, reading: "asyncio.Task[Found]") -> Timeline:
    """The fault comes after so many seconds of reading, and lasts for as long at most; then readers read for as long again."""
    await asyncio.sleep(seconds)
    began = time.monotonic()
    await inflict(made, fault, seconds)
    ended = time.monotonic()
    found = await reading
    return Timeline(
        mode=mode,
        fault=fault,
        rate=rate,
        began=round(max(0.0, began - found.began), 2),
        ended=round(max(0.0, ended - found.began), 2),
        moments=moments(found),
    )


async def inflict(made: Compared, fault: str, seconds: float) -> None:
    """Return when it is over. Raises ServerError where the server is not ours to hurt."""
    if fault == "cold cache":
        await made.empty_caches()
    elif fault == "redis restart":
        await _ours(made.servers.redis.process, "Redis").restart()
    elif fault == "slow postgres":
        postgres, until = _ours(made.postgres, "PostgreSQL"), time.monotonic() + seconds
        while time.monotonic() < until:
            postgres.pause()
            await asyncio.sleep(STANDS_SECONDS)
            postgres.resume()
            await asyncio.sleep(RUNS_SECONDS)


def moments(found: Found) -> list[Moment]:
    """By the second in which a read was due."""
    by_second: dict[int, list[Read]] = {}
    for read in found.reads:
        by_second.setdefault(int(read.due - found.began), []).append(read)
    return [_moment(second, reads) for second, reads in sorted(by_second.items())]


def _moment(second: int, reads: Sequence[Read]) -> Moment:
    right = [read for read in reads if read.outcome == "ok"]
    times = histogram()
    for read in right:
        times.record_value(max(1, int(read.us)))
    p50, p99 = (times.get_value_at_percentile(at) / 1000 if right else None for at in (50, 99))
    return Moment(second, len(right), len(reads) - len(right), p50, p99)


def _ours(process: Process | None, name: str) -> Process:
    if process is None:
        raise ServerError(f"{name} was not started by this command, so it is not hurt: leave faults out of the scenario.")
    return process
