"""README and docs held against the house: paths, commands and the query that they name."""

import re
import sys
import types
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import pytest
from graphql import build_schema, parse, validate

from schema.definition import read_definition
from schema.fields import Count
from schema.graphql import sdl
from schema.user import Tweets, UserView

HOUSE = Path(__file__).parents[1]
PAGES = sorted([HOUSE / "README.md", HOUSE / "CHANGELOG.md", HOUSE / "k8s" / "README.md", *(HOUSE / "docs").glob("*.md")])
# `app/server.py`, `schema.graphql`, `app/commands/`; not user:g1, /readyz or .cache/demo
FILE = re.compile(r"`(\w[\w-]*(?:/[\w-]+)*(?:/|\.(?:py|lua|md|toml|graphql|txt|yaml)))`")
LINK = re.compile(r"\]\(((?!https?:)[^)#]+)\)")
COMMAND = re.compile(r"\bviewgate ([a-z]+)\b")


def _limits() -> str:
    return (HOUSE / "README.md").read_text().split("## Limits")[1].split("\n## ")[0]


def _named(page: Path) -> set[str]:
    """Commands in code, in a line of its own or within a sentence."""
    code = re.findall(r"```.*?```|`[^`\n]+`", page.read_text(), re.DOTALL)
    return {name for text in code for name in COMMAND.findall(text)}


def _sentences() -> list[str]:
    """The stop sentences of docs/running.md, a cell of which may name several."""
    table = (HOUSE / "docs" / "running.md").read_text().split("| the sentence says | do |")[1].split("\n\n")[0]
    cells = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ") and "---" not in line]
    return [sentence for cell in cells for sentence in cell.split("; ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOUSE)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    named = [HOUSE / path for path in FILE.findall(text)] + [page.parent / path for path in LINK.findall(text)]
    assert [path for path in named if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOUSE)))
def test_every_command_that_a_page_names_exists_or_is_among_the_limits(page: Path) -> None:
    known = entry_points(group="viewgate.commands").names | set(COMMAND.findall(_limits()))
    assert _named(page) - known == set()


def test_no_command_that_exists_is_among_the_limits_as_missing() -> None:
    missing = next(line for line in _limits().splitlines() if "do not exist yet" in line)
    assert set(COMMAND.findall(missing)) & entry_points(group="viewgate.commands").names == set()


def test_the_query_of_the_readme_fits_the_schema() -> None:
    schema = build_schema((HOUSE / "schema.graphql").read_text())
    queries = re.findall(r"```graphql\n(.*?)```", (HOUSE / "README.md").read_text(), re.DOTALL)
    assert queries
    assert [error.message for query in queries for error in validate(schema, parse(query))] == []


def test_the_line_that_the_readme_adds_is_one_that_a_view_can_have() -> None:
    line = re.search(r"^    (hello_count): Annotated\[int, (Count.*)\]$", (HOUSE / "README.md").read_text(), re.MULTILINE)
    assert line
    assert line[0] in (HOUSE / "docs" / "adding-an-aggregate.md").read_text()
    count = eval(line[2], {"Count": Count, "Tweets": Tweets})
    made: type[UserView] = type("UserView", (UserView,), {"__annotations__": {line[1]: Annotated[int, count]}})
    assert [field.camel for field in read_definition(dataclass(made)).aggregates][-1] == "helloCount"


def test_the_other_view_of_the_docs_can_be_served() -> None:
    example, printing = re.findall(r"```python\n(.*?)```", (HOUSE / "docs" / "another-view.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "shop", "print": lambda _: None}
    module = types.ModuleType("shop")
    module.__dict__.update(names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "shop", module)
        exec(example + printing, module.__dict__)
        text = sdl(read_definition(module.CustomerView))
    assert [name for name in ("customerByEmail(", "orderCount: Int!", "paidCents: BigInt!") if name not in text] == []


@pytest.mark.parametrize("sentence", _sentences())
def test_a_sentence_that_stops_a_projector_stands_in_the_code(sentence: str) -> None:
    files = [path for folder in ("app", "projectors") for path in (HOUSE / folder).iterdir() if path.suffix in {".py", ".lua"}]
    code = "".join(path.read_text() for path in files)
    assert sentence in code


def test_the_line_counts_of_the_roads_are_about_right() -> None:
    rows = re.findall(r"^\| `([\w/.]+)` \| (\d+) \|", (HOUSE / "docs" / "how-it-works.md").read_text(), re.MULTILINE)
    assert len(rows) == 13
    assert [path for path, lines in rows if abs(len((HOUSE / path).read_text().splitlines()) - int(lines)) > 30] == []
