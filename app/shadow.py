"""Shadow compare: reads that were answered are asked of a second mode too, and what differs is watched until it is known why.

Nothing here is waited for by a client, and no error leaves it.
"""

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import structlog

from app.difference import FIRST, SECOND, Difference, differences, value
from app.experiment import Shadow
from app.experiment_metrics import Outcome, Run
from schema.loader import Loader, Mode, Read, Rows

# of a gateway, whose candidates are being asked: who is asked later than the client compares another moment; who differs and is watched;
# and who is being read again. All of it takes connections that clients need
AT_ONCE = 4
WATCHED = 32
LOOKS_AT_ONCE = 2
READ_SECONDS = 2.0
# what differs is read again so long: as-of of a view that is level moves once a second
PATIENCE_SECONDS = 5.0
# a source that says it has everything may itself be written a little late
SETTLED_SECONDS = 1.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
SHOWN_BYTES = 200

log = structlog.stdlib.get_logger()
T = TypeVar("T")
# a mode, and whether it is the one that has answered
_Candidate = tuple[Mode, bool]
# what differs, and as-of of both
_First = tuple[Sequence[Difference], tuple[int, int]]


class Answered(NamedTuple):
    """What a client has been answered with."""

    reads: Sequence[Read]
    rows: Rows


class Shadows:
    """loaders: of all modes, without what else may answer for them. patience_seconds: how long a difference is watched that neither ends
    nor is proven wrong. settled_seconds: how long it must stay the same to be wrong.
    """

    def __init__(
        self, loaders: Mapping[Mode, Loader], patience_seconds: float = PATIENCE_SECONDS, settled_seconds: float = SETTLED_SECONDS
    ) -> None:
        self._loaders, self._patience_seconds, self._settled_ms = loaders, patience_seconds, round(settled_seconds * 1000)
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Task[None] | None] = set()
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._random = random.Random(0)  # noqa: S311 - it chooses a sample

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._tasks

    def drawn(self, shadow: Shadow) -> bool:
        """Whether the next request is one of the share."""
        return self._random.random() < shadow.share

    def offer(self, run: Run, shadow: Shadow, answered: Answered) -> None:
        """Compare, as far as there is room. Returns at once, and asks nobody before the loop comes round."""
        mode = answered.rows.mode
        if answered.rows.fallback:
            # it is no answer of the mode that is on trial
            return
        asked: list[_Candidate] = [(mode, True)] if shadow.control else []
        if shadow.mode is not None and shadow.mode != mode:
            asked.append((shadow.mode, False))
        if len(self._asking) >= AT_ONCE or len(self._tasks) >= WATCHED:
            for candidate, control in asked:
                run.compared(candidate, "dropped", control=control)
        elif asked:
            task = asyncio.create_task(self._compare(run, answered, asked))
            for kept in (self._tasks, self._asking):
                kept.add(task)
                task.add_done_callback(kept.discard)

    async def end(self) -> None:
        """Those under way are given up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _compare(self, run: Run, answered: Answered, asked: Sequence[_Candidate]) -> None:
        # all before any is watched, so that all are as near to the client's answer as can be
        found = [await self._tried(run, one, self._first(answered, one[0])) for one in asked]
        self._asking.discard(asyncio.current_task())
        watched = [self._judged(run, answered, one, first) for one, first in zip(asked, found, strict=True) if first is not None]
        await asyncio.gather(*watched)

    async def _tried(self, run: Run, asked: _Candidate, doing: Coroutine[Any, Any, T]) -> T | None:
        """None: it failed, which is counted."""
        candidate, control = asked
        try:
            return await doing
        except Exception as error:  # noqa: BLE001 - whatever a candidate does, it is counted, and nobody else's affair
            _tell(run, candidate, error)
            run.compared(candidate, "error", control=control)
            return None

    async def _first(self, answered: Answered, candidate: Mode) -> _First:
        rows = await self._read(candidate, answered.reads)
        return differences(answered.reads, answered.rows, rows, _now_ms()), (answered.rows.as_of_ms, rows.as_of_ms)

    async def _judged(self, run: Run, answered: Answered, asked: _Candidate, first: _First) -> None:
        candidate, control = asked
        found = await self._tried(run, asked, self._watched(first, (answered.rows.mode, candidate)))
        if found is None:
            return
        outcome: Outcome = "wrong" if any(one.verdict == "wrong" for one in found) else "stale" if found else "equal"
        run.compared(candidate, outcome, control=control)
        for one in found:
            _keep(run, answered.rows.mode, candidate, one, control=control)

    async def _watched(self, first: _First, modes: tuple[Mode, Mode]) -> Sequence[Difference]:
        """All that differed, judged."""
        found, as_of_ms = first
        ends, pause = time.monotonic() + self._patience_seconds, FIRST_PAUSE_SECONDS
        while (still := [one for one in found if one.verdict is None]) and time.monotonic() < ends:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            async with self._looks:
                as_of_ms = await self._look(still, modes)
        for one in found:
            one.end(as_of_ms, _now_ms())
        return found

    async def _look(self, still: Sequence[Difference], modes: tuple[Mode, Mode]) -> tuple[int, int]:
        """As-of of both."""
        reads = list(dict.fromkeys(one.read for one in still))
        both = [await self._read(mode, reads) for mode in modes]
        as_of_ms, now_ms = (both[FIRST].as_of_ms, both[SECOND].as_of_ms), _now_ms()
        rows = [dict(zip(reads, one.rows, strict=True)) for one in both]
        for one in still:
            pair = value(rows[FIRST][one.read], one.read, one.field), value(rows[SECOND][one.read], one.read, one.field)
            one.look(pair, as_of_ms, now_ms, self._settled_ms)
        return as_of_ms

    async def _read(self, mode: Mode, reads: Sequence[Read]) -> Rows:
        async with asyncio.timeout(READ_SECONDS):
            return await self._loaders[mode].load(reads)


def _keep(run: Run, mode: Mode, candidate: Mode, one: Difference, *, control: bool) -> None:
    verdict = one.verdict or "stale"
    run.differed(candidate, one.field, verdict, one.age_ms, control=control)
    run.mismatches.append(
        {
            "atMs": one.at_ms,
            "control": control,
            "by": one.read.by,
            "value": one.read.value,
            "field": one.field,
            "verdict": verdict,
            "ageMs": one.age_ms,
            "behind": None if one.behind is None else (mode, candidate)[one.behind],
            "answered": {"mode": mode, "value": _shown(one.values[FIRST]), "asOfMs": one.as_of_ms[FIRST]},
            "candidate": {"mode": candidate, "value": _shown(one.values[SECOND]), "asOfMs": one.as_of_ms[SECOND]},
        }
    )


def _tell(run: Run, candidate: Mode, error: Exception) -> None:
    """Once for each sort of error in a run: a candidate that is away fails each time."""
    sort = f"error:{candidate}:{type(error).__name__}"
    run.counts[sort] += 1
    if run.counts[sort] == 1:
        log.warning("shadow_failed", experiment=run.experiment.name, candidate=candidate, error=repr(error))


def _shown(fragment: bytes | None) -> str | None:
    return None if fragment is None else fragment[:SHOWN_BYTES].decode(errors="ignore")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
