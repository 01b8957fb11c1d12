"""docs/clients.md and the package beside it, without running either: what is shown is what is run, and what is installed is pinned."""

import json
import re
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
EXAMPLES = HOUSE / "examples" / "clients"
PAGE = (HOUSE / "docs" / "clients.md").read_text()
BLOCKS = re.findall(r"^```(ts|tsx|graphql|json)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
SOURCES = [path for folder in (".", "queries", "src", "src/react") for path in (EXAMPLES / folder).glob("*.*") if path.is_file()]


@pytest.mark.parametrize(("kind", "block"), BLOCKS, ids=lambda part: part.splitlines()[0])
def test_what_the_page_shows_is_a_piece_of_a_file_that_is_run(kind: str, block: str) -> None:
    assert block.count("\n") >= 3
    assert [path.name for path in SOURCES if path.suffix == f".{kind}" and block in path.read_text()] != []


def test_the_page_shows_every_client_and_no_code_of_another_kind() -> None:
    shown = "".join(block for _, block in BLOCKS)
    assert all(name in shown for name in ("new ApolloClient(", "new UrqlClient(", "new Environment(", "CodegenConfig"))
    assert set(re.findall(r"^```(\w+)$", PAGE, re.MULTILINE)) == {kind for kind, _ in BLOCKS} | {"sh"}


def test_every_script_that_the_page_runs_exists() -> None:
    scripts = json.loads((EXAMPLES / "package.json").read_text())["scripts"]
    named = set(re.findall(r"npm run (?:--silent )?(\w+)", PAGE))
    assert named == set(scripts)


def test_every_version_is_pinned_and_the_lock_names_no_place_to_fetch_from() -> None:
    package, lock = (json.loads((EXAMPLES / name).read_text()) for name in ("package.json", "package-lock.json"))
    pins = package["dependencies"] | package["devDependencies"]
    assert [name for name, version in pins.items() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
    root = lock["packages"].pop("")
    assert root["dependencies"] | root["devDependencies"] == pins
    assert [name for name, entry in lock["packages"].items() if "resolved" in entry or "integrity" not in entry] == []
