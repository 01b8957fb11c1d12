"""How long a run took, and what it used. Needs nothing but Python: peers run it in an environment of their own."""

import resource
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Run:
    """How it went. seconds: from the first record in hand to the last effect acknowledged. cpu_seconds: of the contender's own processes,
    between the same. fetches: None where it tells none. peak_mb: memory, resident."""

    seconds: float
    cpu_seconds: float
    peak_mb: int
    fetches: int | None = None


@dataclass(slots=True)
class Stopwatch:
    """Started by the first records in hand, stopped by the last acknowledgement."""

    events: int
    fetches: int = 0
    applied: int = 0
    _started: tuple[float, float] = (0.0, 0.0)
    _stopped: tuple[float, float] | None = field(default=None)

    def in_hand(self) -> None:
        if not self.fetches:
            self._started = now()
        self.fetches += 1

    def acknowledged(self, events: int) -> bool:
        """Whether these were the last."""
        self.applied += events
        if self.applied >= self.events and self._stopped is None:
            self._stopped = now()
        return self._stopped is not None

    def run(self) -> Run:
        if self._stopped is None or self.applied != self.events:
            raise RuntimeError(f"{self.applied} events were applied, and there are {self.events}")
        wall, cpu = (end - start for start, end in zip(self._started, self._stopped, strict=True))
        return Run(wall, cpu, peak_mb(), self.fetches)


def peak_mb() -> int:
    """The most memory that this process has had."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    # not what getrusage tells: that begins with the memory of the process that started this one
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


def now() -> tuple[float, float]:
    """Of the wall, by a clock that all processes of a machine share, and of this process's processor, in seconds."""
    return time.perf_counter(), time.process_time()
