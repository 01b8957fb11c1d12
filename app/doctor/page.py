"""The tables of docs/doctor.md, from the words of the checks themselves."""

from collections.abc import Iterator
from typing import Any

from app.doctor.checks import Check, Checks
from app.doctor.examination import ORDER

HEAD = "\n## Every check\n"
COLUMNS = "| check | looks at | warns when | wrong when | to mend |\n| --- | --- | --- | --- | --- |\n"


def page(written: str) -> str:
    """The page with its tables made anew. written: as it is; what stands before the tables is kept."""
    return written.partition(HEAD)[0] + HEAD + "".join(_table(server) for server in ORDER)


def _table(server: Checks[Any]) -> str:
    return f"\n### {server.server[0].upper()}{server.server[1:]}\n\n{COLUMNS}{''.join(_rows(server))}"


def _rows(server: Checks[Any]) -> Iterator[str]:
    for check in server.checks:
        yield f"| {' | '.join(_cells(check))} |\n"


def _cells(check: Check[Any]) -> tuple[str, ...]:
    # a bar would end the cell
    return tuple(cell.replace("|", "\\|") for cell in (check.name, check.looks_at, check.warning, check.wrong, check.mend))
