"""A comparison in a few lines of a terminal: the numbers of each mode, and what to take. All else is in the report."""

from rich.console import Console
from rich.markup import escape

from app.console import table
from bench.compare import tables
from bench.compare.digest import Digest
from bench.compare.results import Results
from bench.compare.statistics import Estimate
from bench.compare.tables import Value
from bench.compare.verdict import verdict, why_none
from bench.compare.wording import interval, told

# characters that intervals beside the numbers take
WIDE = 130


def show(results: Results, console: Console) -> None:
    """A table with a row for each number, then the sentences that decide, or why there are none."""
    digest = Digest(results)
    summary = tables.summary(digest)
    made = table(results.scenario, *summary.columns[1:])
    for column in made.columns[1:]:
        column.justify = "right"
    for name, values in summary.rows:
        made.add_row(name, *((_with_interval if console.width >= WIDE else told)(value) for value in values))
    console.print(made)
    for sentence in verdict(digest):
        if sentence.decides:
            console.print(escape(sentence.words))
    if why := why_none(digest):
        console.print(escape(why))


def _with_interval(value: Value) -> str:
    ends = interval(value) if isinstance(value, Estimate) and value.low != value.high else ""
    return f"{told(value)} [dim]({ends})[/]" if ends else told(value)
