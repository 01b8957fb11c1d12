"""The pages that are made from the code, held against it."""

import re
from pathlib import Path

import pytest

from app.reference import ROOT, pages
from app.settings import Settings

PAGES = pages()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_is_as_the_code_makes_it(page: Path) -> None:
    assert (ROOT / page).read_text() == PAGES[page], "run `make docs`"


def test_the_pages_have_every_setting_and_every_command_with_an_example() -> None:
    assert all(f"| `VIEWGATE_{name.upper()}` |" in PAGES[Path("docs/settings.md")] for name in Settings.model_fields)
    sections = PAGES[Path("docs/commands.md")].split("\n## ")[1:]
    assert len(sections) >= 11
    shown = re.compile(r"```sh\n(VIEWGATE_\S+ )?viewgate ")
    assert [section.splitlines()[0] for section in sections if not shown.search(section)] == []
