"""The cells that any stack can be measured in: equal answers, then how long reads take. What only ours can is in inside.py."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from bench.compare import effort, reading
from bench.compare.deployed import Deployed
from bench.compare.generators import START_SECONDS, Generators
from bench.compare.journal import Measured
from bench.compare.residence import Residence, check_equal
from bench.compare.results import Discarded, Timing
from bench.compare.scenario import Scenario
from bench.compare.stack import Compared
from bench.compare.staleness import staleness
from schema.loader import MODES, Mode

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

    made: Compared | Deployed
    generators: Generators
    known: Mapping[str, Measured]

    @property
    def scenario(self) -> Scenario:
        return self.made.scenario

    def cells(self) -> Iterator[Cell]:
        """In their order: modes there and back in turn, so that what drifts with time hits all of them alike."""
        one = self.scenario
        of_rates = (len(one.rates) + len(one.fractions)) * (one.seconds + START_SECONDS) + one.seconds
        yield Cell("equal", 4 * SWITCH_SECONDS, self._equal)
        for repeat in range(one.repeats):
            for mode in self.order(repeat):
                yield Cell(f"times {repeat} {mode}", SWITCH_SECONDS + of_rates, partial(self._times, repeat, mode))

    @staticmethod
    def order(repeat: int) -> Sequence[Mode]:
        """There and back in turn."""
        return MODES if repeat % 2 == 0 else MODES[::-1]

    async def _equal(self) -> Measured:
        async with self.made.all_modes() as running:
            await check_equal(running, self.scenario.users)
        return Measured(cell="equal")

    async def _times(self, repeat: int, mode: Mode) -> Measured:
        measured = Measured(cell=f"times {repeat} {mode}")
        async with self.made.residence(mode, warm=not self.scenario.cold) as running:
            alone = answered(await self.generators.read(running, 0, self.scenario.seconds / 4, f"{repeat}"))
            # with changes of about the rate that it will have
            measured.capacity = answered(await self.generators.both(running, 0, self.scenario.seconds / 2, f"{repeat}", as_for=alone / 2))
            first = self.known.get(f"times 0 {mode}", measured).capacity or measured.capacity
            rates = [(rate, None) for rate in self.scenario.rates] + [(first * part, part) for part in self.scenario.fractions]
            for rate, fraction in rates:
                await self._timed(running, measured, repeat, rate, fraction)
            if isinstance(self.made, Compared) and repeat == self.scenario.repeats - 1:
                measured.memory.append(await effort.memory(self.made, mode))
        return measured

    async def _timed(self, running: Residence, measured: Measured, repeat: int, rate: float, fraction: float | None) -> None:
        """One rate, again where the generator was late by itself."""
        name = f"{running.mode} at {rate:.0f}/s, repeat {repeat}"
        for _ in range(TRIES):
            if self.scenario.cold and isinstance(self.made, Compared):
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


def answered(found: reading.Found) -> float:
    """Reads a second."""
    return sum(one.outcome == "ok" for one in found.reads) / found.seconds
