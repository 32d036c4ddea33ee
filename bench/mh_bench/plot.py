"""Curves as SVG 1.1, both axes logarithmic: no script, no font, no file beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 90, 14, 44
_CSS = """
.mh-plot{--ink:#1b1f24;--dim:#59636e;--grid:#d5dae0;--a:#2f5f9e;--b:#8a4b00;--c:#2e7d4f;--d:#8e3a80;
font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif}
@media (prefers-color-scheme:dark){.mh-plot{--ink:#e6e9ed;--dim:#9aa4af;--grid:#343a41;--a:#5d93da;--b:#ffb265;
--c:#6cc596;--d:#d98bcb}}
.mh-plot{min-width:560px}.mh-plot text{fill:var(--ink);font-size:12px}.mh-plot .dim{fill:var(--dim)}
.mh-plot line{stroke:var(--grid)}.mh-plot polyline{fill:none;stroke-width:2}
.mh-plot .s0{stroke:var(--a)}.mh-plot .s1{stroke:var(--b)}.mh-plot .s2{stroke:var(--c)}.mh-plot .s3{stroke:var(--d)}
.mh-plot circle{stroke-width:2;fill:none}
"""


class Line(NamedTuple):
    """A curve: (x, y) of what is computed, joined, and of what was measured, marked."""

    name: str
    computed: Sequence[tuple[float, float]]
    measured: Sequence[tuple[float, float]] = ()


class Axis(NamedTuple):
    """What an axis shows, and how a value is written."""

    title: str
    written: Callable[[float], str]
    ticks: Sequence[float]


def plot(lines: Sequence[Line], across: Axis, up: Axis) -> str:
    """One SVG element; at most four lines."""
    return "\n".join(
        [
            f'<svg class="mh-plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
            f"<title>{escape(up.title)} over {escape(across.title)}</title><style>{_CSS}</style>",
            *_grid(across, up),
            *(part for number, line in enumerate(lines) for part in _curve(line, number, across, up)),
            "</svg>",
        ]
    )


def _grid(across: Axis, up: Axis) -> Iterator[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for tick in across.ticks:
        x = _place(tick, across, _LEFT, right)
        yield f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>'
        words = escape(across.written(tick))
        yield f'<text class="dim" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{words}</text>'
    for tick in up.ticks:
        y = _place(tick, up, bottom, _TOP)
        yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield f'<text class="dim" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(up.written(tick))}</text>'
    yield f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(across.title)}</text>'


def _curve(line: Line, number: int, across: Axis, up: Axis) -> Iterator[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return _place(point[0], across, _LEFT, right), _place(point[1], up, bottom, _TOP)

    places = [at(point) for point in line.computed]
    yield f'<polyline class="s{number}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'
    x, y = places[-1]
    yield f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{escape(line.name)}</text>'
    for x, y in map(at, line.measured):
        yield f'<circle class="s{number}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'


def _place(value: float, axis: Axis, low: float, high: float) -> float:
    first, last = math.log(axis.ticks[0]), math.log(axis.ticks[-1])
    return low + (math.log(value) - first) / (last - first) * (high - low)
