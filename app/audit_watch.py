"""`viewgate audit --watch`: round after round at a bounded rate, and how much agrees. Looks and mends by what it is given."""

from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from aiokafka.errors import KafkaError
from rich.table import Table

from app.audit_metrics import AuditMetrics, nines
from app.auditing import Page, ids_of
from app.console import table
from loaders import sql
from projectors.apply import StoreUnavailable
from projectors.audit import AuditStuck, Mismatch
from projectors.clock import Clock
from projectors.repair import RepairStuck
from projectors.replay import WritesLost
from schema.loader import LoadError

# what is away comes back: the round is begun again
AWAY = (AuditStuck, KafkaError, LoadError, RepairStuck, StoreUnavailable, WritesLost, *sql.AWAY)
AGAIN_SECONDS = 5.0


@dataclass(slots=True)
class Round:
    """rows: looked at so far. wrong: the ids of those that differed and were not mended. fields: how often each differed."""

    number: int
    rows: int = 0
    wrong: set[str] = field(default_factory=set)
    fields: Counter[str] = field(default_factory=Counter)
    mended: int = 0

    @property
    def agreement(self) -> float:
        return nines(self.rows, len(self.wrong))


class Ages:
    """When each page of a round was looked at, in their order: the next one is the oldest."""

    def __init__(self, now: float) -> None:
        self._since, self._before, self._now = now, deque[float](), deque[float]()

    def looked(self, now: float) -> None:
        if self._before:
            self._before.popleft()
        self._now.append(now)

    def next_round(self) -> None:
        """Rows that come in the next one and were in none before are as old as this one's beginning."""
        self._since = self._now[0] if self._now else self._since
        self._before, self._now = self._now, deque()

    def oldest(self, now: float) -> float:
        return now - (self._before[0] if self._before else self._since)


class Watch:
    """begin: begins a round. mend: puts rows right and says what it has mended, None: nothing is mended. said: a sentence
    on what went wrong."""

    def __init__(
        self,
        begin: Callable[[], AsyncIterator[Page]],
        mend: Callable[[Iterable[str]], Awaitable[list[Mismatch]]] | None,
        rate: int,
        metrics: AuditMetrics,
        clock: Clock,
        said: Callable[[str], None],
    ) -> None:
        self._begin, self._mend, self._rate, self._metrics, self._clock, self._said = begin, mend, rate, metrics, clock, said
        self._ages = Ages(clock.monotonic())
        self.round = Round(1)
        self.last: Round | None = None

    @property
    def differs(self) -> bool:
        """Whether the last round, or the one that runs, found something that was not mended."""
        return bool(self.round.wrong or (self.last and self.last.wrong))

    async def run(self, shown: Callable[["Watch"], None], ended: Callable[["Watch"], None]) -> None:
        """For ever. shown: after each page. ended: after each round. Raises what does not come right by itself."""
        while True:
            try:
                await self._run(shown)
            except AWAY as away:
                self._said(f"Round {self.round.number} is begun again, it could not be finished: {away}")
                await self._clock.sleep(AGAIN_SECONDS)
                self.round = Round(self.round.number)
                continue
            self.last, self.round = self.round, Round(self.round.number + 1)
            self._ages.next_round()
            ended(self)

    async def _run(self, shown: Callable[["Watch"], None]) -> None:
        due = self._clock.monotonic()
        async for page in self._begin():
            await self._take(page)
            shown(self)
            due = max(due, self._clock.monotonic() - 1) + page.looked / self._rate
            await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
        # an empty view would else be looked at without a pause
        await self._clock.sleep(0.0 if self.round.rows else AGAIN_SECONDS)

    async def _take(self, page: Page) -> None:
        found, now = page.report.mismatches, self._clock.monotonic()
        self.round.rows += page.report.rows
        self._metrics.verified(page.report.rows)
        if page.report.rows:
            self._ages.looked(now)
        for mismatch in found:
            self.round.fields[mismatch.field] += 1
            self._metrics.differed(mismatch.field)
        wrong = {mismatch.id for mismatch in found}
        if found and self._mend:
            mended = await self._mend(ids_of(found))
            self.round.mended += len(mended)
            self._metrics.mended(len(mended))
            wrong -= {mismatch.id for mismatch in mended}
        self.round.wrong |= wrong
        stand = self.last or self.round
        self._metrics.stand(stand.agreement, self._ages.oldest(now))

    def line(self) -> str:
        """Of the last finished round."""
        last = self.last or self.round
        return (
            f"round {last.number}: {last.rows} rows, {len(last.wrong)} differ ({last.agreement:.1f} nines), {last.mended} fields mended, "
            f"oldest unverified {self._oldest():.0f} s ago"
        )

    def table(self) -> Table:
        """As it stands now."""
        shown = table("round", "rows", "differ", "nines", "mended", "oldest unverified", "by field")
        for one in (self.last, self.round):
            if one is not None:
                fields = ", ".join(f"{name} {count}" for name, count in one.fields.most_common(5))
                oldest = f"{self._oldest():.0f} s" if one is self.round else ""
                nines_ = f"{one.agreement:.1f}" if one.rows else ""
                shown.add_row(str(one.number), f"{one.rows:,}", str(len(one.wrong)), nines_, str(one.mended), oldest, fields)
        return shown

    def _oldest(self) -> float:
        return self._ages.oldest(self._clock.monotonic())
