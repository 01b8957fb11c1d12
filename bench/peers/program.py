"""Runs a peer's program and reads what it tells of its run."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.stopwatch import Run
from demo.servers import process

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
# of a million events, by the slowest of them, on a slow machine
LONGEST_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class _Told:
    seconds: float
    cpu_seconds: float
    peak_mb: int


def run(argv: Sequence[str]) -> Run:
    """Until it ends; the last line that it prints is its Run as JSON. Raises ServerError with the end of what it printed."""
    printed = asyncio.run(process.run(*argv, seconds=LONGEST_SECONDS))
    try:
        told = msgspec.json.decode(printed.strip().rpartition("\n")[2], type=_Told)
    except msgspec.DecodeError as error:
        raise process.ServerError(f"{argv[-1]} told no figures ({error}); it printed:\n{process.last_lines(printed.encode())}") from error
    return Run(told.seconds, told.cpu_seconds, told.peak_mb)
