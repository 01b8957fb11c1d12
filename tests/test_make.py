"""`make` and what it runs before the tests: every target is told, and what a machine lacks is named."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
MAKEFILE = (HOUSE / "Makefile").read_text()
PAGES = [HOUSE / "README.md", HOUSE / "CONTRIBUTING.md", *(HOUSE / "docs").glob("*.md")]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
# for other targets only
INNER = {"system-packages"}


def _told() -> str:
    return subprocess.run(("make", "--no-print-directory"), cwd=HOUSE, capture_output=True, text=True, check=True).stdout


def _missing(bin_folder: Path, *programs: str) -> str:
    """What tools/system-packages says on a machine without root that has these programs only."""
    for name in ("cat", "sed"):
        (bin_folder / name).symlink_to(str(shutil.which(name)))
    (bin_folder / "id").write_text("#!/bin/sh\necho 1000\n")
    for name in programs:
        (bin_folder / name).write_text("#!/bin/sh\n")
    for program in bin_folder.iterdir():
        if not program.is_symlink():
            program.chmod(0o755)
    script = ("/bin/sh", str(HOUSE / "tools" / "system-packages"), "no-such-python")
    return subprocess.run(script, cwd=bin_folder, env={"PATH": str(bin_folder)}, capture_output=True, text=True, check=True).stdout


def test_make_without_a_target_tells_every_target() -> None:
    told = dict(re.findall(r"^([a-z-]+) +(\S.*)$", _told().split("\n\n")[0], re.MULTILINE))
    assert set(told) == TARGETS - INNER
    assert {"demo", "shop", "dev", "test", "check", "bench", "lock", "docs", "hooks", "clean"} <= set(told)


def test_make_tells_its_variables() -> None:
    told = _told().split("\n\n")[1]
    assert re.findall(r"^([A-Z]+)=", told, re.MULTILINE) == ["PORT", "FRESH", "CDC", "PYTEST", "FAULT", "PYTHON"]


def test_make_writes_no_colour_where_there_is_no_terminal() -> None:
    assert "\x1b" not in _told()


def test_no_target_is_taken_for_a_file_of_its_name() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == TARGETS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_target_that_a_page_names_exists(page: Path) -> None:
    code = re.findall(r"```.*?```|`[^`\n]+`", page.read_text(), re.DOTALL)
    named = {name for text in code for name in re.findall(r"\bmake ([a-z][a-z-]*)", text)}
    assert named - TARGETS == set()


def test_what_a_machine_lacks_is_named(tmp_path: Path) -> None:
    told = _missing(tmp_path)
    first = next(line for line in told.splitlines() if line.startswith("MISSING"))
    assert {"redis-server", "default-jre-headless", "maven", "default-jdk-headless", "chromium", "nodejs", "npm"} <= set(first.split())
    assert "the tests in a browser are skipped" in told


@pytest.mark.parametrize("browser", ["chromium", "chromium-browser", "google-chrome"])
def test_what_a_machine_has_is_not_missing(tmp_path: Path, browser: str) -> None:
    first = next(line for line in _missing(tmp_path, browser, "node", "npm").splitlines() if line.startswith("MISSING"))
    assert {"chromium", "nodejs", "npm"} & set(first.split()) == set()
    assert "maven" in first
