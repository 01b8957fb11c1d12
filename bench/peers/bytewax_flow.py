"""Bytewax keeps the counts: a dataflow on one worker, its state in memory alone, or in its recovery store (SQLite) too.

Arguments: bootstrap servers, topic, a folder, events, `recovery` or `memory`. Prints a Run as JSON; the counts go to the file `counts`.
"""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.connectors.files import FileSink
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main

from bench.stopwatch import Stopwatch
from projectors.records.envelope import decoder
from schema.user import Follows

# what Bytewax does when it is told nothing
EPOCH = timedelta(seconds=10)
Counts = tuple[int, int]
Step = tuple[str, Counts]


@dataclass(slots=True)
class _Applied:
    """How many changes are counted, where that is not yet the last word."""

    changes: int = 0

    def add(self, changes: int) -> None:
        self.changes += changes


@dataclass(slots=True)
class _Counts(StatefulBatchLogic):  # type: ignore[misc]  # bytewax is not installed where types are checked
    """Of one user: following, followers. Told once, at the end."""

    applied: Callable[[int], object]
    following: int = 0
    followers: int = 0

    def on_batch(self, steps: list[Counts]) -> tuple[Iterable[Any], bool]:
        for following, followers in steps:
            self.following += following
            self.followers += followers
        self.applied(len(steps))
        return (), self.RETAIN

    def on_eof(self) -> tuple[Iterable[str], bool]:
        return (f"{self.following} {self.followers}",), self.RETAIN

    def snapshot(self) -> Counts:
        return self.following, self.followers


def main(bootstrap: str, topic: str, folder: Path, events: int, keeping: str) -> None:
    """Two changes for each event. Timed until the last is counted, in memory; with recovery, until the store has it, at the end."""
    watch, applied = Stopwatch(2 * events), _Applied()
    if keeping == "memory":
        run_main(_flow(bootstrap, topic, folder / "counts", watch, watch.acknowledged), epoch_interval=EPOCH)
    else:
        recovery = folder / "recovery"
        recovery.mkdir()
        init_db_dir(recovery, 1)
        flow = _flow(bootstrap, topic, folder / "counts", watch, applied.add)
        run_main(flow, epoch_interval=EPOCH, recovery_config=RecoveryConfig(str(recovery)))
        watch.acknowledged(applied.changes)
    print(json.dumps(asdict(watch.run())))


def _flow(bootstrap: str, topic: str, told: Path, watch: Stopwatch, applied: Callable[[int], object]) -> Dataflow:
    flow = Dataflow("follows")
    records = op.input("records", flow, KafkaSource([bootstrap], [topic], tail=False))
    steps = op.flat_map_batch("steps", records, partial(_steps, decoder(Follows), watch))
    counts = op.stateful_batch("counts", steps, lambda state: _Counts(applied, *(state or (0, 0))))
    lines = op.map("lines", counts, lambda pair: (pair[0], f"{pair[0]} {pair[1]}"))
    op.output("told", lines, FileSink(told))
    return flow


def _steps(decode: Any, watch: Stopwatch, records: Iterable[Any]) -> list[Step]:
    watch.in_hand()
    steps: list[Step] = []
    for record in records:
        change = decode(record.value)
        for row, step in ((change.before, -1), (change.after, 1)):
            if row is not None:
                steps.append((str(row.follower_id), (step, 0)))
                steps.append((str(row.followee_id), (0, step)))
    return steps


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
