"""What the pictures of a comparison show of latency, throughput, hits and staleness. Efforts, costs and faults are in plots_of_costs.py."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, PercentFormatter

from bench.compare import hits, statistics
from bench.compare.digest import Cell, Digest, Wrong
from bench.compare.models import REFERENCE_RATE
from bench.compare.pictures import Plot, Theme, logarithmic
from bench.compare.statistics import Estimate
from schema.loader import Mode

# of the published service level, in ms, at REFERENCE_RATE
LEVEL_P95, LEVEL_MAX = 5.0, 10.0
# 1 / (1 - p) of what the percentile axis names
NAMED = {2: "p50", 20: "p95", 100: "p99", 1_000: "p99.9", 10_000: "p99.99"}


def latency(digest: Digest) -> Iterator[Plot]:
    """Two of each fixed rate: how many reads took no longer, and the percentiles up to the slowest read."""
    for rate in digest.fixed:
        cells = [cell for mode in digest.results.modes if (cell := digest.cell(mode, rate)) and cell.repeats]
        told = "; ".join(f"{cell.mode} {_ms(cell.at(50.0))} and {_ms(cell.at(99.0))}" for cell in cells)
        yield Plot(
            f"cdf-{rate:g}",
            f"Reads that took no longer, at {rate:,.0f}/s",
            f"Share of reads by latency at {rate:,.0f} reads a second. Half of the reads and 99 of 100 took: {told}.",
            partial(_cumulated, cells),
        )
        yield Plot(
            f"percentiles-{rate:g}",
            f"Percentiles up to the slowest read, at {rate:,.0f}/s",
            f"Latency by percentile on a logarithmic axis at {rate:,.0f} reads a second. Median and p99: {told}.",
            partial(_tails, cells),
        )


def _cumulated(cells: Sequence[Cell], panels: Sequence[Axes], theme: Theme) -> None:
    (axes,) = panels
    for cell in cells:
        if cell.repeats:
            ms, shares = zip(*statistics.cumulated(cell.repeats), strict=True)
            stroke = theme.strokes[cell.mode]
            axes.plot(ms, np.array(shares) * 100, color=stroke.colour, linestyle=stroke.line, label=cell.mode, drawstyle="steps-post")
    axes.axvline(LEVEL_P95, color=theme.faint, linewidth=1)
    axes.axvline(LEVEL_MAX, color=theme.faint, linewidth=1)
    axes.plot(
        [LEVEL_P95],
        [95],
        color=theme.ink,
        marker="*",
        markersize=11,
        linestyle="none",
        label=f"level: p95 < 5 ms, at {REFERENCE_RATE:,.0f}/s",
    )
    axes.plot([LEVEL_MAX], [100], color=theme.ink, marker="X", markersize=8, linestyle="none", label="level: maximum < 10 ms")
    axes.set_xlabel("latency, ms")
    logarithmic(axes, "x")
    axes.set_ylabel("reads that took no longer")
    axes.yaxis.set_major_formatter(PercentFormatter())
    axes.set_ylim(0, 103)


def _tails(cells: Sequence[Cell], panels: Sequence[Axes], theme: Theme) -> None:
    (axes,) = panels
    for cell in cells:
        if cell.repeats:
            ends, ms = zip(*statistics.curve(cell.repeats), strict=True)
            stroke = theme.strokes[cell.mode]
            axes.plot(ends, ms, color=stroke.colour, linestyle=stroke.line, label=cell.mode)
            axes.plot(ends[-1:], ms[-1:], color=stroke.colour, marker=stroke.marker)
    axes.axhline(LEVEL_MAX, color=theme.faint, linewidth=1, label="level: maximum < 10 ms")
    axes.plot(
        [20],
        [LEVEL_P95],
        color=theme.ink,
        marker="*",
        markersize=11,
        linestyle="none",
        label=f"level: p95 < 5 ms, at {REFERENCE_RATE:,.0f}/s",
    )
    axes.set_xscale("log")
    most = max((cell.reads for cell in cells), default=1_000)
    axes.set_xlim(1, most * 1.3)
    named = {place: name for place, name in NAMED.items() if place <= most}
    axes.set_xticks(list(named), list(named.values()))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("percentile p, on an axis of 1 / (1 - p)")
    axes.set_ylabel("latency, ms")
    logarithmic(axes, "y")


def saturation(digest: Digest) -> Plot:
    told = "; ".join(f"{mode} {most.value:,.0f}" for mode, most in digest.capacities.items() if most)
    alt = f"p99 by rate, for each mode, and the most that it answered. Reads a second at most: {told or 'not measured'}."
    return Plot("saturation", "Where each mode saturates", alt, partial(_saturation, digest))


def _saturation(digest: Digest, panels: Sequence[Axes], theme: Theme) -> None:
    (axes,) = panels
    for mode in digest.results.modes:
        told = [(cell.rate, p99) for cell in digest.cells if cell.mode == mode and (p99 := cell.at(99.0))]
        stroke = theme.strokes[mode]
        if told:
            axes.errorbar(
                [rate for rate, _ in told],
                [p99.value for _, p99 in told],
                yerr=_arms([p99 for _, p99 in told]),
                color=stroke.colour,
                linestyle=stroke.line,
                marker=stroke.marker,
                capsize=2.5,
                elinewidth=1,
                label=mode,
            )
        failed = [(cell.rate, p99.value) for cell in digest.cells if cell.mode == mode and cell.failed and (p99 := cell.at(99.0))]
        for rate, ms in failed:
            axes.plot([rate], [ms], color=stroke.colour, marker=stroke.marker, markersize=9, markerfacecolor=theme.paper)
        if most := digest.capacities[mode]:
            axes.axvline(most.value, color=stroke.colour, linestyle=stroke.line, linewidth=1, alpha=0.7)
    axes.set_xlabel("reads due a second (upright: the most answered; ringed: some failed)")
    axes.set_ylabel("p99, ms")
    logarithmic(axes, "x", "y")


def _arms(estimates: Sequence[Estimate]) -> tuple[list[float], list[float]]:
    """How far each interval goes below and above."""
    lows = [0.0 if one.low is None else max(one.value - one.low, 0.0) for one in estimates]
    highs = [0.0 if one.high is None else max(one.high - one.value, 0.0) for one in estimates]
    return lows, highs


def hit_ratios(digest: Digest) -> Iterator[Plot]:
    scenario = digest.results
    if any(hits.by_skew(scenario, mode, cold=cold) for mode in digest.caches for cold in (False, True)):
        alt = f"Share of rows from Redis by skew, at a TTL of {scenario.ttl_seconds:g} s, warm and cold; the view has 100 % at any skew."
        yield Plot(
            "hits-by-skew",
            f"Rows from Redis by skew, TTL {scenario.ttl_seconds:g} s",
            alt,
            partial(_by_skew, digest),
        )
    if any(hits.by_ttl(scenario, mode, cold=cold) for mode in digest.caches for cold in (False, True)):
        alt = f"Share of rows from Redis by TTL, at a skew of {scenario.skew:g}, warm and cold; the view has 100 % and no TTL."
        yield Plot("hits-by-ttl", f"Rows from Redis by TTL, skew {scenario.skew:g}", alt, partial(_by_ttl, digest))


def _by_skew(digest: Digest, panels: Sequence[Axes], theme: Theme) -> None:
    (axes,) = panels
    told = {(mode, cold): hits.plain(hits.by_skew(digest.results, mode, cold=cold)) for mode in digest.caches for cold in (False, True)}
    axes.set_xlabel("skew: Zipf's exponent, 0 is even")
    _hits(axes, theme, digest, told)


def _by_ttl(digest: Digest, panels: Sequence[Axes], theme: Theme) -> None:
    (axes,) = panels
    told = {(mode, cold): hits.plain(hits.by_ttl(digest.results, mode, cold=cold)) for mode in digest.caches for cold in (False, True)}
    axes.set_xlabel("TTL, s")
    _hits(axes, theme, digest, told)
    logarithmic(axes, "x")


def _hits(axes: Axes, theme: Theme, digest: Digest, told: dict[tuple[Mode, bool], hits.Points]) -> None:
    for (mode, cold), points in told.items():
        stroke = theme.strokes[mode]
        face = theme.paper if cold else stroke.colour
        if points:
            places, shares = zip(*points, strict=True)
            label = f"{mode}, {'cold' if cold else 'warm'}"
            (line,) = axes.plot(places, np.array(shares) * 100, stroke.marker, color=stroke.colour, markerfacecolor=face, label=label)
            line.set_linestyle(stroke.line)
            line.set_alpha(0.75 if cold else 1)
    if "view" in digest.results.modes:
        axes.axhline(100, color=theme.strokes["view"].colour, label="view: always")
    axes.set_ylabel("rows from Redis")
    axes.yaxis.set_major_formatter(PercentFormatter())
    axes.set_ylim(0, 104)


def staleness(digest: Digest) -> Iterator[Plot]:
    """One of each rate of changes."""
    for rate in sorted({one.changes_per_second for one in digest.wrongs}):
        wrongs = [one for one in digest.wrongs if one.changes_per_second == rate]
        told = "; ".join(f"{one.mode} {one.wrong:,} of {one.answers:,}" for one in wrongs)
        yield Plot(
            f"staleness-{rate:g}",
            f"Answers that lacked a change, at {rate:,.0f} changes/s",
            f"Share of answers that lacked a change at least so old, by age. Wrong when given: {told}.",
            partial(_staleness, wrongs),
        )


def _staleness(wrongs: Sequence[Wrong], panels: Sequence[Axes], theme: Theme) -> None:
    (axes,) = panels
    for one in wrongs:
        stroke = theme.strokes[one.mode]
        if one.wrong and one.ages_ms:
            left = np.arange(len(one.ages_ms), 0, -1) / len(one.ages_ms) * 100 * one.wrong / one.answers
            axes.plot(one.ages_ms, left, color=stroke.colour, linestyle=stroke.line, drawstyle="steps-pre", label=one.mode)
            axes.plot(one.ages_ms[-1:], left[-1:], color=stroke.colour, marker=stroke.marker)
        else:
            axes.plot([], [], color=stroke.colour, linestyle=stroke.line, label=f"{one.mode}: none wrong of {one.answers:,}")
    axes.set_xlabel("age of the oldest change that the answer lacked, ms")
    axes.set_ylabel("% of answers that lacked one so old or older")
    if any(one.ages_ms for one in wrongs):
        logarithmic(axes, "x", "y")


def _ms(estimate: Estimate | None) -> str:
    return "not measured" if estimate is None else f"{estimate.value:.3g} ms"
