"""What `make docs` makes from the code: schema.graphql, docs/commands.md, and the tables of docs/settings.md and docs/doctor.md."""

import re
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from app.cli import program
from app.commands.settings import as_text
from app.doctor import page as doctor
from app.settings import Settings, key_of
from schema import graphql
from schema.definition import read_definition
from schema.user import UserView

ROOT = Path(__file__).parents[1]
HEAD = "| key | default | what it is |\n"


def pages() -> dict[Path, str]:
    """What each page must hold, by its path from the root."""
    settings, commands = ROOT / "docs" / "settings.md", ROOT / "docs" / "commands.md"
    return {
        Path("schema.graphql"): graphql.sdl(read_definition(UserView)),
        Path("docs/settings.md"): _replaced(settings.read_text(), HEAD + "| --- | --- | --- |\n" + "".join(_rows())),
        Path("docs/doctor.md"): doctor.page((ROOT / "docs" / "doctor.md").read_text()),
        Path("docs/commands.md"): commands.read_text().partition("\n## ")[0] + "\n" + "\n".join(_commands()),
    }


def _rows() -> list[str]:
    return [f"| `{key_of(name)}` | {_default(field.default)} | {field.description} |\n" for name, field in Settings.model_fields.items()]


def _default(value: object) -> str:
    return as_text(value) if value in (None, "") else f"`{as_text(value)}`"


def _replaced(page: str, table: str) -> str:
    before, _, rest = page.partition(HEAD)
    return before + table + "\n" + rest.partition("\n\n")[2]


def _commands() -> list[str]:
    group = typer.main.get_command(program())
    context = typer.Context(group)
    text = get_docs_for_click(obj=group, ctx=context, name="viewgate")
    _, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return [_readable(section) for section in sections]


def _readable(section: str) -> str:
    """Examples as code; arguments and options as one list, without what every command has."""
    section = section.replace("\b", "")
    section = re.sub(r"\n*Examples?:\n((?:  .*\n)+)", lambda found: f"\n\n```sh\n{_dedented(found[1])}```\n", section)
    section = re.sub(r"\*\*Usage\*\*:\n\n```console\n.*\n```\n\n", "", section)
    section = re.sub(r"(\n\* .*\n)\n\*\*Options\*\*:\n\n", r"\1", section)
    section = re.sub(r"\*\*(Arguments|Options)\*\*:\n\n", "", section)
    return section.replace("* `--help`: Show this message and exit.\n", "").rstrip("\n") + "\n"


def _dedented(lines: str) -> str:
    return re.sub("^  ", "", lines, flags=re.MULTILINE)


if __name__ == "__main__":
    for path, text in pages().items():
        (ROOT / path).write_text(text)
