"""`walk`: one address through the page tables, or from memory back to every virtual address that reaches it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mh_builder.report.layout import Backing, Layout
from mh_builder.report.trace import MAX_REACHED, Reached, Route, denied, reaching_gpa, reaching_memory, route
from mh_builder.schemes.space import human
from mh_cli import options, source
from mh_cli.errors import BAD, GOOD
from mh_cli.output import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help=source.WHAT)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("address", type=options.size, nargs="?", metavar="ADDRESS", help="virtual address")
    what.add_argument(
        "--gpa", type=options.size, metavar="GPA", help="every virtual address that reaches this (mirror) GPA"
    )
    what.add_argument("--main-gpa", type=options.size, metavar="GPA", help="... that the main VM sees here")
    what.add_argument("--ram-addr", type=options.size, metavar="ADDRESS", help="... with this ram_addr")
    source.add_memory(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Walk and print; bad where nothing is reached."""
    layout = source.read_layout(arguments.image, arguments)
    if arguments.address is not None:
        return _forward(layout, arguments)
    return _back(layout, arguments)


def _forward(layout: Layout, arguments: argparse.Namespace) -> int:
    found = route(layout, arguments.address)
    if arguments.json:
        print_json("walk/1", _route_as_json(found, layout))
    else:
        for step in found.steps:
            target = f"{step.entry:#018x}  {' '.join(step.bits) or 'not present'}"
            print(f"{step.table:4} [{step.number:3}] at GPA {step.gpa:#x}: {target}")
        print(_result(found, layout))
        if found.leaf is not None:
            rights = denied(found.steps, layout.geometry)
            print(", ".join(f"{right}: {_decided(tables)}" for right, tables in rights.items()))
    return BAD if found.leaf is None else GOOD


def _decided(tables: Sequence[str]) -> str:
    return f"denied by {' and '.join(tables)}" if tables else "allowed"


def _result(found: Route, layout: Layout) -> str:
    if found.leaf is None:
        return f"{found.va:#x} is not mapped: {found.why}"
    leaf = found.leaf
    rights = f"r{'w' if leaf.writable else '-'}{'x' if leaf.executable else '-'}"
    view = "" if layout.geometry.c_bit is None else ", private view" if leaf.private else ", shared view"
    user = ", user" if leaf.user else ""
    place = f"{found.va:#x} -> GPA {leaf.gpa:#x}{_behind(found.backing)}"
    return f"{place} {rights}{user}{view}, {human(leaf.page_bytes)} page"


def _behind(backing: Backing | None) -> str:
    if backing is None:
        return ""
    known = [("main GPA", backing.main_gpa), ("ram_addr", backing.ram_addr)]
    words = [f"{name} {start:#x}" for name, start in known if start is not None]
    return f" ({', '.join(words) or 'memory of the mirror alone'})"


def _route_as_json(found: Route, layout: Layout) -> dict[str, Any]:
    leaf, backing = found.leaf, found.backing
    return {
        "name": layout.name,
        "va": hex(found.va),
        "steps": [
            {
                "level": step.level,
                "table": step.table,
                "index": step.number,
                "entry_gpa": hex(step.gpa),
                "entry": hex(step.entry),
                "bits": list(step.bits),
            }
            for step in found.steps
        ],
        "denied": {right: list(tables) for right, tables in denied(found.steps, layout.geometry).items()},
        "mapped": leaf is not None,
        "why_not": found.why or None,
        "gpa": None if leaf is None else hex(leaf.gpa),
        "main_gpa": None if backing is None or backing.main_gpa is None else hex(backing.main_gpa),
        "ram_addr": None if backing is None or backing.ram_addr is None else hex(backing.ram_addr),
        "page_bytes": None if leaf is None else leaf.page_bytes,
        "writable": None if leaf is None else leaf.writable,
        "user": None if leaf is None else leaf.user,
        "executable": None if leaf is None else leaf.executable,
        "view": None if leaf is None or layout.geometry.c_bit is None else "private" if leaf.private else "shared",
    }


def _back(layout: Layout, arguments: argparse.Namespace) -> int:
    if arguments.gpa is not None:
        what, address = "GPA", arguments.gpa
        found = reaching_gpa(layout, address)
    elif arguments.main_gpa is not None:
        what, address = "main GPA", arguments.main_gpa
        found = reaching_memory(layout, what, address)
    else:
        what, address = "ram_addr", arguments.ram_addr
        found = reaching_memory(layout, what, address)
    if arguments.json:
        print_json(
            "reached/1", {"name": layout.name, "kind": what, "address": hex(address)} | _reached_as_json(found, layout)
        )
    elif found:
        for item in found:
            print(f"{item.va:#x} in {layout.describe(item.mapping)}")
        if len(found) == MAX_REACHED:
            print(f"only the first {MAX_REACHED} are listed")
    else:
        print(f"no virtual address reaches {what} {address:#x}")
    return GOOD if found else BAD


def _reached_as_json(found: Sequence[Reached], layout: Layout) -> dict[str, Any]:
    return {
        "complete": len(found) < MAX_REACHED,
        "reached_from": [
            {
                "va": hex(item.va),
                "rights": item.mapping.rights,
                "user": item.mapping.user,
                "view": None if layout.geometry.c_bit is None else item.mapping.view,
                "page_bytes": item.mapping.page_bytes,
            }
            for item in found
        ],
    }
