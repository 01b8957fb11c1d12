"""What a comparison has measured so far, a line for each cell, so that one that was broken off goes on from there. Measures nothing."""

from pathlib import Path

import msgspec

from bench.compare.results import Capacity, Discarded, Effort, Hits, Memory, Staleness, Timeline, Timing


class Measured(msgspec.Struct, kw_only=True):
    """All that came of one cell; most of it is empty."""

    cell: str
    capacity: float | None = None
    timings: list[Timing] = []
    hits: list[Hits] = []
    staleness: list[Staleness] = []
    efforts: list[Effort] = []
    memory: list[Memory] = []
    timelines: list[Timeline] = []
    discarded: list[Discarded] = []


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What must be the same for a run to be gone on with."""

    scenario: str
    seed: int
    version: str
    url: str


class Other(Exception):
    """The journal is of another run; the message says what to do."""


class Journal:
    """A file of JSON lines: the head, then the cells."""

    def __init__(self, file: Path, head: Head) -> None:
        """Raises Other."""
        self._file, self.cells = file, dict[str, Measured]()
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(msgspec.json.encode(head) + b"\n")
            return
        # the last line was broken off, perhaps, while it was written
        whole = file.read_bytes().rpartition(b"\n")[0]
        first, *lines = whole.split(b"\n")
        try:
            is_same = msgspec.json.decode(first, type=Head) == head
        except msgspec.MsgspecError:
            is_same = False
        if not is_same:
            raise Other(f"{file} is of another scenario, seed or version: remove it, or name another folder with --report.")
        file.write_bytes(whole + b"\n")
        for line in lines:
            measured = msgspec.json.decode(line, type=Measured)
            self.cells[measured.cell] = measured

    def add(self, measured: Measured) -> None:
        self.cells[measured.cell] = measured
        with self._file.open("ab") as file:
            file.write(msgspec.json.encode(measured) + b"\n")


def capacities(cells: dict[str, Measured]) -> list[Capacity]:
    """Of each mode, in the order measured."""
    found: dict[str, list[float]] = {}
    for measured in cells.values():
        if measured.capacity is not None and measured.timings:
            found.setdefault(measured.timings[0].mode, []).append(measured.capacity)
    return [Capacity(mode=mode, reads_per_second=rates) for mode, rates in found.items()]  # type: ignore[arg-type]  # as in a Timing
