"""`diff`: what appeared, vanished, moved, or allows something else between two images or dumps."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mh_builder.report.diff import Change, diff
from mh_builder.report.layout import Layout, Region
from mh_builder.schemes.space import human
from mh_cli import options, source
from mh_cli.errors import BAD, GOOD
from mh_cli.output import print_json
from mh_cli.show import region_as_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("before", type=Path, metavar="A", help=source.WHAT)
    parser.add_argument("after", type=Path, metavar="B", help="the one to compare it with")
    source.add_memory(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare; bad where anything differs."""
    before, after = (source.read_layout(path, arguments) for path in (arguments.before, arguments.after))
    changes = diff(before, after)
    if arguments.json:
        shown = [_as_json(change, before, after) for change in changes]
        print_json("diff/1", {"before": before.name, "after": after.name, "changes": shown})
    else:
        for change in changes:
            for line in _lines(change, before, after):
                print(line)
        print(_summary(changes, before, after))
    return BAD if changes else GOOD


def _summary(changes: Sequence[Change], before: Layout, after: Layout) -> str:
    names = f"{before.name} and {after.name}"
    if not changes:
        return f"{names}: no difference"
    counts = Counter(kind.value for change in changes for kind in change.kinds)
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{names}: {len(changes)} difference{'s' * (len(changes) > 1)}: {said}"


def _lines(change: Change, before: Layout, after: Layout) -> Iterator[str]:
    region = change.before or change.after
    size = "" if region is None else human(region.mapping.size)
    yield " ".join(filter(None, (" and ".join(kind.value for kind in change.kinds) + ":", change.purpose, size)))
    for sign, side, layout in (("-", change.before, before), ("+", change.after, after)):
        if side is not None:
            yield f"  {sign} {_words(side, layout)}"


def _words(region: Region, layout: Layout) -> str:
    mapping = region.mapping
    view = "" if layout.geometry.c_bit is None else f" {mapping.view}"
    memory = "" if region.backing is None else ", which is {} {:#x}".format(*region.backing.memory)
    user = "u" if mapping.user else ""
    place = f"{mapping.va:#x} to {mapping.end:#x} -> GPA {mapping.gpa:#x}{memory}"
    odd = "".join(f" {word}" for word in layout.attributes(mapping))
    return f"{place} {mapping.rights}{user}{view}{odd} {human(mapping.page_bytes)} pages"


def _as_json(change: Change, before: Layout, after: Layout) -> dict[str, Any]:
    return {
        "kinds": [kind.value for kind in change.kinds],
        "purpose": change.purpose or None,
        "before": None if change.before is None else region_as_json(change.before, before),
        "after": None if change.after is None else region_as_json(change.after, after),
    }
