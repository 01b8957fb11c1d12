"""Answers what projectors/captured.py asks of PostgreSQL and Kafka from the model. Each of BREAKS takes one of the conditions away."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from projectors.captured import CapturedRows
from schema.positions import Partition
from schema.seen import Seen
from tests.message.postgres_model import DEFINITION, Postgres, Rows

BREAKS = (
    "a standby's snapshot",
    "no wait for those that run",
    "end offsets noted after the snapshot",
    "LSN read before the snapshot",
    "left out by the LSN alone",
    "left out by the id alone",
    "ids not widened",
    "level without the slot",
)


@dataclass(slots=True)
class Asked:
    """Pool and connection at once, and the clock: time passes between any two questions. rows: what the snapshot has seen."""

    postgres: Postgres
    rows: Rows = field(default_factory=dict)
    noted: dict[Partition, int] = field(default_factory=dict)
    _lsn: int = 0

    @property
    def captured(self) -> CapturedRows:
        return CapturedRows(self, DEFINITION, "slot", self.ends, lambda *_: None, self)  # type: ignore[arg-type]  # as much of both as is asked

    async def ends(self) -> Mapping[Partition, int]:
        self.noted = {}
        for partition in self.postgres.topics.partitions:
            self.postgres.steps()
            self.noted[partition] = self.postgres.topics.ends[partition]
        return self.noted

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator["Asked"]:
        yield self

    @asynccontextmanager
    async def transaction(self, isolation: str, readonly: bool) -> AsyncIterator[None]:
        assert (isolation, readonly) == ("repeatable_read", True)
        yield

    async def fetchval(self, query: str, *arguments: str) -> object:
        self.postgres.steps()
        try:
            return self._answer(query, *arguments)
        finally:
            self.postgres.steps()

    def _answer(self, query: str, *arguments: str) -> object:
        postgres = self.postgres
        if "pg_is_in_recovery" in query:
            return False
        if "pg_current_xact_id" in query:
            self._lsn = postgres.lsn
            return str(postgres.new_id())
        if "pg_snapshot_xmin" in query:
            return postgres.xmin > int(arguments[0]) or postgres.broken == "no wait for those that run"
        if "pg_current_snapshot" in query:
            self.rows = dict(postgres.rows)
            return postgres.snapshot()
        assert "pg_current_wal_insert_lsn" in query
        if postgres.broken == "end offsets noted after the snapshot":
            self.noted |= postgres.topics.ends
        return self._lsn if postgres.broken == "LSN read before the snapshot" else postgres.lsn

    async def fetch(self, query: str, *_: str) -> list[tuple[str]]:
        assert "pg_stat_activity" in query
        return []

    async def fetchrow(self, query: str, slot: str) -> dict[str, Any]:
        assert "confirmed_flush_lsn" in query
        self.postgres.steps()
        return {
            "lsn": 2**62 if self.postgres.broken == "level without the slot" else self.postgres.confirmed,
            "active": True,
            "lost": False,
        }

    def monotonic(self) -> float:
        return 0.0

    def now_ms(self) -> int:
        return 0

    async def sleep(self, _: float) -> None:
        self.postgres.steps()
        await asyncio.sleep(0)


class ByLsnAlone(Seen):
    def has(self, commit: int, tx_id: int) -> bool:
        return commit < self.lsn


class ByIdAlone(Seen):
    def has(self, commit: int, tx_id: int) -> bool:
        return super().has(0, tx_id)


class NotWidened(Seen):
    def has(self, commit: int, tx_id: int) -> bool:
        return commit < self.lsn and tx_id < self.xmax and tx_id not in self.running
