"""`ovmf diff`: what an injection did to a firmware image, or a distributor changed."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from mh_builder.firmware.diff import Change, Kind, diff, other_bytes
from mh_builder.firmware.digests import digests_of
from mh_builder.firmware.facts import Fact, Part, Value, facts_of
from mh_builder.igvm.facts import facts_of_igvm
from mh_cli import options
from mh_cli.errors import BAD, GOOD
from mh_cli.output import print_json
from mh_cli.ovmf_files import Firmware, about, read_image
from mh_cli.ovmf_launch import add_vcpus, launch_of

_MOST_LINES = 1000
"""Two releases of a distributor differ in some 200."""
_LONGEST_VALUE = 24
_HASHES = {"sha256", "header", "contents"}
_SIGNS = {Kind.ADDED: "+", Kind.REMOVED: "-", Kind.MOVED: ">", Kind.CHANGED: "~"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("before", type=Path, metavar="A", help="a flash image of OVMF, or an IGVM file")
    parser.add_argument("after", type=Path, metavar="B", help="the one to compare it with")
    add_vcpus(parser)
    options.add_part(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare; bad where anything differs."""
    before, after = read_image(arguments.before), read_image(arguments.after)
    both_igvm = before.igvm is not None and after.igvm is not None
    facts = []
    for path, image in ((arguments.before, before), (arguments.after, after)):
        launch = launch_of(arguments, image)
        with about(path):
            facts.append((*_kind(image), *facts_of(image.flash, digests_of(launch, launch.modes()))))
            if image.igvm is not None and both_igvm:
                facts[-1] += facts_of_igvm(image.igvm)
    changes = diff(*facts)
    if all(change.fact.part is Part.DIGEST for change in changes):
        changes = [*other_bytes(before.data, after.data), *changes]
    names = f"{arguments.before} and {arguments.after}"
    if arguments.json:
        shown = [_as_json(change) for change in changes]
        print_json("ovmf-diff/1", {"before": str(arguments.before), "after": str(arguments.after), "changes": shown})
        return BAD if changes else GOOD
    lines = list(_text(changes))
    for line in lines[:_MOST_LINES]:
        print(line)
    if len(lines) > _MOST_LINES:
        print(f"... and {len(lines) - _MOST_LINES} more lines; --json has all")
    print(f"{names}: {_summary(changes)}")
    return BAD if changes else GOOD


def _kind(image: Firmware) -> Iterator[Fact]:
    kind = "flash image" if image.igvm is None else f"IGVM file, version {image.igvm.version}"
    yield Fact(Part.IMAGE, "image", "image", {"kind": kind, "flash_bytes": len(image.flash)})


def _summary(changes: Sequence[Change]) -> str:
    if not changes:
        return "no difference"
    return f"{len(changes)} difference{'s' * (len(changes) > 1)}: {_counts(changes)}"


def _counts(changes: Sequence[Change]) -> str:
    counts = Counter(kind for change in changes for kind in change.kinds)
    return ", ".join(f"{counts[kind]} {kind.value}" for kind in Kind if counts[kind])


def _text(changes: Sequence[Change]) -> Iterator[str]:
    """For each place how many there are, then the changes."""
    for where, group in groupby(changes, key=lambda change: change.fact.where):
        here = list(group)
        yield f"{where}: {_counts(here)}"
        for change in here:
            yield from _lines(change)


def _lines(change: Change) -> Iterator[str]:
    fact = change.fact
    sign = "".join(_SIGNS[kind] for kind in change.kinds)
    name = fact.fields.get("name")
    words = [fact.title if name is None else f"{name} {fact.title}"]
    if change.before is not None and change.before.where != fact.where:
        words.append(f"from {change.before.where}")
    digests = change.fields.get("digest")
    if digests is not None:
        yield f"  {sign} {' '.join(words)}"
        yield from (f"    {which} {value}" for which, value in zip("-+", digests, strict=True) if value is not None)
        return
    words += _fields(change)
    yield f"  {sign} {words[0]}" + "".join(f"{',' * bool(number)} {word}" for number, word in enumerate(words[1:]))


def _fields(change: Change) -> Iterator[str]:
    """The fields that differ, of what only one image has, all of them; hashes where nothing else differs."""
    fields = change.fields
    others = fields.keys() - _HASHES
    for name, (old, new) in fields.items():
        if name in _HASHES and (others or None in (old, new)):
            continue
        if change.before is None or change.after is None:
            if name != "name":
                yield f"{name} {_shown(new if change.before is None else old)}"
        else:
            yield f"{name} {_shown(old)} -> {_shown(new)}"


def _shown(value: Value | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, int):
        return f"{value:#x}"
    return value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 3]}..."


def _as_json(change: Change) -> dict[str, Any]:
    return {
        "kinds": [kind.value for kind in change.kinds],
        "part": change.fact.part.value,
        "where": change.fact.where,
        "title": change.fact.title,
        "from": None if change.before is None else change.before.where,
        "before": None if change.before is None else dict(change.before.fields),
        "after": None if change.after is None else dict(change.after.fields),
    }
