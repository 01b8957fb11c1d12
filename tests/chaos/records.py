"""What each fault's run found, kept between runs; and docs/faults.md, made of it."""

import hashlib
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.chaos.audit import Audit
from tests.chaos.readers import Seen

HOUSE = Path(__file__).parents[2]
KEPT = HOUSE / ".cache" / "faults"
PAGE = HOUSE / "docs" / "faults.md"
CODE = ("schema", "loaders", "projectors", "app", "demo", "tests/chaos")
HEAD = """\
# Faults

Made by `make faults`: real Kafka, Redis, PostgreSQL and Debezium, hit while changes come in and readers ask in open loop. Each fault
proves that it was hit, and ends, once healed, in the full audit: every field of every user against SQL. A **wrong** answer is one that
the user never was; one **older than it says** was right before its own `viewgate-as-of`. *Healed* counts from the end of the fault until
an answer has everything up to that end. `make faults FAULT=f5` runs one, `make faults` those that have not passed yet with the code as
it is, and with `FRESH=1` all of them.

| | fault | healed | readers: asked, failed | oldest answer | older than it says | wrong | rows audited | lost, phantom, double |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(slots=True)
class Outcome:
    """name: of the test, such as f4_redis_killed. how: the fault, in words. proof: that it was hit. healed: seconds; changes: how many."""

    name: str
    how: str
    proof: list[str] = field(default_factory=list)
    passed: bool = False
    healed: float = 0.0
    changes: int = 0
    seen: Seen = field(default_factory=Seen)
    audit: Audit = field(default_factory=Audit)
    code: str = ""

    def keep(self) -> None:
        """Write it down, for `kept` and for the page."""
        KEPT.mkdir(parents=True, exist_ok=True)
        self.code = code()
        (KEPT / f"{self.name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(self)))


def passed(name: str) -> bool:
    """Whether this fault has passed with the code as it is."""
    return any(one.name == name and one.passed and one.code == code() for one in kept())


def kept() -> list[Outcome]:
    """The last run of each fault, in the order of their numbers."""
    found = [msgspec.json.decode(path.read_bytes(), type=Outcome) for path in KEPT.glob("f*.json")]
    return sorted(found, key=lambda one: (_number(one.name), one.name))


def code() -> str:
    """A digest of the code that a fault runs through."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in CODE for path in (HOUSE / folder).rglob("*") if path.suffix in {".py", ".lua"}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def write_page() -> None:
    """docs/faults.md, from what is kept."""
    outcomes = kept()
    PAGE.write_text(HEAD + "".join(map(_line, outcomes)) + "\n" + "\n".join(_section(one) for one in outcomes) + "\n" + _machine())


def _line(one: Outcome) -> str:
    seen, audit = one.seen, one.audit
    cells = (
        f"F{_number(one.name)}",
        _title(one.name) if one.passed else f"**FAILED** {_title(one.name)}",
        f"{one.healed:.1f} s",
        f"{seen.asked:,}, {seen.failed:,}",
        f"{seen.oldest_ms / 1000:.1f} s",
        str(seen.older),
        str(seen.wrong),
        f"{audit.rows:,}",
        f"{audit.lost}, {audit.phantom}, {audit.double}",
    )
    return f"| {' | '.join(cells)} |\n"


def _section(one: Outcome) -> str:
    errors = ", ".join(f"{count:,} {code}" for code, count in sorted(one.seen.errors.items())) or "none"
    proof = "".join(f"\n- Proof: {words}." for words in one.proof)
    return f"## F{_number(one.name)} {_title(one.name)}\n\n{one.how}\n{proof}\n- {one.changes:,} changes; readers' errors: {errors}.\n"


def _machine() -> str:
    return f"Run on {platform.machine()}, Python {platform.python_version()}.\n"


def _number(name: str) -> int:
    found = re.match(r"f(\d+)_", name)
    assert found, name
    return int(found[1])


def _title(name: str) -> str:
    words = name.partition("_")[2].replace("_", " ")
    return words[0].upper() + words[1:]
