"""`show`: the regions of an image or a memory dump, as its page tables have them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mh_builder.image.output import write_files
from mh_builder.report.html import PageSection, figure, page, region_table
from mh_builder.report.layout import Layout, Region
from mh_builder.report.listing import listing
from mh_builder.report.svg import draw
from mh_cli import options, sides, source
from mh_cli.errors import GOOD, UsageError
from mh_cli.output import print_json

_FILTERS = ("writable", "executable", "user", "shared", "type", "after")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help=source.WHAT)
    parser.add_argument("other", type=Path, nargs="?", metavar="OTHER", help="another one, to be shown beside it")
    source.add_memory(parser)
    group = parser.add_argument_group("which regions")
    group.add_argument("--writable", action="store_true", help="those alone that are writable")
    group.add_argument("--executable", action="store_true", help="... executable")
    group.add_argument("--user", action="store_true", help="... for user mode")
    group.add_argument("--shared", action="store_true", help="... shared, of memory with a C-bit")
    group.add_argument("--type", metavar="TYPE", help="... of that memory type: WB, UC, PAT1 ...")
    group.add_argument("--after", type=options.size, metavar="ADDRESS", help="... that end above this virtual address")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the four address spaces of an image")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the regions and the picture as one page")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read and print."""
    if arguments.other is not None:
        return _beside(arguments)
    layout = source.read_layout(arguments.image, arguments)
    if arguments.shared and layout.geometry.c_bit is None:
        raise UsageError("--shared: there is no C-bit; say which with --c-bit or --part")
    regions = [region for region in layout.regions if _is_wanted(region, layout, arguments)]
    for line in source.warnings(layout):
        print(f"{arguments.image}: warning: {line}", file=sys.stderr)
    if arguments.svg is not None:
        _write(arguments.svg, draw(layout))
    if arguments.html is not None:
        _write(arguments.html, _html(layout))
    if arguments.json:
        print_json("show/1", _as_json(layout, regions))
        return GOOD
    for line in _head(layout):
        print(line)
    for line in _rows(regions, layout):
        print(line)
    return GOOD


def _beside(arguments: argparse.Namespace) -> int:
    chosen = [f"--{name}" for name in _FILTERS if getattr(arguments, name) not in (None, False)]
    if chosen:
        raise UsageError(f"{chosen[0]} is for one layout, not for two side by side")
    return sides.run(arguments, (arguments.image, arguments.other), region_as_json)


def _is_wanted(region: Region, layout: Layout, arguments: argparse.Namespace) -> bool:
    mapping = region.mapping
    return (
        (mapping.writable or not arguments.writable)
        and (mapping.executable or not arguments.executable)
        and (mapping.user or not arguments.user)
        and (not mapping.private or not arguments.shared)
        and (arguments.type is None or layout.memory_type(mapping).lower() == arguments.type.lower())
        and (arguments.after is None or mapping.end > arguments.after)
    )


def _write(path: Path, text: str) -> None:
    write_files({path.name: text.encode()}, path.parent)


def region_as_json(region: Region, layout: Layout) -> dict[str, Any]:
    """A region for programs: addresses as hex strings, sizes as numbers."""
    mapping, backing = region.mapping, region.backing
    return {
        "va": hex(mapping.va),
        "gpa": hex(mapping.gpa),
        "main_gpa": None if backing is None or backing.main_gpa is None else hex(backing.main_gpa),
        "ram_addr": None if backing is None or backing.ram_addr is None else hex(backing.ram_addr),
        "bytes": mapping.size,
        "page_bytes": mapping.page_bytes,
        "rights": mapping.rights,
        "user": mapping.user,
        "view": None if layout.geometry.c_bit is None else mapping.view,
        "type": layout.memory_type(mapping),
        "global": mapping.is_global,
        "key": mapping.key,
        "accessed": mapping.is_accessed if layout.has_marks else None,
        "dirty": mapping.is_dirty if layout.has_marks else None,
        "available": list(mapping.available) if layout.has_marks else None,
        "repeats_after": mapping.period or None,
        "purpose": region.purpose or None,
    }


def _as_json(layout: Layout, regions: Sequence[Region]) -> dict[str, Any]:
    reading, plan = layout.reading, layout.plan
    return {
        "name": layout.name,
        "scheme": None if plan is None else plan.scheme,
        "cr3": hex(reading.cr3),
        "levels": layout.geometry.levels,
        "physical_bits": layout.geometry.physical_bits,
        "c_bit": layout.geometry.c_bit,
        "tables": len(reading.tables),
        "defects": len(reading.defects),
        "stopped": None if reading.stopped is None else hex(reading.stopped),
        "cpus": [
            {"cr0": hex(cpu.cr0), "cr3": hex(cpu.cr3), "cr4": hex(cpu.cr4), "efer": cpu.efer and hex(cpu.efer)}
            for cpu in layout.cpus
        ],
        "regions": [region_as_json(region, layout) for region in regions],
    }


def _head(layout: Layout) -> list[str]:
    reading, geometry = layout.reading, layout.geometry
    c_bit = "no C-bit" if geometry.c_bit is None else f"C-bit {geometry.c_bit}"
    kind = "memory dump" if layout.plan is None else f"scheme {layout.plan.scheme}"
    tables = f"{len(reading.tables)} tables at CR3 {reading.cr3:#x}, {geometry.levels} levels"
    lines = [f"{layout.name}: {kind}; {tables}; {c_bit}, {geometry.physical_bits} address bits"]
    for number, cpu in enumerate(layout.cpus):
        mine = " (shown)" if cpu is layout.cpu and len(layout.cpus) > 1 else ""
        lines.append(f"CPU {number}{mine}: CR3 {cpu.cr3:#x}, {cpu.summary()}")
    return [*lines, *source.warnings(layout)]


def _rows(regions: Sequence[Region], layout: Layout) -> list[str]:
    columns, rows = listing(regions, layout)
    table = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _html(layout: Layout) -> str:
    sections = [PageSection("Regions", region_table(layout))]
    if layout.plan is not None:
        sections.insert(0, PageSection("Address spaces", figure(layout)))
    return page(f"Address space of {layout.name}", _head(layout)[0], sections)
