"""What an at-least-once connector sends again at new offsets, told by Debezium's pairs of LSNs. Pure; knows no shards."""

from collections.abc import Iterator
from typing import Any

from projectors.fold import Changes
from projectors.records.envelope import Change
from schema.positions import Run


class NotTold(Exception):
    """Whether a change is new cannot be told from its pair; the message says why, and ends without a command."""


class Repeats:
    """Of one partition, read without a gap from the beginning of a generation, or from the beginning of a run in it.

    At the beginning of a run nothing needs to be known of what lies before it: its pair is above all of that. So where the reading
    begins makes no difference to what is new. newest_ms: the newest commit time of what lies before, 0 for nothing.
    """

    __slots__ = ("_newest_ms", "_seen", "_snapshot", "_stopped", "_untold_from", "run")

    def __init__(self, newest_ms: int = 0) -> None:
        self.run: Run | None = None
        # keys of what came at the pair of the run, by table and op; pairs are not unique: the rows of one COPY page share one, all of a
        # snapshot do
        self._seen: dict[tuple[type, str], set[Any]] = {}
        # from this offset on, what comes at the pair of the run may have come before retention deleted it
        self._untold_from: int | None = None
        self._snapshot = self._stopped = False
        self._newest_ms = newest_ms

    def forget(self, run: Run, covered: int) -> None:
        """Retention has deleted the start of the run that the reading begins in. What lies below the offset `covered` is applied."""
        self.run, self._untold_from = run, covered

    def fresh(self, changes: Changes, live_from: int | None = None) -> Changes:
        """Those that did not come before. Each must bear a pair. live_from: from this offset on the generation is live.

        Raises NotTold.
        """
        return list(self._fresh(changes, live_from))

    def told(self, changes: Changes) -> Changes:
        """The same without NotTold: none from there on. No watermark lies behind that, for every projector stops there."""
        fresh: list[tuple[int, Change[Any]]] = []
        try:
            fresh.extend(() if self._stopped else self._fresh(changes, None))
        except NotTold:
            self._stopped = True
        return fresh

    def _fresh(self, changes: Changes, live_from: int | None) -> Iterator[tuple[int, Change[Any]]]:
        for offset, change in changes:
            is_live = live_from is not None and offset >= live_from
            if self._is_new(offset, change, is_live=is_live):
                # commit times, for the connector's own time is another one when it sends a change again
                self._newest_ms = max(self._newest_ms, change.ts_ms or 0)
                yield offset, change
            elif (change.ts_ms or 0) > self._newest_ms:
                raise NotTold(
                    f"the change at offset {offset} is at LSN {_lsn(change)}, behind what is counted, but was committed later: "
                    "the database was restored, or failed over, to an older LSN."
                )

    def _is_new(self, offset: int, change: Change[Any], *, is_live: bool) -> bool:
        pair, run = change.pair, self.run
        if pair is None:
            raise NotTold(f"the change at offset {offset} bears no pair of LSNs.")
        if run is not None and not pair[0] and run.pair[0]:
            # the first transaction of a connector: all its LSNs lie below its commit, which is the next one's first
            if is_live or pair[1] >= run.pair[0]:
                raise NotTold(
                    f"at offset {offset} the connector begins anew, with no commit before LSN {_lsn(change)}: it has lost its offsets."
                )
            return False
        if run is not None and pair < run.pair:
            return False
        if run is None or pair > run.pair:
            self._begin(offset, change, pair)
        row = change.before if change.after is None else change.after
        key = getattr(row, row.source.key) if row is not None else None
        seen = self._seen.setdefault((type(row), change.op), set())
        if key in seen:
            return False
        if self._untold_from is not None and offset >= self._untold_from:
            raise NotTold(
                f"the change at offset {offset} is at LSN {_lsn(change)}, of which some changes are counted, and which of them "
                "retention has deleted."
            )
        seen.add(key)
        return True

    def _begin(self, offset: int, change: Change[Any], pair: tuple[int, int]) -> None:
        if change.op == "r" and self._snapshot:
            raise NotTold(f"at offset {offset} a snapshot was begun anew, at LSN {_lsn(change)}, before the first one was over.")
        self.run, self._seen, self._untold_from = Run(pair, offset), {}, None
        self._snapshot = change.op == "r"


def _lsn(change: Change[Any]) -> str:
    """As PostgreSQL writes it."""
    return "{:X}/{:X}".format(*divmod(change.pair[1], 2**32)) if change.pair else "?"
