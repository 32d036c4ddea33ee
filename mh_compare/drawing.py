"""The address spaces of several layouts in one drawing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from mh_builder.report.layout import Layout
from mh_builder.report.svg import WIDE, draw

_CSS = (
    ".ground{fill:#fff}.name{fill:#1b1f24}@media (prefers-color-scheme:dark){.ground{fill:#14171a}.name{fill:#e6e9ed}}"
)

_HEIGHT = re.compile(r'<svg [^>]*height="([\d.]+)"')


def as_svg(layouts: Iterable[Layout]) -> str:
    """All address spaces, one below the other."""
    parts, top = [], 0.0
    for layout in layouts:
        drawing = draw(layout, WIDE)
        height = float(_HEIGHT.match(drawing)[1])  # type: ignore[index]
        heading = (
            f'<text class="name" x="12" y="{top + 22:g}" font-size="16" font-weight="600">{escape(layout.name)}</text>'
        )
        parts += [heading, drawing.replace("<svg ", f'<svg y="{top + 32:g}" ', 1)]
        top += 32 + height
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE.width}" height="{top:g}"'
    box = f'viewBox="0 0 {WIDE.width} {top:g}" font-family="system-ui,sans-serif"'
    ground = f'<style>{_CSS}</style><rect class="ground" width="100%" height="100%"/>'
    return f"{frame} {box}>\n{ground}{''.join(parts)}</svg>\n"
