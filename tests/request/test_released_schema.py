"""The schema of today against that of the last release: what a client of that release asks must still be answered."""

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from graphql import build_schema
from graphql.utilities import find_breaking_changes, find_dangerous_changes
from packaging.version import Version

HOUSE = Path(__file__).parents[2]
RELEASES = HOUSE / "docs" / "releases"


def newest(folder: Path) -> Path:
    """The SDL of the highest version: 0.10.0 is above 0.9.1."""
    return max(folder.glob("*.graphql"), key=lambda path: Version(path.stem))


def may_break(released: Version, now: Version) -> bool:
    """Whether Semantic Versioning lets `now` break what `released` promised: a higher major, below 1.0.0 a higher minor."""
    return (now.major, now.minor if now.major == 0 else 0) > (released.major, released.minor if released.major == 0 else 0)


def breaking(released: str, now: str) -> list[str]:
    """A sentence for each change that breaks a client. released, now: SDL."""
    return [change.description for change in find_breaking_changes(build_schema(released), build_schema(now))]


def unannounced(changes: Sequence[str], changelog: str, release: Version) -> list[str]:
    """The changes whose sentence is not in the changelog above the release."""
    text = " ".join(changelog.partition(f"## [{release}]")[0].split())
    return [change for change in changes if change not in text]


def test_no_client_of_the_last_release_is_broken_unless_the_version_and_the_changelog_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    release = newest(RELEASES)
    released, now = Version(release.stem), Version(tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["version"])
    old, new = release.read_text(), (HOUSE / "schema.graphql").read_text()
    with capsys.disabled():
        for change in find_dangerous_changes(build_schema(old), build_schema(new)):
            sys.stdout.write(f"\nnot breaking, but look at it: {change.description}\n")
    changes = breaking(old, new)
    undo = f"{changes} break clients of {released}. Undo them in the view definition"
    assert changes == [] or may_break(released, now), f"{undo}, or raise the version in pyproject.toml, now {now}"
    missing = unannounced(changes, (HOUSE / "CHANGELOG.md").read_text(), released)
    assert missing == [], f"{undo}, or write these sentences into CHANGELOG.md, under Unreleased: {missing}"


SDL = """
type Query { user(id: ID!, short: Boolean): User }
type User { id: ID! name: String likeCount: Int! followerCount: Int! }
"""


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("name: String", "", "Field User.name was removed."),
        ("short: Boolean", "short: Boolean!", "Argument Query.user(short:) has changed type from Boolean to Boolean!."),
        ("followerCount: Int!", "followerCount: Float!", "Field User.followerCount changed type from Int! to Float!."),
        ("followerCount: Int!", "followerCount: Int", "Field User.followerCount changed type from Int! to Int."),
        ("short: Boolean", "short: Boolean, shade: Int!", "A required argument Query.user(shade:) was added."),
    ],
)
def test_a_change_that_breaks_clients_is_found(old: str, new: str, sentence: str) -> None:
    assert breaking(SDL, SDL.replace(old, new)) == [sentence]


def test_what_is_only_added_breaks_nobody() -> None:
    assert breaking(SDL, SDL.replace("name: String", "name: String! tweetCount: Int!") + "type Tweet { id: ID! }") == []


@pytest.mark.parametrize(
    ("released", "now", "may"),
    [
        ("0.1.0", "0.1.1", False),
        ("0.1.0", "0.2.0.dev0", True),
        ("0.9.0", "0.10.0", True),
        ("0.2.0", "0.1.9", False),
        ("0.9.0", "1.0.0", True),
        ("1.2.0", "1.3.0", False),
        ("1.2.0", "2.0.0rc1", True),
        ("1.2.0", "0.9.0", False),
    ],
)
def test_only_a_higher_major_or_below_one_a_higher_minor_may_break(released: str, now: str, may: bool) -> None:
    assert may_break(Version(released), Version(now)) is may


def test_the_last_release_is_the_highest_version_and_not_the_last_name(tmp_path: Path) -> None:
    for name in ("0.9.1", "0.10.0", "0.2.0"):
        (tmp_path / f"{name}.graphql").touch()
    assert newest(tmp_path).stem == "0.10.0"


def test_a_break_is_announced_only_above_the_release_that_it_breaks() -> None:
    changes = ["Field User.name was removed.", "Field User.id changed type from ID! to ID."]
    changelog = "## [Unreleased]\n- Field User.name\n  was removed.\n## [0.1.0]\n- Field User.id changed type from ID! to ID.\n"
    assert unannounced(changes, changelog, Version("0.1.0")) == changes[1:]


@pytest.mark.parametrize("release", sorted(RELEASES.glob("*.graphql")), ids=lambda release: str(release.stem))
def test_a_release_is_kept_as_a_schema_that_can_be_read(release: Path) -> None:
    assert build_schema(release.read_text()).query_type
