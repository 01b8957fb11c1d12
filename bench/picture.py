"""Lines on two logarithmic axes, and bars, drawn as SVG, readable on a light and on a dark page. Knows nothing of what they mean."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 90, 40, 50
BAR = 24
# each is seen on white and on black
COLOURS = ("#c2410c", "#2563eb", "#15803d", "#9333ea")
_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.grid { stroke: #d1d9e0 } .paper { fill: #ffffff }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .grid { stroke: #3d444d } .paper { fill: #0d1117 } }
"""


@dataclass(frozen=True, slots=True)
class Line:
    """points: x and y, both above 0, by growing x. told: whether each is written beside its point."""

    name: str
    points: Sequence[tuple[float, float]]
    told: bool = True


@dataclass(frozen=True, slots=True)
class _Axis:
    """Powers of ten from `low` to `high`, on `length` pixels from `start`; a negative length runs upwards."""

    low: int
    high: int
    start: float
    length: float

    def at(self, value: float) -> float:
        return round(self.start + self.length * (math.log10(value) - self.low) / (self.high - self.low), 1)

    @property
    def marks(self) -> range:
        return range(self.low, self.high + 1)


def log_log(title: str, x_title: str, unit: str, lines: Sequence[Line]) -> str:
    """A whole SVG document. x_title: what is counted on the axis below; unit: of the values on the left."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    across, up = _axis(xs, LEFT, WIDTH - LEFT - RIGHT), _axis(ys, HEIGHT - BOTTOM, TOP + BOTTOM - HEIGHT)
    parts = [
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_title)}</text>',
        *_grid(across, up, unit),
        *(part for line, colour in zip(lines, COLOURS, strict=False) for part in _drawn(line, colour, across, up, unit)),
    ]
    return _document(title, HEIGHT, LEFT, parts)


def bars(title: str, unit: str, values: Mapping[str, float], ours: str) -> str:
    """A whole SVG document: one bar below the other, from 0. ours: the name of the one in another colour."""
    start, room = 190, WIDTH - 190 - RIGHT
    parts = []
    for place, (name, value) in enumerate(values.items()):
        y, length = TOP + place * BAR, round(room * value / max(values.values()), 1)
        parts += [
            f'<text x="{start - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{start}" y="{y + 2}" width="{length}" height="{BAR - 6}" fill="{COLOURS[0 if name == ours else 1]}"/>',
            f'<text x="{start + length + 6}" y="{y + 16}">{value:,.0f} {escape(unit)}</text>',
        ]
    return _document(title, TOP + len(values) * BAR + 10, 12, parts)


def _document(title: str, height: int, left: int, parts: Sequence[str]) -> str:
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f'<style>{_STYLE}</style><rect class="paper" width="{WIDTH}" height="{height}"/>',
        f'<text x="{left}" y="22" font-weight="bold">{escape(title)}</text>',
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def _axis(values: Sequence[float], start: float, length: float) -> _Axis:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return _Axis(low, max(high, low + 1), start, length)


def _grid(across: _Axis, up: _Axis, unit: str) -> Iterator[str]:
    for mark in across.marks:
        x = across.at(10.0**mark)
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        yield f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{10**mark:,}</text>'
    for mark in up.marks:
        y = up.at(10.0**mark)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{_short(10.0**mark)} {escape(unit)}</text>'


def _drawn(line: Line, colour: str, across: _Axis, up: _Axis, unit: str) -> Iterator[str]:
    spots = [(across.at(x), up.at(y)) for x, y in line.points]
    path = " ".join(f"{x},{y}" for x, y in spots)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
    for (x, y), (_, value) in zip(spots, line.points, strict=True):
        told = f"{_short(value)} {escape(unit)}"
        yield f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"><title>{escape(line.name)}: {told}</title></circle>'
        if line.told:
            yield f'<text x="{x}" y="{y - 9}" text-anchor="middle">{told}</text>'
    yield f'<text x="{spots[-1][0] + 12}" y="{spots[-1][1] + 4}" style="fill: {colour}" font-weight="bold">{escape(line.name)}</text>'


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
