"""Keeps a gateway's experiment what Redis says it is, and tells Redis what was counted: once a second, beside the road of requests."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from redis.exceptions import RedisError

from app.experiment import NONE, BadExperiment, Experiment, check, decode
from app.experiment_store import ExperimentStore
from app.trial import Trial

EVERY_SECONDS = 1.0
# what is off is told of a while longer: comparisons may be under way
LINGER_SECONDS = 15.0

log = structlog.stdlib.get_logger()


class Watch:
    """settled: what the settings put on trial, where the key is absent."""

    def __init__(self, store: ExperimentStore, trial: Trial, settled: Experiment | None) -> None:
        self._store, self._trial, self._settled = store, trial, settled
        self._gateway = secrets.token_hex(4)
        # as it was last seen; where there is none, the settings hold already
        self._seen: bytes | None = None
        self._away, self._begun = False, False
        self._off: dict[str, float] = {}
        trial.switch(settled)

    async def turn(self) -> None:
        """Look, and tell. Where Redis is away, all stays as it was; that is said once, and not by a gateway that only begins to serve."""
        try:
            stored = await self._store.read()
            if stored != self._seen:
                self._seen = stored
                self._switch(stored)
            await self._tell()
        except (RedisError, OSError) as away:
            if self._begun and not self._away:
                log.warning("experiment_redis_away", reason=str(away), running=self._name())
            self._away = self._begun
        else:
            self._away = False
        self._begun = True

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.turn()
            except Exception:
                log.exception("experiment_turn_failed")

    def _switch(self, stored: bytes | None) -> None:
        try:
            experiment = self._settled if stored is None else decode(stored)
            if experiment == NONE:
                experiment = None
            elif experiment is not None:
                check(experiment, self._trial.loaders, self._trial.mode)
        except BadExperiment as bad:
            log.error("experiment_malformed", reason=str(bad), running=self._name())
            return
        if experiment is None and self._trial.running is None:
            return
        self._trial.switch(experiment)
        log.info("experiment_switched", running=self._name())

    async def _tell(self) -> None:
        running, now = self._trial.running, time.monotonic()
        for name, run in list(self._trial.runs.items()):
            on = running is not None and running.run is run
            await self._store.write(self._gateway, run, running=on)
            if on:
                self._off.pop(name, None)
            elif now - self._off.setdefault(name, now) > LINGER_SECONDS:
                del self._trial.runs[name], self._off[name]

    def _name(self) -> str | None:
        running = self._trial.running
        return None if running is None else running.run.experiment.name


@asynccontextmanager
async def watched(store: ExperimentStore, trial: Trial, settled: Experiment | None) -> AsyncIterator[None]:
    """The trial as Redis has it, from its first moment; what is counted at the end is told too."""
    watch = Watch(store, trial, settled)
    await watch.turn()
    watching = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await trial.shadows.end()
        await watch.turn()
