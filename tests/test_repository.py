"""What the repository itself promises: locks that any index can serve, a place told for every module, files that stay short."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("schema", "loaders", "projectors", "app", "demo", "bench")
MODULES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LOCKS = sorted(path.relative_to(ROOT) for path in (ROOT / "requirements").glob("*.txt"))
# without their dots, so that this file does not name them itself
INDEXES = [".".join(words) for words in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"), ("crates", "io"))]
INDEXES += [".".join(words) for words in (("proxy", "golang", "org"), ("repo", "maven", "apache"), ("repo1", "maven"), ("rubygems", "org"))]
INDEXES += ["artif" + "actory", "dev" + "pi"]
LONGEST_MODULE = 300


def committed() -> list[Path]:
    """Every file that git knows or would take, by its path from the root."""
    listed = subprocess.run(("git", "ls-files", "-co", "--exclude-standard", "-z"), cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [Path(name) for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_there_is_something_to_look_at() -> None:
    assert {Path("requirements/dev.txt"), Path("requirements/run.txt")} <= set(LOCKS)
    assert {path.parts[0] for path in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("lock", LOCKS, ids=str)
def test_a_lock_file_names_no_index_and_pins_every_package_by_hash(lock: Path) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--(extra-)?index-url|--find-links|--trusted-host)\b", text, re.MULTILINE)
    pins = [entry for entry in text.replace("\\\n", " ").splitlines() if entry and not entry.lstrip().startswith("#")]
    assert pins
    for pin in pins:
        assert re.match(r"[A-Za-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", pin), pin


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_says_its_place_and_is_short(module: Path) -> None:
    text = (ROOT / module).read_text()
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "it has no docstring"
    assert docstring.strip().endswith((".", "`", ":", ")")) or "\n" in docstring, "its docstring is no sentence"
    assert text.count("\n") <= LONGEST_MODULE


def test_no_committed_file_names_the_host_of_a_package_index() -> None:
    found = []
    for path in committed():
        text = (ROOT / path).read_bytes().decode(errors="replace").lower()
        found += [f"{path}: {index}" for index in INDEXES if index in text]
    assert found == []


def test_every_import_of_ours_runs_downwards() -> None:
    """import-linter holds it in `make check`; here so that `make test` alone does too."""
    allowed = {
        "schema": {"schema"},
        "loaders": {"loaders", "schema"},
        "projectors": {"projectors", "schema"},
        "app": {"app", "loaders", "projectors", "schema"},
    }
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        for name in _imported(ROOT / module)
        if name in PACKAGES and name not in allowed.get(module.parts[0], set(PACKAGES))
    ]
    assert wrong == []


def _imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}
