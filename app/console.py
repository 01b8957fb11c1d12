"""Where commands print: colour, tables and live lines on a terminal, plain lines elsewhere. Prints nothing itself."""

import time

from rich.console import Console
from rich.table import Table

# where there is no terminal a line may be as long as it is
WIDEST = 10_000


def console(*, stderr: bool = False) -> Console:
    """Of the output, or of stderr. Without colour where that is no terminal, or NO_COLOR is set."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, soft_wrap=True, width=WIDEST)


def table(*columns: str) -> Table:
    """A table without rules: its columns are told by their heads, and the first is never broken."""
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for place, column in enumerate(columns):
        made.add_column(column, overflow="fold", no_wrap=place == 0)
    return made


def age(as_of_ms: int) -> str:
    """How long ago, in seconds, everything was that an answer has. as_of_ms: Unix ms, of another machine's clock perhaps."""
    return f"{max(0.0, time.time() - as_of_ms / 1000):.1f} s"
