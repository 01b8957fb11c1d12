"""How dead letters, and what became of them, are shown on a terminal or as JSON. Reads nothing."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import typer
from rich.text import Text

from app.commands.generations import shown
from app.console import console, table
from app.letters import Outcome
from projectors.audit import Mismatch
from projectors.letters import Letter
from projectors.log import Record
from projectors.records.columns import UNREADABLE

SHOWN, LONGEST_SHOWN = 20, 10_000
# but for the end of a line
_CONTROL = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff\n]")


def show_list(letters: Sequence[Letter], *, as_json: bool = False) -> None:
    if as_json:
        typer.echo(json.dumps([_described(letter) for letter in letters], ensure_ascii=False))
        return
    lines = [(letter.position, f"{shown(letter.buried_ms)} ago", str(letter.times), letter.state, letter.reason) for letter in letters]
    _table(("position", "buried", "times", "state", "reason"), lines)


def _described(letter: Letter) -> dict[str, Any]:
    names = ("position", "state", "reason", "problem", "buried_ms", "times", "size", "replayed")
    return {name: getattr(letter, name) for name in names} | {"rows": sorted(letter.ids)}


def show_counts(counted: Sequence[tuple[tuple[str, str, str], int]], *, as_json: bool) -> None:
    """counted: topic, state and reason, with how many letters."""
    names = ("topic", "letters", "state", "reason")
    lines = [(topic, letters, state, reason) for (topic, state, reason), letters in counted]
    if as_json:
        typer.echo(json.dumps([dict(zip(names, line, strict=True)) for line in lines], ensure_ascii=False))
    else:
        _table(names, [(topic, f"{letters:,}", state, reason) for topic, letters, state, reason in lines])


def _table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    found = table(*columns)
    for line in lines:
        # as it is: a reason may have brackets, which are no style
        found.add_row(*(Text(_printable(cell)) for cell in line))
    console().print(found)


def show_letter(letter: Letter, whole: Letter, record: Record | None) -> None:
    partition, offset = letter.place
    typer.echo(f"{letter.position}, buried {shown(letter.buried_ms)} ago, {letter.times} times, lies at {partition}:{offset}")
    typer.echo(f"reason: {_printable(letter.reason)}")
    rows = f"it decodes, op {whole.op}, and touches {', '.join(sorted(whole.ids)[:SHOWN]) or 'no row'}"
    typer.echo(f"today: {_printable(whole.problem) or (rows if whole.decodes else 'its record is gone from Kafka')}")
    if letter.replayed:
        typer.echo(f"replayed: {letter.replayed}")
    if record is None:
        typer.echo("It has expired meanwhile.")
        return
    for name, value in record.headers:
        typer.echo(f"header {_printable(name)}: {_readable(value)}")
    typer.echo(f"key: {_readable(record.key)}\nvalue: {_readable(record.value)}")


def _readable(part: bytes | None) -> str:
    """JSON over several lines, text as it is, bytes escaped; cut where it is long."""
    if part is None:
        return "none"
    try:
        text = msgspec.json.format(part, indent=2).decode() if part[:1] in {b"{", b"["} else part.decode()
    except UNREADABLE:
        text = part.decode(errors="backslashreplace")
    text = _printable(text)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}… ({len(part):,} bytes)"


def _printable(text: str) -> str:
    """Nothing that a terminal would take for a command."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def tell_ready(letters: Sequence[Letter], ready: Sequence[Letter], *, dry_run: bool) -> None:
    rows = {row_id for letter in ready for row_id in letter.ids}
    if dry_run:
        show_list(ready[::-1])
    typer.echo(f"letters: {len(letters):,}, decode now: {len(ready):,}, rows that they touch: {len(rows):,}")
    for problem, letters_ in Counter(letter.problem for letter in letters if letter.problem).most_common(SHOWN):
        typer.echo(f"do not decode: {letters_:,}, {_printable(problem)}")
    if lost := [letter.position for letter in letters if letter.is_cut and not letter.problem]:
        typer.echo(f"{len(lost):,} were cut, and their records are gone from Kafka: {', '.join(lost[:SHOWN])}")


def tell_outcome(outcome: Outcome, view: str) -> None:
    name = outcome.record.name
    for mismatch in outcome.mended[:SHOWN]:
        typer.echo(f"{name}: {view} {_told(mismatch)}")
    if len(outcome.mended) > SHOWN:
        typer.echo(f"{name}: and {len(outcome.mended) - SHOWN:,} fields more")
    if outcome.share.late:
        told = ", ".join(letter.position for letter in outcome.share.late[:SHOWN])
        typer.echo(f"{name}: not brought in, for they are rows of a snapshot that it has already; `viewgate rebuild`: {told}")
    if outcome.trouble:
        typer.echo(f"{name}: {outcome.trouble} If the log cannot tell: `--against sql`, or `viewgate rebuild`.")
    else:
        typer.echo(f"{name}: {len(outcome.share.ids):,} rows are right, {len(outcome.mended):,} fields of them were not.")


def _told(mismatch: Mismatch) -> str:
    before, after = ("absent" if side is None else side.decode() for side in (mismatch.in_view, mismatch.in_sql))
    return f"{mismatch.id}: {mismatch.field} from {before} to {after}"
