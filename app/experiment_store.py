"""An experiment in Redis: the key that switches it, the log of who did, and what all gateways have counted. Decides nothing."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.experiment import BadExperiment, Experiment, decode
from app.experiment_metrics import MISMATCHES, SCORES, SUBJECTS, Run
from schema import layout
from schema.loader import Mode

LOGGED = 1000
# what is counted of a run is kept so long after its last count, and the values that differed, which are users' data, so long
KEPT_SECONDS = 30 * 86400
KEPT_VALUES_SECONDS = 7 * 86400
AT_A_TIME = 500
# a gateway that was heard of so long ago runs it
HEARD_SECONDS = 10.0
HEARD, EXPOSED = "heard", "exposed"


@dataclass(frozen=True, slots=True)
class Switched:
    """A line of the log. what: started, stopped, reset. experiment: what it was switched to; None: to what the settings say."""

    at_ms: int
    whom: str
    what: str
    experiment: Experiment | None


@dataclass(slots=True)
class Counted:
    """Of a run, all gateways together. gateways: how many run it now. subjects: distinct ones, in the sample. mismatches: the newest first.

    distinct: about how many subjects there are. counts: of the shadow, as Run.counts has them.
    """

    gateways: int = 0
    exposures: Counter[Mode] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    subjects: Counter[Mode] = field(default_factory=Counter)
    distinct: int = 0
    mismatches: Sequence[Mapping[str, Any]] = ()


class ExperimentStore:
    """redis: the view's. view: its name."""

    def __init__(self, redis: Redis, view: str) -> None:
        self._redis, self._view = redis, view
        self._key, self._log = layout.experiment_key(view), layout.experiment_key(view, "log")

    async def read(self) -> bytes | None:
        """The document as it is stored. None: the settings say what is on trial."""
        stored: Any = await self._redis.get(self._key)
        return None if stored is None else bytes(stored)

    async def switch(self, experiment: Experiment | None, what: str, whom: str) -> None:
        """In every gateway, within about a second; never without a line in the log. experiment: None removes the key."""
        document = b"" if experiment is None else experiment.encode()
        pipeline = self._redis.pipeline(transaction=True)
        if experiment is None:
            pipeline.delete(self._key)
        else:
            pipeline.set(self._key, document)
        line: Mapping[Any, Any] = {"at_ms": _now_ms(), "whom": whom, "what": what, "experiment": document}
        pipeline.xadd(self._log, dict(line), maxlen=LOGGED, approximate=True)
        await pipeline.execute()

    async def log(self, lines: int) -> Sequence[Switched]:
        """The last switches, the newest first."""
        stored: Any = await self._redis.xrevrange(self._log, count=lines)
        return [_switched(fields) for _, fields in stored]

    async def write(self, gateway: str, run: Run, *, running: bool) -> None:
        """What a gateway has counted. May be done again: counts are told as they stand, and subjects are a set."""
        told = {f"{EXPOSED}:{mode}": times for mode, times in run.exposures.items()} | dict(run.counts)
        if running:
            told[HEARD] = _now_ms()
        if told:
            key = self._run_key(run.experiment, "counts")
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hset(key, mapping={f"{gateway}:{what}": number for what, number in told.items()})
            pipeline.expire(key, KEPT_SECONDS)
            await pipeline.execute()
        await self._write_subjects(run)
        await self._write_mismatches(run)

    async def counted(self, experiment: Experiment) -> Counted:
        """All that is known of a run."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hgetall(self._run_key(experiment, "counts"))
        pipeline.zrange(self._run_key(experiment, "subjects"), 0, -1, withscores=True)
        pipeline.lrange(self._run_key(experiment, "differ"), 0, -1)
        counts, subjects, mismatches = await pipeline.execute()
        found = Counted(mismatches=[msgspec.json.decode(one) for one in mismatches])
        for name, number in counts.items():
            what = name.decode().partition(":")[2]
            if what == HEARD:
                found.gateways += _now_ms() - int(number) < HEARD_SECONDS * 1000
            elif what.startswith(f"{EXPOSED}:"):
                found.exposures[what.partition(":")[2]] += int(number)
            else:
                found.counts[what] += int(number)
        found.subjects.update(member[8:].decode() for member, _ in subjects)
        found.distinct = _distinct([score for _, score in subjects])
        return found

    async def _write_subjects(self, run: Run) -> None:
        subjects = run.take()
        if not subjects:
            return
        key, pairs = self._run_key(run.experiment, "subjects"), list(subjects.items())
        pipeline = self._redis.pipeline(transaction=False)
        for start in range(0, len(pairs), AT_A_TIME):
            pipeline.zadd(key, dict(pairs[start : start + AT_A_TIME]))
        pipeline.zremrangebyrank(key, SUBJECTS, -1)
        pipeline.expire(key, KEPT_SECONDS)
        pipeline.zrange(key, SUBJECTS - 1, SUBJECTS - 1, withscores=True)
        try:
            *_, last = await pipeline.execute()
        except RedisError:
            run.put_back(subjects)
            raise
        if last:
            run.bounded(last[0][1])

    async def _write_mismatches(self, run: Run) -> None:
        if not run.mismatches:
            return
        key, some = self._run_key(run.experiment, "differ"), list(run.mismatches)
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.lpush(key, *map(msgspec.json.encode, some))
        pipeline.ltrim(key, 0, MISMATCHES - 1)
        pipeline.expire(key, KEPT_VALUES_SECONDS)
        await pipeline.execute()
        # others may have come meanwhile, and have taken the place of the first
        for one in some:
            if run.mismatches and run.mismatches[0] is one:
                run.mismatches.popleft()

    def _run_key(self, experiment: Experiment, what: Literal["counts", "subjects", "differ"]) -> str:
        return layout.experiment_key(self._view, experiment.run, what)


def _switched(fields: Mapping[bytes, bytes]) -> Switched:
    try:
        experiment = decode(fields[b"experiment"]) if fields[b"experiment"] else None
    except BadExperiment:
        # of another version of viewgate
        experiment = None
    return Switched(int(fields[b"at_ms"]), fields[b"whom"].decode(), fields[b"what"].decode(), experiment)


def _distinct(scores: Sequence[float]) -> int:
    """About how many there are, by the largest of so many smallest scores."""
    return len(scores) if len(scores) < SUBJECTS else round((len(scores) - 1) * SCORES / max(scores))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
