"""A picture as PNG, once for a light and once for a dark page: paper, colours, line styles. What is drawn is plots.py's."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

from schema.loader import Mode

INCHES = (5.8, 4.0)
DOTS_PER_INCH = 170
COLOURS = 96
# letters of a legend that has room for four beside each other
SHORT = 48


@dataclass(frozen=True, slots=True)
class Stroke:
    """How one mode is drawn: told apart by line and marker too."""

    colour: str
    line: Literal["-", "--", "-.", ":"]
    marker: str
    hatch: str


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of one page. strokes: by mode; servers: of stacked bars, by server."""

    paper: str
    ink: str
    faint: str
    grid: str
    strokes: Mapping[Mode, Stroke]
    servers: Mapping[str, str]


def _theme(paper: str, ink: str, faint: str, grid: str, blue: str) -> Theme:
    """The colours of modes and servers are Okabe's and Ito's, which the colour-blind tell apart; blue: theirs that is seen on the paper."""
    strokes: dict[Mode, Stroke] = {
        "view": Stroke(blue, "-", "o", ""),
        "cache-aside": Stroke("#D55E00", "--", "s", "//"),
        "cache-invalidate": Stroke("#009E73", "-.", "^", "\\\\"),
        "sql": Stroke(ink, ":", "D", ".."),
    }
    servers = {"gateway": blue, "projector": "#009E73", "redis": "#E69F00", "postgres": "#CC79A7"}
    return Theme(paper, ink, faint, grid, strokes, servers)


THEMES = {
    "light": _theme("#ffffff", "#1b2027", "#59636e", "#d5dae0", "#0072B2"),
    "dark": _theme("#14171c", "#e8ebef", "#a0a9b5", "#363d48", "#56B4E9"),
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture to be drawn. name: of its file, and in addresses. alt: what it shows, in words. draw: on `rows` panels above each other."""

    name: str
    title: str
    alt: str
    draw: Callable[[Sequence[Axes], Theme], None]
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Picture:
    """PNG, of a plot."""

    name: str
    title: str
    alt: str
    light: bytes
    dark: bytes


def drawn(plot: Plot) -> Picture:
    """The same bytes for the same numbers."""
    return Picture(plot.name, plot.title, plot.alt, _png(plot, THEMES["light"]), _png(plot, THEMES["dark"]))


def logarithmic(axes: Axes, *axes_of: Literal["x", "y"]) -> None:
    """Numbers as they are spoken, at 1, 2 and 5 too where the axis is short. To be called when all is drawn; an empty axis is left."""
    for which in axes_of:
        axis = axes.xaxis if which == "x" else axes.yaxis
        if not np.isfinite(axis.get_minpos()):
            continue
        axes.set(**{f"{which}scale": "log"})
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 500 * low else (1.0,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _png(plot: Plot, theme: Theme) -> bytes:
    with mpl.rc_context(_settings(theme)):
        figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        axes = list(figure.subplots(plot.rows, 1, sharex=True, squeeze=False)[:, 0])
        axes[0].set_title(plot.title, loc="left", pad=10)
        plot.draw(axes, theme)
        if not any(panel.has_data() for panel in axes):
            axes[0].text(0.5, 0.5, "not measured", transform=axes[0].transAxes, ha="center", va="center")
        handles, labels = axes[0].get_legend_handles_labels()
        if labels:
            figure.legend(handles, labels, loc="outside lower left", ncols=4 if sum(map(len, labels)) < SHORT else 3)
        return _few_colours(figure)


def _few_colours(figure: Figure) -> bytes:
    """A third of the bytes, and nothing is seen of it."""
    whole, few = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="rgba")
    size = (round(INCHES[0] * DOTS_PER_INCH), round(INCHES[1] * DOTS_PER_INCH))
    Image.frombytes("RGBA", size, whole.getvalue()).convert("RGB").quantize(COLOURS).save(few, "png", optimize=True)
    return few.getvalue()


def _settings(theme: Theme) -> dict[Any, Any]:
    """By the names of matplotlib, which types them one by one."""
    return {
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.faint,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.7,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "hatch.linewidth": 0.6,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 10,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "lines.linewidth": 2.0,
        "lines.markersize": 5,
    }
