"""The cells that only a stack of our own can be measured in: what each server does for a mode, hits by skew and time, faults."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from bench.compare import effort
from bench.compare.cells import SWITCH_SECONDS, Cell, Comparison
from bench.compare.faults import timeline
from bench.compare.generators import Generators
from bench.compare.journal import Measured
from bench.compare.residence import Residence
from bench.compare.results import Effort, Hits
from bench.compare.scenario import Scenario
from bench.compare.stack import Compared
from demo.servers.process import Process
from schema.loader import MODES, Mode

OUTCOMES = ("hit", "stale", "shared", "waited", "miss")


@dataclass(slots=True)
class Inside:
    """All of them, of one scenario."""

    made: Compared
    generators: Generators

    @property
    def scenario(self) -> Scenario:
        return self.made.scenario

    def cells(self) -> Iterator[Cell]:
        one = self.scenario
        for repeat in range(one.repeats):
            for mode in Comparison.order(repeat):
                yield Cell(f"effort {repeat} {mode}", SWITCH_SECONDS + 3 * one.seconds, partial(self._effort, repeat, mode))
        # a cross, not a grid: skews at the scenario's time, times at its skew
        skews, ttls = dict.fromkeys((one.skew, *one.hit_skews)), dict.fromkeys((one.ttl_seconds, *one.hit_ttls))
        for skew, ttl in dict.fromkeys([*((skew, one.ttl_seconds) for skew in skews), *((one.skew, ttl) for ttl in ttls)]):
            yield Cell(f"hits {skew:g} {ttl:g}", SWITCH_SECONDS + 2 * _half(one, ttl), partial(self._hits, "cache-aside", skew, ttl))
        for skew in skews:
            yield Cell(f"hits {skew:g} invalidate", SWITCH_SECONDS + 2 * one.seconds, partial(self._hits, "cache-invalidate", skew, None))
        for fault in one.faults:
            for mode in MODES:
                yield Cell(f"fault {fault} {mode}", SWITCH_SECONDS + 3 * one.seconds, partial(self._fault, fault, mode))

    async def _effort(self, repeat: int, mode: Mode) -> Measured:
        measured = Measured(cell=f"effort {repeat} {mode}")
        async with self.made.residence(mode) as running:
            for kind in ("reads", "writes", "idle"):
                # what was done before, such as to warm it up, is counted when its connections end
                await _gateway(running).restart()
                measured.efforts.append(await self._stretch(running, kind))
        return measured

    async def _stretch(self, running: Residence, kind: str) -> Effort:
        rate, seconds, reads, changes = max(self.scenario.rates), self.scenario.seconds, 0, 0
        before, began = {**await effort.servers(self.made), **effort.ours(self.made, running)}, time.monotonic()
        if kind == "reads":
            reads = len((await self.generators.read(running, rate, seconds, kind)).reads)
        elif kind == "writes":
            changes = (await self.generators.write(self.made.writes, self.generators.changes(rate), seconds, kind)).changes
            await self.made.written()
        else:
            await asyncio.sleep(seconds)
        lasted, own = time.monotonic() - began, effort.ours(self.made, running)
        await _gateway(running).stop()
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
    found = {one: await running.metric("viewgate_cache_reads_total", mode, f'outcome="{one}"') for one in OUTCOMES}
    return sum(found.values()), found["hit"] + found["stale"]


def _gateway(running: Residence) -> Process:
    assert running.gateway is not None  # noqa: S101 - a stack of our own starts it
    return running.gateway
