"""What the pictures of a comparison show of efforts, memory, costs and faults. Latency, hits and staleness are in plots.py."""

from collections.abc import Iterator, Sequence
from functools import partial

import msgspec
import numpy as np
from matplotlib.axes import Axes

from bench.compare.costs import cost
from bench.compare.digest import Digest
from bench.compare.models import models, use
from bench.compare.pictures import Plot, Theme, logarithmic
from bench.compare.results import Results, Timeline
from bench.compare.tables import CENTS, Table, Value, load, memory, writes
from bench.compare.units import SERVERS, Work, work

NAMES = {"gateway": "gateway", "projector": "projector", "redis": "Redis", "postgres": "PostgreSQL"}
HATCHES = {"gateway": "", "projector": "//", "redis": "..", "postgres": "\\\\"}
# reads per change, from writing much to writing little
RATIOS = np.logspace(-2, 3, 61)


def efforts(digest: Digest, kind: str) -> Iterator[Plot]:
    """CPU of "reads" or of "writes", and what PostgreSQL and Redis were asked."""
    what, table = ("1,000 reads", load(digest)) if kind == "reads" else ("1,000 changes", writes(digest))
    told = {mode: work(digest.results, mode, kind) for mode in digest.results.modes}
    whole = "; ".join(f"{mode} {_sum(one)}" for mode, one in told.items())
    alt = f"CPU milliseconds of each server for {what}, in stacked bars, a bar for each mode: {whole}."
    yield Plot(f"cpu-of-{kind}", f"CPU for {what}", alt, partial(_stacked, digest.results, kind, what))
    asked = f"Queries and rows of PostgreSQL and commands of Redis for {what}, a group of bars for each; the table beneath has the numbers."
    yield Plot(f"asked-for-{kind}", f"What servers are asked, for {what}", asked, partial(_asked, table, what))


def _sum(one: Work) -> str:
    told: list[float | None] = [getattr(one, server) for server in SERVERS]
    known = sum(part for part in told if part is not None) * 1e6
    return f"{known:.3g} ms" if None not in told else f"{known:.3g} ms and what was not measured"


