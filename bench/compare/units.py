"""What one read and one change cost each server: efforts, with what the idle stack costs taken off. Knows no prices."""

from collections.abc import Sequence

import msgspec
import numpy as np

from bench.compare.results import Effort, Results
from bench.compare.statistics import Estimate, Floats, Integers, bootstrap
from schema.loader import Mode

# who works in a mode; what another server does meanwhile is not the mode's
WORKERS: dict[Mode, tuple[str, ...]] = {
    "view": ("gateway", "projector", "redis", "postgres"),
    "cache-aside": ("gateway", "redis", "postgres"),
    "cache-invalidate": ("gateway", "projector", "redis", "postgres"),
    "sql": ("gateway", "postgres"),
}
SERVERS = ("gateway", "projector", "redis", "postgres")
# which count an effort is divided by
COUNTS = {"reads": "reads", "writes": "changes"}


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """CPU seconds of each server; None: not measured. A server that has no part in the mode has 0."""

    gateway: float | None
    projector: float | None
    redis: float | None
    postgres: float | None


def work(results: Results, mode: Mode, kind: str, weights: Integers | None = None) -> Work:
    """Of one read ("reads") or one change ("writes"). weights: how often each repeat of the efforts counts; None: once."""
    return Work(**{server: _cpu(results, mode, kind, server, weights) for server in SERVERS})


def seconds(spent: Work) -> float | None:
    """Of all servers together. None: one of them was not measured."""
    told = [part for part in msgspec.structs.astuple(spent) if part is not None]
    return sum(told) if len(told) == len(SERVERS) else None


def _cpu(results: Results, mode: Mode, kind: str, server: str, weights: Integers | None) -> float | None:
    if server not in WORKERS[mode]:
        return 0.0
    found = _each(results, mode, kind, f"{server}_cpu", None if weights is None else weights[None, :])
    return None if found is None else float(found[0])


def unit(results: Results, mode: Mode, kind: str, name: str, seed: int) -> Estimate | None:
    """Of a number of Effort by its name, for one read or one change. None: not measured."""
    count = len(efforts(results, mode, kind))
    if _each(results, mode, kind, name, None) is None:
        return None

    def statistic(weights: Integers) -> Floats:
        found = _each(results, mode, kind, name, weights)
        return np.full(len(weights), np.nan) if found is None else found

    return bootstrap(count, statistic, seed)


def efforts(results: Results, mode: Mode, kind: str) -> list[Effort]:
    """Of one mode and kind, a repeat each."""
    return [effort for effort in results.efforts if (effort.mode, effort.kind) == (mode, kind)]


def repeats(results: Results, modes: Sequence[Mode]) -> int:
    """How many repeats all efforts of these modes have; 1 where they differ: then they cannot be drawn together."""
    counts = {len(efforts(results, mode, kind)) for mode in modes for kind in (*COUNTS, "idle")} - {0}
    return counts.pop() if len(counts) == 1 else 1


def _each(results: Results, mode: Mode, kind: str, name: str, weights: Integers | None) -> Floats | None:
    """For each row of weights. Never below 0: what is less than the idle stack is nothing that can be told."""
    told, idle = efforts(results, mode, kind), efforts(results, mode, "idle")
    totals, counts = _numbers(told, name), _numbers(told, COUNTS[kind])
    if totals is None or counts is None or not counts.any():
        return None
    seconds, standing = _numbers(told, "seconds"), _numbers(idle, name)
    rows = np.ones((1, len(told)), dtype=np.int64) if weights is None else weights
    spent = rows @ totals
    if standing is not None and seconds is not None:
        of_idle = rows if rows.shape[1] == len(idle) else np.ones((1, len(idle)), dtype=np.int64)
        spent = spent - (of_idle @ standing) / (of_idle @ _seconds(idle)) * (rows @ seconds)
    return np.asarray(np.maximum(spent, 0.0) / (rows @ counts), dtype=np.float64)


def _seconds(told: Sequence[Effort]) -> Floats:
    return np.array([effort.seconds for effort in told], dtype=np.float64)


def _numbers(told: Sequence[Effort], name: str) -> Floats | None:
    """None: there are none, or one of them could not be measured."""
    found = [getattr(effort, name) for effort in told]
    return np.array(found, dtype=np.float64) if found and None not in found else None
