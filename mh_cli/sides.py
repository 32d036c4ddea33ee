"""Two layouts side by side, as text, JSON, page and drawing: what `compare A B` and `show A B` print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mh_builder.image.output import write_files
from mh_builder.report.diff import Change, pairs
from mh_builder.report.html import PageSection, page, pictures, table
from mh_builder.report.layout import Layout, Region
from mh_builder.report.pair import TooManyError, different, joined_picture, same
from mh_builder.report.svg import NARROW, WIDE, draw_picture
from mh_cli import source
from mh_cli.errors import GOOD
from mh_cli.output import print_json

Describe = Callable[[Region, Layout], dict[str, Any]]
"""A region for programs."""


def run(arguments: argparse.Namespace, paths: Sequence[Path], describe: Describe) -> int:
    """Read both, print and write what is asked for; whether they differ is the matter of `diff`."""
    before, after = (source.read_layout(path, arguments) for path in paths)
    for path, layout in zip(paths, (before, after), strict=True):
        for line in source.warnings(layout):
            print(f"{path}: warning: {line}", file=sys.stderr)
    if arguments.svg is not None:
        _write(arguments.svg, draw_picture(joined_picture(before, after)))
    if arguments.html is not None:
        _write(arguments.html, _page(before, after))
    if arguments.json:
        shown = [_as_json(pair, before, after, describe) for pair in pairs(before, after)]
        print_json("sides/1", {"before": before.name, "after": after.name, "regions": shown})
        return GOOD
    print(_summary(before, after))
    for titles, rows in (different(before, after), same(before, after)):
        if rows:
            print()
            for line in _lines(titles, rows):
                print(line)
    return GOOD


def _write(path: Path, text: str) -> None:
    write_files({path.name: text.encode()}, path.parent)


def _summary(before: Layout, after: Layout) -> str:
    found = pairs(before, after)
    count = sum(bool(pair.kinds) for pair in found)
    return f"{before.name} and {after.name}: {count} of {len(found)} regions differ"


def _lines(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    lines = [titles, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _as_json(pair: Change, before: Layout, after: Layout, describe: Describe) -> dict[str, Any]:
    return {
        "purpose": pair.purpose or None,
        "different": [kind.value for kind in pair.kinds],
        "before": None if pair.before is None else describe(pair.before, before),
        "after": None if pair.after is None else describe(pair.after, after),
    }


def _page(before: Layout, after: Layout) -> str:
    sections = [PageSection("Side by side", _figure(before, after))]
    for title, (titles, rows) in (
        ("What differs", different(before, after)),
        ("The same in both", same(before, after)),
    ):
        if rows:
            sections.append(PageSection(title, table(titles, rows)))
    return page(f"Address spaces of {before.name} and {after.name}", _summary(before, after), sections)


def _figure(before: Layout, after: Layout) -> str:
    try:
        shown = joined_picture(before, after)
    except TooManyError as error:
        return f"<p>No picture: {error}.</p>"
    return pictures([draw_picture(shown, style) for style in (WIDE, NARROW)])
