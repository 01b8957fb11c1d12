"""The cells of a comparison: which there are, in which order, how long each takes, and how each is measured."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from bench.compare import effort, reading
from bench.compare.faults import timeline
from bench.compare.generators import START_SECONDS, Generators
from bench.compare.journal import Measured
from bench.compare.results import Discarded, Effort, Hits, Timing
from bench.compare.scenario import Scenario
from bench.compare.stack import MODES, Compared, Residence, equal
from bench.compare.staleness import staleness
from schema.loader import Mode

# to begin a residence and to end it
SWITCH_SECONDS = 8.0
# more of a cell's reads than this share were sent late by the generator itself: it does not count
MOST_LATE, TRIES = 0.01, 3


class Cell(NamedTuple):
    """seconds: about how long it takes."""

    name: str
    seconds: float
    run: Callable[[], Awaitable[Measured]]


@dataclass(slots=True)
class Comparison:
    """All cells of one scenario on one stack. known: what was measured before, by cell."""

    made: Compared
    seed: int
    known: Mapping[str, Measured]
    generators: Generators = field(init=False)

    def __post_init__(self) -> None:
        self.generators = Generators(self.made, self.seed)

    @property
    def scenario(self) -> Scenario:
        return self.made.scenario

    def cells(self) -> Iterator[Cell]:
        """In their order: modes there and back in turn, so that what drifts with time hits all of them."""
        one = self.scenario
        of_rates = (len(one.rates) + len(one.fractions)) * (one.seconds + START_SECONDS) + one.seconds
        yield Cell("equal", 4 * SWITCH_SECONDS, self._equal)
        for repeat in range(one.repeats):
            for mode in self.order(repeat):
                yield Cell(f"times {repeat} {mode}", SWITCH_SECONDS + of_rates, partial(self._times, repeat, mode))
            for mode in self.order(repeat):
                yield Cell(f"effort {repeat} {mode}", SWITCH_SECONDS + 3 * one.seconds, partial(self._effort, repeat, mode))
        # a cross, not a grid: skews at the scenario's time, times at its skew
        for skew, ttl in dict.fromkeys(
            [*((skew, one.ttl_seconds) for skew in (one.skew, *one.hit_skews)), *((one.skew, ttl) for ttl in one.hit_ttls)]
        ):
            yield Cell(f"hits {skew:g} {ttl:g}", SWITCH_SECONDS + 2 * _half(one, ttl), partial(self._hits, "cache-aside", skew, ttl))
        for skew in dict.fromkeys((one.skew, *one.hit_skews)):
            yield Cell(f"hits {skew:g} invalidate", SWITCH_SECONDS + 2 * one.seconds, partial(self._hits, "cache-invalidate", skew, None))
        for fault in one.faults:
            for mode in MODES:
                yield Cell(f"fault {fault} {mode}", SWITCH_SECONDS + 3 * one.seconds, partial(self._fault, fault, mode))

    @staticmethod
    def order(repeat: int) -> Sequence[Mode]:
        return MODES if repeat % 2 == 0 else MODES[::-1]

    async def _equal(self) -> Measured:
        await equal(self.made, self.scenario.users)
        return Measured(cell="equal")

    async def _times(self, repeat: int, mode: Mode) -> Measured:
        measured = Measured(cell=f"times {repeat} {mode}")
        async with self.made.residence(mode, warm=not self.scenario.cold) as running:
            closed = await self.generators.read(running, 0, self.scenario.seconds / 2, f"{repeat}")
            measured.capacity = sum(one.outcome == "ok" for one in closed.reads) / closed.seconds
            first = self.known.get(f"times 0 {mode}", measured).capacity or measured.capacity
            rates = [(rate, None) for rate in self.scenario.rates] + [(first * part, part) for part in self.scenario.fractions]
            for rate, fraction in rates:
                await self._timed(running, measured, repeat, rate, fraction)
            if repeat == self.scenario.repeats - 1:
                measured.memory.append(await effort.memory(self.made, mode))
        return measured

    async def _timed(self, running: Residence, measured: Measured, repeat: int, rate: float, fraction: float | None) -> None:
        """One rate, again where the generator was late by itself."""
        name = f"{running.mode} at {rate:.0f}/s, repeat {repeat}"
        for _ in range(TRIES):
            if self.scenario.cold:
                await self.made.empty_caches()
            found = await self.generators.both(running, rate, self.scenario.seconds, f"{repeat} {rate}")
            if found.late <= MOST_LATE * len(found.reads):
                break
            why = f"the generator sent {found.late} of {len(found.reads)} reads late, by up to {found.late_ms:.0f} ms"
            measured.discarded.append(Discarded(cell=name, reason=why))
        else:
            return
        times = reading.histogram()
        for one in found.reads:
            times.record_value(max(1, min(int(one.us), reading.LONGEST_US)))
        outcomes = [one.outcome for one in found.reads]
        measured.timings.append(
            Timing(
                mode=running.mode,
                rate=rate,
                fraction=fraction,
                repeat=repeat,
                seconds=self.scenario.seconds,
                reads=len(outcomes),
                errors=outcomes.count("error"),
                timeouts=outcomes.count("timeout"),
                late_ms=found.late_ms,
                histogram=times.encode().decode(),
            )
        )
        if fraction is None:
            measured.staleness.append(
                staleness(running.mode, self.generators.changes(rate), found.reads, self.made.base, self.generators.log)
            )

    async def _effort(self, repeat: int, mode: Mode) -> Measured:
        measured = Measured(cell=f"effort {repeat} {mode}")
        async with self.made.residence(mode) as running:
            for kind in ("reads", "writes", "idle"):
                # what was done before, such as to warm it up, is counted when its connections end
                await running.gateway.restart()
                measured.efforts.append(await self._stretch(running, kind))
        return measured

    async def _stretch(self, running: Residence, kind: str) -> Effort:
        rate, seconds, reads, changes = min(self.scenario.rates), self.scenario.seconds, 0, 0
        before, began = {**await effort.servers(self.made), **effort.ours(running)}, time.monotonic()
        if kind == "reads":
            reads = len((await self.generators.read(running, rate, seconds, kind)).reads)
        elif kind == "writes":
            changes = (await self.generators.write(self.generators.changes(rate), seconds, kind)).changes
            await self.made.written()
        else:
            await asyncio.sleep(seconds)
        lasted, own = time.monotonic() - began, effort.ours(running)
        await running.gateway.stop()
        return effort.effort(running.mode, kind, lasted, reads, changes, before, {**await effort.servers(self.made), **own})

    async def _hits(self, mode: Mode, skew: float, ttl: float | None) -> Measured:
        """Cold, then what is warm after that."""
        half = self.scenario.seconds if ttl is None else _half(self.scenario, ttl)
        told = {} if ttl is None else {"VIEWGATE_CACHE_TTL_SECONDS": f"{max(1.0, ttl):g}"}
        measured = Measured(cell=f"hits {skew:g} {'invalidate' if ttl is None else format(ttl, 'g')}")
        async with self.made.residence(mode, warm=False, **told) as running:
            for cold in (True, False):
                before = await _looked(running)
                await self.generators.both(running, min(self.scenario.rates), half, f"{cold}", skew=skew)
                rows, hits = (after - was for after, was in zip(await _looked(running), before, strict=True))
                # where changes delete entries, their time ends few
                time_ = self.scenario.ttl_seconds if ttl is None else ttl
                measured.hits.append(Hits(mode=mode, skew=skew, ttl_seconds=time_, cold=cold, rows=round(rows), hits=round(hits)))
        return measured

    async def _fault(self, fault: str, mode: Mode) -> Measured:
        rate, seconds = min(self.scenario.rates), 3 * self.scenario.seconds
        async with self.made.residence(mode) as running:
            found = asyncio.create_task(self.generators.both(running, rate, seconds, fault))
            line = await timeline(self.made, mode, fault, rate, self.scenario.seconds, found)
        return Measured(cell=f"fault {fault} {mode}", timelines=[line])


def _half(scenario: Scenario, ttl: float) -> float:
    return min(max(scenario.seconds, 2 * ttl), scenario.hit_seconds)


async def _looked(running: Residence) -> tuple[float, float]:
    """Entries that the gateway has looked for, and found."""
    mode = f'mode="{running.mode}"'
    found = {
        outcome: await running.metric("viewgate_cache_reads_total", mode, f'outcome="{outcome}"')
        for outcome in ("hit", "stale", "shared", "waited", "miss")
    }
    return sum(found.values()), found["hit"] + found["stale"]
