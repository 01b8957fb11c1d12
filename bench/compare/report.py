"""A comparison's report as a folder: index.html, which needs nothing beside it, results.json, figures.json, and each picture as PNG."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.compare import results as recorded
from bench.compare import tables
from bench.compare.digest import Digest
from bench.compare.models import models, use
from bench.compare.page import page
from bench.compare.pictures import drawn
from bench.compare.results import Results
from bench.compare.sections import Section, sections
from bench.compare.statistics import Estimate, Share
from bench.compare.tables import Table, Value
from bench.compare.verdict import Sentence, verdict, why_none


def write(results: Results, folder: Path) -> None:
    """The same files for the same results. The folder is made if it is not there. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = Digest(results)
    parts, sentences = sections(digest), verdict(digest)
    pictures = {plot.name: drawn(plot) for part in parts for plot in part.plots}
    recorded.write(results, folder / "results.json")
    (folder / "figures.json").write_bytes(_figures(digest, parts, sentences))
    (folder / "index.html").write_text(page(digest, parts, pictures, sentences), encoding="utf-8")
    for name, picture in pictures.items():
        (folder / f"{name}.png").write_bytes(picture.light)
        (folder / f"{name}-dark.png").write_bytes(picture.dark)


def _figures(digest: Digest, parts: Sequence[Section], sentences: Sequence[Sentence]) -> bytes:
    """Every number of the page: its tables by name, the models of cost, and the verdict."""
    shown = [tables.summary(digest), *(table for part in parts for table in part.tables)]
    told = {
        "scenario": digest.results.scenario,
        "seed": digest.results.seed,
        "tables": {table.name: _table(table) for table in shown},
        "models": list(models(digest.results).values()),
        "prices": digest.prices,
        "use": use(digest.results),
        "verdict": sentences,
        "no_verdict": why_none(digest) or None,
    }
    return msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n"


def _table(table: Table) -> dict[str, object]:
    rows = {name: dict(zip(table.columns[1:], map(_plain, values), strict=True)) for name, values in table.rows}
    return {"title": table.title, "rows": rows}


def _plain(value: Value) -> object:
    """Shares in percent, as the page has them."""
    if isinstance(value, Share):
        return value.scaled(100)
    return value if isinstance(value, Estimate | str | int | None) else float(value)
