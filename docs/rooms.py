"""Draws `rooms.svg`: the packages of this project and which imports which, as the code has it now.

`python docs/rooms.py` writes the picture beside this file. An arrow leads from a package to one that it imports;
arrows that follow from others are left out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = Path(__file__).with_name("rooms.svg")

FOLDERS = {"mh_bench": ROOT / "bench" / "mh_bench"}
"""Packages that lie elsewhere than in the folder of their name."""

_WIDTH, _BOX, _GAP, _HEIGHT, _ROW = 1000, 220, 20, 82, 130
_STYLE = """\
text{font:12px sans-serif;fill:#222}.name{font-weight:bold;font-size:15px}
rect{fill:#f4f6fa;stroke:#5b6b8c}path{fill:none;stroke:#5b6b8c;stroke-width:1.3}polygon{fill:#5b6b8c}
@media(prefers-color-scheme:dark){text{fill:#ddd}rect{fill:#1d2430;stroke:#8fa3c8}path{stroke:#8fa3c8}polygon{fill:#8fa3c8}}"""

Graph = Mapping[str, frozenset[str]]
"""Package -> the packages that it imports."""


def packages() -> dict[str, Path]:
    """Every package of the product: name -> folder."""
    found = {
        path.parent.name: path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "emulator_tests"
    }
    return dict(sorted((found | FOLDERS).items()))


def modules(folder: Path) -> dict[str, Path]:
    """Modules and subpackages directly in a package: name -> file or folder."""
    inner = {path.stem: path for path in folder.glob("*.py") if path.stem != "__init__"}
    return dict(sorted((inner | {path.parent.name: path.parent for path in folder.glob("*/__init__.py")}).items()))


def imports(place: Path) -> Iterator[str]:
    """Full names of the modules that the code in a file or folder imports."""
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)


def graph(places: Mapping[str, Path], prefix: str = "") -> Graph:
    """Which of these places imports which; `prefix` is the package that they lie in, with a dot."""
    inside = len(prefix.split("."))
    edges = {}
    for name, place in places.items():
        names = {found.split(".")[inside - 1] for found in imports(place) if found.startswith(prefix)}
        edges[name] = frozenset((names & set(places)) - {name})
    return edges


def without_shortcuts(edges: Graph) -> Graph:
    """The arrows from which all others follow. Raises `graphlib.CycleError`."""
    reached: dict[str, frozenset[str]] = {}
    for name in TopologicalSorter(edges).static_order():
        reached[name] = edges[name].union(*(reached[other] for other in edges[name]))
    return {
        name: frozenset(other for other in others if not any(other in reached[via] for via in others))
        for name, others in edges.items()
    }


def floors(edges: Graph) -> list[list[str]]:
    """The packages by floor, the highest first: each stands above all that it imports."""
    floor: dict[str, int] = {}
    for name in TopologicalSorter(edges).static_order():
        floor[name] = max((floor[other] + 1 for other in edges[name]), default=0)
    # What is reached from far above stands at the right, where its arrow passes by the floors between.
    far = {other for name, others in edges.items() for other in others if floor[name] - floor[other] > 1}
    return [
        sorted((name for name in edges if floor[name] == level), key=lambda name: (name in far, name))
        for level in range(max(floor.values()), -1, -1)
    ]


def _doc(folder: Path) -> str:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0]


def _wrapped(text: str, width: int = 26) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines if len(lines) < 4 else [*lines[:2], f"{lines[2]} …"]


def draw(places: Mapping[str, Path]) -> str:
    """The picture as SVG."""
    edges = without_shortcuts(graph(places))
    rows = floors(edges)
    at: dict[str, tuple[float, float]] = {}
    for level, row in enumerate(rows):
        left = (_WIDTH - len(row) * _BOX - (len(row) - 1) * _GAP) / 2
        at |= {name: (left + number * (_BOX + _GAP), 10 + level * _ROW) for number, name in enumerate(row)}
    height = 20 + (len(rows) - 1) * _ROW + _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}">',
        f"<title>Packages, and which imports which</title><style>{_STYLE}</style>",
    ]
    parts += [_arrow(at[name], at[other]) for name, others in edges.items() for other in sorted(others)]
    parts += [_box(name, places[name], *at[name]) for name in places]
    return "\n".join([*parts, "</svg>", ""])


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    to_x, to_y = end[0] + _BOX / 2, end[1]
    if to_y - start[1] > _ROW:
        x, y = start[0] + _BOX, start[1] + _HEIGHT / 2
        curve = f"M{x:g} {y:g}C{to_x:g} {y:g} {to_x:g} {y + _ROW:g} {to_x:g} {to_y - 6:g}"
    else:
        x, y = start[0] + _BOX / 2, start[1] + _HEIGHT
        bend = (to_y - y) / 2
        curve = f"M{x:g} {y:g}C{x:g} {y + bend:g} {to_x:g} {to_y - bend:g} {to_x:g} {to_y - 6:g}"
    head = f"{to_x:g},{to_y:g} {to_x - 4:g},{to_y - 8:g} {to_x + 4:g},{to_y - 8:g}"
    return f'<path d="{curve}"/><polygon points="{head}"/>'


def _box(name: str, folder: Path, x: float, y: float) -> str:
    lines = "".join(
        f'<text x="{x + 10:g}" y="{y + 38 + 16 * number:g}">{escape(line)}</text>'
        for number, line in enumerate(_wrapped(_doc(folder)))
    )
    title = f'<text class="name" x="{x + 10:g}" y="{y + 20:g}">{name}</text>'
    return f'<rect x="{x:g}" y="{y:g}" width="{_BOX}" height="{_HEIGHT}" rx="5"/>{title}{lines}'


if __name__ == "__main__":
    PICTURE.write_text(draw(packages()), encoding="utf-8")
