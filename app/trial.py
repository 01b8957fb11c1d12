"""What a gateway has on trial, for those who answer requests: which mode a request is given, and what is done once it is answered."""

from collections.abc import Mapping, Sequence

from app import headers
from app.endpoint.asked import Head
from app.experiment import Experiment, Split
from app.experiment_metrics import ExperimentMetrics, Run
from app.shadow import Answered, Shadows
from schema.loader import Loader, Mode, Read, Rows

CLIENT = headers.CLIENT.encode()
# a request that asks for a mode, or for what not every mode can answer, is left as it is
OWN_WAY = frozenset({headers.MODE.encode(), headers.AFTER.encode()})


class Trial:
    """running: None while there is no experiment, which is all that a request looks at then.

    mode: of the settings. runs: by Experiment.run, those whose counts are not all in Redis yet; app/experiment_watch.py removes them.
    """

    def __init__(self, loaders: Mapping[Mode, Loader], mode: Mode, metrics: ExperimentMetrics, shadows: Shadows) -> None:
        self.loaders, self.mode, self.shadows = loaders, mode, shadows
        self.runs: dict[str, Run] = {}
        self.running: Running | None = None
        self._metrics = metrics

    def switch(self, experiment: Experiment | None) -> None:
        """To one that is checked; None: to none. What was switched off ends with the requests that are under way."""
        if experiment is None:
            self.running = None
            return
        run = self.runs.get(experiment.run) or self._metrics.run(experiment)
        self.runs[experiment.run] = run
        self.running = Running(run, self)


class Running:
    """One experiment as this gateway runs it. told: its name, in the answers that it has given a mode; None where it gives none."""

    def __init__(self, run: Run, trial: Trial) -> None:
        experiment = run.experiment
        self.run = run
        self.told = experiment.name if experiment.weights else None
        self.loaders, self.mode, self._shadows, self._shadow = trial.loaders, trial.mode, trial.shadows, experiment.shadow
        self.split = Split(experiment.name, experiment.weights) if experiment.weights else None
        self._by_id = experiment.by == "id"

    def part(self, head: Head, address: str) -> "Part | None":
        """Of a request in this experiment. None: it has none. address: the client's."""
        if not OWN_WAY.isdisjoint(head):
            return None
        if self.split is None or self._by_id:
            return Part(self, self.mode)
        return self._given(self._client(head) or address)

    def short_part(self, head: Head, reads: Sequence[Read]) -> "Part | None":
        """The same where the client's address is not known. None: it must go the whole road, as must what another mode is to answer."""
        if self.split is None:
            return Part(self, self.mode)
        subject = reads[0].value if self._by_id else self._client(head)
        part = self._given(subject) if subject else None
        return part if part is not None and part.mode == self.mode else None

    def place(self, part: "Part", reads: Sequence[Read]) -> None:
        """Give it a mode, once it is known what it reads, and count that it has one."""
        if self.split is None or part.exposed:
            return
        if part.digest is None:
            part.digest = self.split.digest(reads[0].value)
            part.mode = self.split.mode(part.digest)
        part.exposed = True
        self.run.exposed(part.mode, part.digest)

    def answered(self, part: "Part") -> None:
        """The client has its answer."""
        if self._shadow is not None and part.answers and self._shadows.drawn(self._shadow):
            for answer in part.answers:
                self._shadows.offer(self.run, self._shadow, answer)

    def _given(self, subject: str) -> "Part":
        assert self.split is not None  # noqa: S101 - asked for a subject only where there is a split
        digest = self.split.digest(subject)
        return Part(self, self.split.mode(digest), digest)

    @staticmethod
    def _client(head: Head) -> str:
        return head.get(CLIENT, b"").decode("latin-1")


class Part:
    """A request's part in an experiment: the Loader that it is answered by, in one mode. exposed: whether the experiment has given it one.

    mode: that answers, or is to. digest: of its subject; None: not known before it reads.
    """

    __slots__ = ("answers", "digest", "exposed", "mode", "running")

    def __init__(self, running: Running, mode: Mode, digest: bytes | None = None) -> None:
        self.running, self.mode, self.digest = running, mode, digest
        self.exposed = False
        self.answers: list[Answered] = []

    async def load(self, reads: Sequence[Read]) -> Rows:
        self.running.place(self, reads)
        rows = await self.running.loaders[self.mode].load(reads)
        self.answers.append(Answered(reads, rows))
        return rows

    async def ready(self) -> None:
        await self.running.loaders[self.mode].ready()

    def took(self, reads: Sequence[Read], rows: Rows) -> None:
        """Another way to the same: this was loaded in its mode."""
        self.running.place(self, reads)
        self.answers.append(Answered(reads, rows))
