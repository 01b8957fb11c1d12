"""How far each way has parted, kill by kill, as SVG: readable on a light and on a dark page. Knows numbers and names only."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 190, 74, 52
# the height of a name with what is below it
LABEL = 38
# each is seen on white and on black
APART, ALIKE = ("#dc2626", "#d97706"), "#16a34a"
_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-size: 16px; font-weight: bold } .name { font-weight: bold }
.soft { fill: #59636e } .grid { stroke: #d1d9e0 } .paper { fill: #ffffff }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .soft { fill: #9198a1 } .grid { stroke: #3d444d } .paper { fill: #0d1117 } }
"""


@dataclass(frozen=True, slots=True)
class Line:
    """values: how many differ after 0, 1, 2, … kills."""

    name: str
    values: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Scale:
    kills: int
    top: int

    def x(self, kills: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * kills / max(self.kills, 1), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / self.top, 1)


def drawn(title: str, subtitle: str, x_title: str, lines: Sequence[Line]) -> str:
    """A whole SVG document: a curve for each line that leaves 0, one line for all that never do."""
    apart = [line for line in lines if any(line.values)]
    alike = [line for line in lines if not any(line.values)]
    step = _step(max((value for line in lines for value in line.values), default=0))
    highest = max((value for line in lines for value in line.values), default=1)
    scale = _Scale(max(len(line.values) for line in lines) - 1, max(step * math.ceil(highest / step), step))
    colours = APART * len(apart)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<style>{_STYLE}</style><rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT - 32}" y="28">{escape(title)}</text>',
        f'<text class="soft" x="{LEFT - 32}" y="50">{escape(subtitle)}</text>',
        f'<text class="soft" x="{scale.x(scale.kills / 2)}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_title)}</text>',
        *_grid(scale, step),
        *(part for line, colour in zip(apart, colours, strict=False) for part in _curve(line, colour, scale)),
        *_flat(alike, scale),
        *_names(apart, colours, scale, scale.y(0) - LABEL - 17 * len(alike)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _step(highest: int) -> int:
    """1, 2 or 5 times a power of ten, so that four to eight of them reach the highest."""
    rough = max(highest, 1) / 5
    power = 10 ** max(math.floor(math.log10(rough)), 0)
    return int(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough))


def _grid(scale: _Scale, step: int) -> Iterator[str]:
    for value in range(0, scale.top + 1, step):
        y = scale.y(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="soft" x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{value:,}</text>'
    every = math.ceil((scale.kills + 1) / 12)
    for kills in range(0, scale.kills + 1, every):
        yield f'<text class="soft" x="{scale.x(kills)}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{kills}</text>'


def _curve(line: Line, colour: str, scale: _Scale) -> Iterator[str]:
    spots = [(scale.x(kills), scale.y(value)) for kills, value in enumerate(line.values)]
    path = " ".join(f"{x},{y}" for x, y in spots)
    yield f'<polygon points="{spots[0][0]},{scale.y(0)} {path} {spots[-1][0]},{scale.y(0)}" fill="{colour}" fill-opacity="0.12"/>'
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-linejoin="round"/>'
    for (x, y), value in zip(spots, line.values, strict=True):
        yield f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"><title>{escape(line.name)}: {value:,}</title></circle>'


def _names(lines: Sequence[Line], colours: Sequence[str], scale: _Scale, lowest: float) -> Iterator[str]:
    """Where the curves end; from the lowest on, each far enough above the one before."""
    x = scale.x(scale.kills) + 12
    for line, colour in sorted(zip(lines, colours, strict=False), key=lambda pair: pair[0].values[-1]):
        y = min(scale.y(line.values[-1]), lowest)
        lowest = y - LABEL
        yield f'<text class="name" x="{x}" y="{y}" style="fill: {colour}">{escape(line.name)}</text>'
        yield f'<text class="soft" x="{x}" y="{y + 17}">{line.values[-1]:,} users wrong</text>'


def _flat(lines: Sequence[Line], scale: _Scale) -> Iterator[str]:
    """All at 0, so one line with their names above each other."""
    if not lines:
        return
    x, y = scale.x(scale.kills), scale.y(0)
    yield f'<line x1="{scale.x(0)}" x2="{x}" y1="{y}" y2="{y}" stroke="{ALIKE}" stroke-width="4" stroke-linecap="round"/>'
    yield f'<circle cx="{x}" cy="{y}" r="5" fill="{ALIKE}"><title>{escape(", ".join(line.name for line in lines))}: 0</title></circle>'
    for place, line in enumerate(lines):
        name_y = y - 17 * (len(lines) - place) - 1
        yield f'<text class="name" x="{x + 12}" y="{name_y}" style="fill: {ALIKE}">{escape(line.name)}</text>'
    yield f'<text class="soft" x="{x + 12}" y="{y}">0 users wrong</text>'
