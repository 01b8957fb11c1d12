"""What a comparison has measured, as it lies in its JSON: the report is made of this and of nothing else.

Times of reads are in HDR histograms of microseconds, as their own library encodes them, so that they can be merged: percentiles never can.
A number that could not be measured (another machine's CPU) is None, and the report says so.
"""

from pathlib import Path

import msgspec

from schema.loader import Mode

FORM = 1


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Reads of one repeat of one cell, in open loop: each is timed from when it was due, those that failed or timed out too.

    rate: reads due a second. fraction: of the mode's own capacity; None: a rate given as such. errors: answers that were none.
    timeouts: reads given up, in the histogram with the time until then. late_ms: by how much the generator sent one too late, at most.
    """

    mode: Mode
    rate: float
    fraction: float | None
    repeat: int
    seconds: float
    reads: int
    errors: int
    timeouts: int
    late_ms: float
    histogram: str


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """The most reads a second that a mode answered, of each repeat, in closed loop, beside changes."""

    mode: Mode
    reads_per_second: list[float]


class Hits(msgspec.Struct, frozen=True, kw_only=True):
    """Where rows came from. cold: the cache was empty at the beginning. skew: Zipf's exponent, 0: even."""

    mode: Mode
    skew: float
    ttl_seconds: float
    cold: bool
    rows: int
    hits: int


class Staleness(msgspec.Struct, frozen=True, kw_only=True):
    """What answers lacked while changes came. ages_ms: of each answer that lacked one, how long before it
    the oldest change that it lacked had been acknowledged to its writer; a sample where there are too many. wrong: how many answers
    lacked one; answers: of how many.
    """

    mode: Mode
    changes_per_second: float
    answers: int
    wrong: int
    ages_ms: list[float]


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """What a stretch of reads, or of writes, or of neither, cost each server. CPU in seconds, None where it cannot be seen.

    kind: "reads": reads alone; "writes": changes alone; "idle": neither, to be taken off in proportion to the seconds.
    """

    mode: Mode
    kind: str
    seconds: float
    reads: int
    changes: int
    postgres_queries: int | None
    postgres_rows: int | None
    redis_commands: int | None
    redis_bytes: int | None
    gateway_cpu: float | None
    projector_cpu: float | None
    redis_cpu: float | None
    postgres_cpu: float | None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What a mode keeps in Redis: of how many rows, how many bytes (MEMORY USAGE of a sample, times the rows)."""

    mode: Mode
    rows: int
    redis_bytes: int


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """One second of a time line. second: since its beginning. p50_ms, p99_ms: of the reads that were due in it; None: none was answered."""

    second: int
    answered: int
    failed: int
    p50_ms: float | None
    p99_ms: float | None


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A fault while readers read. began, ended: seconds since the time line's beginning."""

    mode: Mode
    fault: str
    rate: float
    began: float
    ended: float
    moments: list[Moment]


class Discarded(msgspec.Struct, frozen=True, kw_only=True):
    """A run that does not count, and why; it was measured again."""

    cell: str
    reason: str


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All of one comparison. modes: in the order of the report. order: how the cells of each repeat came, such as ABBA.

    definition: seconds, users and what else the scenario said, as text by name. equal: how many answers of all modes were compared field
    by field, and found equal, before anything was timed.
    """

    form: int = FORM
    scenario: str
    about: str
    quick: bool
    seed: int
    began: str
    took_seconds: float
    command: str
    machine: str
    versions: str
    publishing: str
    cores: int
    users: int
    skew: float
    reads_per_write: float
    ttl_seconds: float
    definition: dict[str, str]
    order: list[str]
    equal: int
    modes: list[Mode]
    capacities: list[Capacity]
    timings: list[Timing]
    hits: list[Hits]
    staleness: list[Staleness]
    efforts: list[Effort]
    memory: list[Memory]
    timelines: list[Timeline]
    discarded: list[Discarded]


def write(results: Results, file: Path) -> None:
    """As JSON that a person can read."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def read(file: Path) -> Results:
    """Raises msgspec.ValidationError, OSError."""
    return msgspec.json.decode(file.read_bytes(), type=Results)
