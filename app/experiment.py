"""What an experiment is: how live traffic is split among modes, and which share of it a second mode answers too. Asks nobody."""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Collection, Mapping
from itertools import accumulate
from typing import Literal

import msgspec

from schema.loader import MODES, Mode

# it stands in a header, in a metric's label and in a key, and is what subjects are hashed with
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
WEIGHT = re.compile(r"\s*([a-z-]+)\s*=\s*(\d{1,6})\s*")
ARMS = 1 << 64

By = Literal["client", "id"]


class BadExperiment(ValueError):
    """An experiment that cannot be run; the message says what is wrong with it."""


class Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Answers that are compared. share: of requests, above 0 and up to 1. mode: the candidate; None: none.

    control: whether the mode that has answered is first asked again, and compared with itself.
    """

    share: float
    mode: Mode | None = None
    control: bool = False


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As it lies in Redis. weights: by mode; none: all traffic stays in the mode of the settings. started_ms: Unix ms; 0: by the settings.

    by: what a subject is told by: the client, or the first row that is asked for. whom: who started it.
    """

    name: str
    weights: Mapping[Mode, int] = {}
    by: By = "client"
    shadow: Shadow | None = None
    started_ms: int = 0
    whom: str = ""

    @property
    def run(self) -> str:
        """What it is counted under: whatever is changed of it begins its counts anew."""
        return hashlib.blake2b(self.encode(), digest_size=6).hexdigest()

    def encode(self) -> bytes:
        return msgspec.json.encode(self, order="deterministic")


# in Redis: whatever the settings say, there is none
NONE = Experiment("")


def decode(stored: bytes) -> Experiment:
    """Raises BadExperiment."""
    try:
        return msgspec.json.decode(stored, type=Experiment)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadExperiment(f"it is no document of an experiment: {error}") from error


def weights(text: str) -> dict[Mode, int]:
    """Of `view=50,cache-aside=50`; "" is none. Raises BadExperiment."""
    found: dict[Mode, int] = {}
    for part in text.split(",") if text.strip() else ():
        weight = WEIGHT.fullmatch(part)
        mode = next((mode for mode in MODES if weight and mode == weight[1]), None)
        if weight is None or mode is None:
            raise BadExperiment(f"{part.strip()!r} is no weight: write mode=number, such as view=50; modes are {', '.join(MODES)}")
        if mode in found:
            raise BadExperiment(f"mode {mode} has two weights")
        found[mode] = int(weight[2])
    return found


def check(experiment: Experiment, modes: Collection[Mode], mode: Mode) -> None:
    """modes: that a gateway has. mode: that answers where there are no weights. Raises BadExperiment."""
    if not NAME.fullmatch(experiment.name):
        raise BadExperiment(f"{experiment.name!r} is no name: small letters, digits, dots, dashes and underscores, at most 63")
    _known(experiment.weights, modes)
    if experiment.weights and not any(experiment.weights.values()):
        raise BadExperiment("of the weights one at least must be above 0")
    if any(not 0 <= weight < 1_000_000 for weight in experiment.weights.values()):
        raise BadExperiment("a weight is a number from 0 to 999999")
    if experiment.shadow:
        _check_shadow(experiment.shadow, modes, answering(experiment, mode))
    elif not experiment.weights:
        raise BadExperiment("it has neither weights nor a shadow, and so does nothing")


def answering(experiment: Experiment, mode: Mode) -> Collection[Mode]:
    """The modes that clients are answered in. mode: where there are no weights."""
    return {one for one, weight in experiment.weights.items() if weight} or {mode}


def _check_shadow(shadow: Shadow, modes: Collection[Mode], answering: Collection[Mode]) -> None:
    if not 0 < shadow.share <= 1:
        raise BadExperiment(f"the share of a shadow is above 0 and at most 1, and not {shadow.share:g}")
    if shadow.mode:
        _known([shadow.mode], modes)
    if shadow.control:
        return
    if shadow.mode is None:
        raise BadExperiment("a shadow needs a mode to compare with, or a control")
    if set(answering) == {shadow.mode}:
        raise BadExperiment(f"mode {shadow.mode} would be compared with itself; that is a control, which has to be asked for")


def _known(named: Collection[Mode], modes: Collection[Mode]) -> None:
    if unknown := [mode for mode in named if mode not in modes]:
        raise BadExperiment(f"this gateway has no mode {', '.join(unknown)}; it has {', '.join(modes)}")


class Split:
    """Which mode a subject is answered in: the same one each time, in every gateway, for as long as name and weights stay."""

    def __init__(self, name: str, weights: Mapping[Mode, int]) -> None:
        self._hash = hashlib.blake2b(digest_size=16, key=name.encode())
        # in one order, so that it matters to nobody how they were written
        self._modes = sorted(mode for mode, weight in weights.items() if weight)
        total = sum(weights.values())
        self._bounds = [bound * ARMS // total for bound in accumulate(weights[mode] for mode in self._modes)]

    def digest(self, subject: str) -> bytes:
        """16 bytes that tell it from others; the first half chooses its mode, the second is free."""
        hashed = self._hash.copy()
        hashed.update(subject.encode())
        return hashed.digest()

    def mode(self, digest: bytes) -> Mode:
        return self._modes[bisect_right(self._bounds, int.from_bytes(digest[:8], "big"))]
