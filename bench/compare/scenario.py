"""What a comparison does, out of a small TOML file: docs/comparison.md says what each line of it means. Does nothing."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

SCENARIOS = Path(__file__).with_name("scenarios")
Publishing = Literal["capture", "single-write"]
Fault = Literal["redis restart", "cold cache", "slow postgres"]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Whole = Annotated[int, msgspec.Meta(ge=1)]


class ScenarioError(Exception):
    """There is no such scenario, or its file says what none can mean; the message says which and what to do."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """users: seeded. skew: of reads and of changes, Zipf's exponent; 0: even. celebrity: the share of both that are of one user.

    reads_per_write: reads for each change. publishing: "capture" where Kafka Connect is at hand, else "single-write" and said so.
    rates: reads a second, given as such. fractions: of each mode's own capacity. page: the share of reads that are of ten users at once.
    cold: caches are empty when a cell begins. hit_skews, hit_ttls: where hit ratios are measured, beside the scenario's own. hit_seconds:
    for how long at most, cold and then warm. seconds: of each cell. repeats: of each.
    """

    about: str
    users: Whole = 20_000
    skew: Annotated[float, msgspec.Meta(ge=0, le=3)] = 1.0
    celebrity: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    reads_per_write: Positive = 10.0
    publishing: Publishing = "capture"
    rates: tuple[Positive, ...] = (200.0, 1_000.0)
    fractions: tuple[Share, ...] = (0.25, 0.5, 0.75, 0.9)
    page: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    cold: bool = False
    ttl_seconds: Positive = 60.0
    hit_skews: tuple[float, ...] = (0.0, 0.8, 1.2)
    hit_ttls: tuple[Positive, ...] = (1.0, 5.0, 20.0)
    hit_seconds: Positive = 30.0
    faults: tuple[Fault, ...] = ("redis restart", "cold cache", "slow postgres")
    seconds: Positive = 5.0
    repeats: Whole = 5

    def quick(self) -> "Scenario":
        """The same, short: a look, and no judgement."""
        return msgspec.structs.replace(
            self,
            users=min(self.users, 2_000),
            publishing="single-write",
            rates=self.rates[:1],
            fractions=(0.7,),
            hit_skews=(),
            hit_ttls=(),
            hit_seconds=3.0,
            faults=self.faults[:1],
            seconds=1.5,
            repeats=1,
        )


def names() -> list[str]:
    """Of those that come with it."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def find(name: str) -> tuple[str, Scenario]:
    """A scenario that comes with it, by its name, or one of one's own by its file. Raises ScenarioError."""
    file = SCENARIOS / f"{name}.toml"
    if not file.is_file():
        file = Path(name)
    if not file.is_file():
        raise ScenarioError(f"There is no scenario {name!r}: write {', '.join(names())}, or the path of a TOML file (docs/comparison.md).")
    try:
        return file.stem, msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Scenario)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ScenarioError(f"{file} is no scenario: {error}. docs/comparison.md says what it may hold.") from error
