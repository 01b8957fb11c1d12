"""README and docs held against the house: paths, commands and the query that they name."""

import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from graphql import build_schema, parse, validate

from app.cli import program
from app.settings import Settings, key_of
from app.views import definition_of
from examples.shop.scenario import SHOP
from examples.shop.view import CustomerView, Orders
from schema.definition import read_definition
from schema.fields import Count
from schema.graphql import sdl
from schema.user import Tweets, UserView

HOUSE = Path(__file__).parents[1]
ROOT_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "k8s/README.md", "examples/shop/README.md")
PAGES = sorted([*(HOUSE / page for page in ROOT_PAGES), *(HOUSE / "docs").glob("*.md")])
# `app/server.py`, `schema.graphql`, `app/commands/`; not user:g1, /readyz or .cache/demo
FILE = re.compile(r"`(\w[\w-]*(?:/[\w-]+)*(?:/|\.(?:py|lua|md|toml|graphql|txt|yaml)))`")
LINK = re.compile(r"\]\(((?!https?:)[^)#]+)\)")
COMMAND = re.compile(r"\bviewgate ([a-z]+(?:-[a-z]+)*)\b")
CALL = re.compile(COMMAND.pattern + r"([^\n#|·]*)")
OPTION = re.compile(r"(?<=\s)--[a-z][a-z-]*")
SETTING = re.compile(r"\bVIEWGATE_[A-Z_]*[A-Z]\b")


def _code(page: Path) -> list[str]:
    """In lines of its own or within a sentence."""
    return re.findall(r"```.*?```|`[^`\n]+`", page.read_text(), re.DOTALL)


def _named(page: Path) -> set[str]:
    return {name for text in _code(page) for name in COMMAND.findall(text)}


def _calls(page: Path) -> list[tuple[str, str]]:
    """Each command in code, with the rest of its line up to a comment, a pipe or another command; without what is quoted."""
    return [call for text in _code(page) for call in CALL.findall(re.sub(r"'[^'\n]*'", "", text))]


def _options(commands: Any, name: str) -> set[str]:
    command = commands.get_command(None, name)
    # of a group, those of all its commands
    each = [command, *getattr(command, "commands", {}).values()]
    return {"--help", *(option for one in each for parameter in one.params for option in parameter.opts)}


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
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    assert _named(page) - entry_points(group="viewgate.commands").names == set()


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOUSE)))
def test_every_setting_that_a_page_names_is_one(page: Path) -> None:
    known = {key_of(name) for name in Settings.model_fields}
    assert set(SETTING.findall(page.read_text())) - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOUSE)))
def test_every_option_that_a_page_gives_a_command_is_one_of_it(page: Path) -> None:
    commands = typer.main.get_command(program())
    given = [(name, option) for name, words in _calls(page) for option in OPTION.findall(words)]
    known = {name: _options(commands, name) for name, _ in given if name in entry_points(group="viewgate.commands").names}
    assert [(name, option) for name, option in given if name in known and option not in known[name]] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HOUSE)))
def test_every_target_of_make_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (HOUSE / "Makefile").read_text(), re.MULTILINE))
    named = {target for text in _code(page) for target in re.findall(r"(?:^|[ `\n])make ([a-z-]+)", text)}
    assert named - targets == set()


def test_the_example_of_the_shop_is_a_view_that_can_be_served() -> None:
    text = sdl(definition_of(Settings(view=SHOP.view)))
    assert [name for name in ("customerByEmail(", "orderCount: Int!", "paidCents: BigInt!") if name not in text] == []
    queries = re.findall(r"```graphql\n(.*?)```", (HOUSE / "examples" / "shop" / "README.md").read_text(), re.DOTALL)
    assert [query.strip() for query in queries] == [SHOP.query]
    assert validate(build_schema(text), parse(SHOP.query)) == []


def test_the_line_that_the_page_of_the_shop_adds_is_one_that_its_view_can_have() -> None:
    page = (HOUSE / "examples" / "shop" / "README.md").read_text()
    line = re.search(r"^    (cancelled_count): Annotated\[int, (Count.*)\]$", page, re.MULTILINE)
    assert line
    count = eval(line[2], {"Count": Count, "Orders": Orders})
    made: type[CustomerView] = type("CustomerView", (CustomerView,), {"__annotations__": {line[1]: Annotated[int, count]}})
    assert [field.camel for field in read_definition(dataclass(made)).aggregates][-1] == "cancelledCount"


@pytest.mark.parametrize("sentence", _sentences())
def test_a_sentence_that_stops_a_projector_stands_in_the_code(sentence: str) -> None:
    files = [path for folder in ("app", "projectors") for path in (HOUSE / folder).iterdir() if path.suffix in {".py", ".lua"}]
    code = "".join(path.read_text() for path in files)
    assert sentence in code


def test_every_error_code_has_a_line_in_the_docs() -> None:
    code = re.compile(r'(?:\bcode = |\b(?:refused|failure|_refusal)\(|\breturn |, )"([A-Z][A-Z_]{5,})"')
    files = [path for folder in ("schema", "loaders", "app") for path in (HOUSE / folder).rglob("*.py")]
    found = {name for path in files for name in code.findall(path.read_text())}
    page = (HOUSE / "docs" / "errors.md").read_text()
    assert {"NOT_READY", "INVALID_ID", "GRAPHQL_PARSE_FAILED", "NOT_FOUND", "BAD_REQUEST"} <= found
    assert [name for name in sorted(found) if f"| `{name}` |" not in page] == []


def test_every_test_that_contributing_names_exists() -> None:
    table = (HOUSE / "CONTRIBUTING.md").read_text().split("## How to add")[1].split("\n## ")[0]
    tests = "".join(path.read_text() for path in (HOUSE / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", table))
    assert len(named) > 5
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []


def test_the_line_counts_of_the_roads_are_about_right() -> None:
    rows = re.findall(r"^\| `([\w/.]+)` \| (\d+) \|", (HOUSE / "docs" / "how-it-works.md").read_text(), re.MULTILINE)
    assert len(rows) == 30
    assert [path for path, lines in rows if abs(len((HOUSE / path).read_text().splitlines()) - int(lines)) > 30] == []
