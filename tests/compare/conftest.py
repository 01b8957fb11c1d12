"""One recorded comparison and its report, written once for all tests that look at it."""

from pathlib import Path

import pytest

from bench.compare import report
from bench.compare.results import Results
from tests.browser.conftest import chromium, chromium_path
from tests.compare.recorded import recorded

__all__ = ["chromium", "chromium_path"]


@pytest.fixture(scope="session")
def results() -> Results:
    return recorded()


@pytest.fixture(scope="session")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("compared")
    report.write(results, written)
    return written