def _stacked(results: Results, kind: str, what: str, panels: Sequence[Axes], theme: Theme) -> None:
    (axes,) = panels
    left = np.zeros(len(results.modes))
    for server in SERVERS:
        told = [getattr(work(results, mode, kind), server) for mode in results.modes]
        widths = np.array([0.0 if one is None else one * 1e6 for one in told])
        axes.barh(
            results.modes, widths, left=left, color=theme.servers[server], edgecolor=theme.paper, hatch=HATCHES[server], label=NAMES[server]
        )
        left += widths
    for place, mode in enumerate(results.modes):
        hidden = [NAMES[server] for server in SERVERS if getattr(work(results, mode, kind), server) is None]
        told_sum = f"{left[place]:.3g} ms" + (f", without {', '.join(hidden)}: not measured" if hidden else "")
        axes.annotate(told_sum, (left[place], place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"CPU ms for {what}")


def _asked(table: Table, what: str, panels: Sequence[Axes], theme: Theme) -> None:
    (axes,) = panels
    headings = ("SQL queries", "SQL rows", "Redis commands")
    height = 0.8 / max(len(table.rows), 1)
    for place, (mode, values) in enumerate(table.rows):
        told = [_plain(values[table.columns.index(heading) - 1]) for heading in headings]
        stroke = next(stroke for name, stroke in theme.strokes.items() if name == mode)
        places = np.arange(len(headings)) + (place - (len(table.rows) - 1) / 2) * height
        widths = [one if isinstance(one, float) else 0.0 for one in told]
        axes.barh(places, widths, height=height, color=stroke.colour, edgecolor=theme.paper, hatch=stroke.hatch, label=mode)
        for at, width, one in zip(places, widths, told, strict=True):
            axes.annotate(
                f"{one:,.0f}" if isinstance(one, float) else one,
                (width, at),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    axes.set_yticks(range(len(headings)), headings)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"for {what}")


def _plain(value: Value) -> float | str:
    if value is None or isinstance(value, str):
        return value or "not measured"
    return float(value) if isinstance(value, int | float) else value.value


def kept(digest: Digest) -> Plot:
    told = [(mode, _plain(values[1])) for mode, values in memory(digest).rows]
    alt = "Megabytes in Redis, a bar for each mode: " + "; ".join(f"{mode} {_megabytes(size)}" for mode, size in told) + "."
    return Plot("memory", "What lies in Redis", alt, partial(_kept, told))


def _kept(told: Sequence[tuple[str, float | str]], panels: Sequence[Axes], theme: Theme) -> None:
    (axes,) = panels
    for place, (mode, size) in enumerate(told):
        stroke = next(stroke for name, stroke in theme.strokes.items() if name == mode)
        width = size if isinstance(size, float) else 0.0
        axes.barh([place], [width], height=0.6, color=stroke.colour, edgecolor=theme.paper, hatch=stroke.hatch)
        axes.annotate(_megabytes(size), (width, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(told)), [mode for mode, _ in told])
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("MB in Redis")


def _megabytes(size: float | str) -> str:
    return size if isinstance(size, str) else f"{size:.3g} MB"


def costs(digest: Digest) -> Plot:
    even = [f"{one.other}: {one.ratio.at:.3g}" for one in digest.evens if one.ratio and one.ratio.at is not None]
    alt = "Cents for a million reads by reads per change, at the prices that the page begins with. "
    alt += f"Break-even with the view, in reads per change: {'; '.join(even)}." if even else "No mode's line crosses the view's."
    return Plot("costs", "Cost by reads per change", alt, partial(_costs, digest))


def _costs(digest: Digest, panels: Sequence[Axes], theme: Theme) -> None:
    (axes,) = panels
    made, how = models(digest.results), use(digest.results)
    for mode in digest.results.modes:
        stroke = theme.strokes[mode]
        told = [cost(made[mode], digest.prices, msgspec.structs.replace(how, reads_per_write=float(ratio))) for ratio in RATIOS]
        cents = [one.total * CENTS for one in told if one is not None]
        label = mode if cents else f"{mode}: not measured"
        axes.plot(RATIOS[: len(cents)], cents, color=stroke.colour, linestyle=stroke.line, label=label)
    for one in digest.evens:
        there = msgspec.structs.replace(how, reads_per_write=one.ratio.at) if one.ratio and one.ratio.at is not None else None
        if there and (ours := cost(made["view"], digest.prices, there)):
            stroke = theme.strokes[one.other]
            axes.plot([there.reads_per_write], [ours.total * CENTS], color=stroke.colour, marker=stroke.marker, markersize=8)
    axes.axvline(how.reads_per_write, color=theme.faint, linewidth=1, label="the scenario's")
    axes.set_xlabel("reads per change (marks: break-even with the view)")
    axes.set_ylabel("cents for a million reads")
    logarithmic(axes, "x", "y")


def faults(digest: Digest) -> Iterator[Plot]:
    """One of each fault, all modes on it: p99 above, reads that failed below."""
    for fault in dict.fromkeys(one.fault for one in digest.results.timelines):
        lines = [one for one in digest.results.timelines if one.fault == fault]
        failed = "; ".join(f"{one.mode} {sum(moment.failed for moment in one.moments):,}" for one in lines)
        yield Plot(
            "fault-" + "".join(letter if letter.isalnum() else "-" for letter in fault.lower()),
            f"{fault}, at {lines[0].rate:,.0f} reads/s",
            f"Second by second: p99 in ms, and reads that failed, before, during and after: {fault}. Failed in all: {failed}.",
            partial(_fault, lines),
            rows=2,
        )


def _fault(lines: Sequence[Timeline], panels: Sequence[Axes], theme: Theme) -> None:
    above, below = panels
    for place, one in enumerate(lines):
        stroke = theme.strokes[one.mode]
        label = "" if one.mode in {earlier.mode for earlier in lines[:place]} else one.mode
        seconds = [moment.second for moment in one.moments]
        slowest = [np.nan if moment.p99_ms is None else moment.p99_ms for moment in one.moments]
        above.plot(seconds, slowest, color=stroke.colour, linestyle=stroke.line, marker=stroke.marker, markersize=3.5, label=label)
        failed = [moment.failed for moment in one.moments]
        below.plot(seconds, failed, color=stroke.colour, linestyle=stroke.line, marker=stroke.marker, markersize=3.5)
    for axes in panels:
        axes.axvspan(lines[0].began, lines[0].ended, color=theme.faint, alpha=0.2, linewidth=0)
    above.set_ylabel("p99, ms")
    logarithmic(above, "y")
    below.set_ylabel("failed a second")
    below.set_xlabel("seconds (grey: the fault)")
