"""`show`: the regions of an image or a memory dump, as its page tables have them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mh_builder.image.output import write_files
from mh_builder.report.html import PageSection, figure, page, table
from mh_builder.report.layout import Layout, Region
from mh_builder.report.svg import draw
from mh_builder.schemes.space import human
from mh_cli import options, source
from mh_cli.errors import GOOD
from mh_cli.output import print_json

_COLUMNS = ("virtual", "bytes", "rights", "view", "page", "mirror GPA", "main GPA", "ram_addr", "purpose")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help=source.WHAT)
    source.add_memory(parser)
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the four address spaces of an image")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the regions and the picture as one page")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read and print."""
    layout = source.read_layout(arguments.image, arguments)
    if arguments.svg is not None:
        _write(arguments.svg, draw(layout))
    if arguments.html is not None:
        _write(arguments.html, _html(layout))
    if arguments.json:
        print_json("show/1", as_json(layout))
        return GOOD
    for line in _head(layout):
        print(line)
    for line in _rows(layout):
        print(line)
    return GOOD


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
        "repeats_after": mapping.period or None,
        "purpose": region.purpose or None,
    }


def as_json(layout: Layout) -> dict[str, Any]:
    """The whole layout for programs."""
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
        "regions": [region_as_json(region, layout) for region in layout.regions],
    }


def _head(layout: Layout) -> list[str]:
    reading, geometry = layout.reading, layout.geometry
    c_bit = "no C-bit" if geometry.c_bit is None else f"C-bit {geometry.c_bit}"
    kind = "memory dump" if layout.plan is None else f"scheme {layout.plan.scheme}"
    tables = f"{len(reading.tables)} tables at CR3 {reading.cr3:#x}, {geometry.levels} levels"
    lines = [f"{layout.name}: {kind}; {tables}; {c_bit}, {geometry.physical_bits} address bits"]
    if reading.defects:
        lines.append(f"{len(reading.defects)} entries are defective: see `audit`")
    if reading.stopped is not None:
        lines.append(f"the tables are too large: not looked at from {reading.stopped:#x} on")
    return lines


def cells(region: Region, layout: Layout) -> tuple[str, ...]:
    """A region as the cells of a row."""
    mapping, backing = region.mapping, region.backing
    again = f" again every {human(mapping.period)}" if mapping.period else ""
    return (
        f"{mapping.va:#x}",
        human(mapping.size),
        mapping.rights + ("u" if mapping.user else ""),
        layout.view(mapping),
        human(mapping.page_bytes),
        f"{mapping.gpa:#x}",
        "-" if backing is None or backing.main_gpa is None else f"{backing.main_gpa:#x}",
        "-" if backing is None or backing.ram_addr is None else f"{backing.ram_addr:#x}",
        region.purpose + again,
    )


def _rows(layout: Layout) -> list[str]:
    rows = [_COLUMNS, *(cells(region, layout) for region in layout.regions)]
    if layout.plan is None:
        rows = [(*row[:5], "GPA" if row is _COLUMNS else row[5], row[8] if row is not _COLUMNS else "") for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _html(layout: Layout) -> str:
    rows = [cells(region, layout) for region in layout.regions]
    sections = [PageSection("Regions", table(_COLUMNS, rows))]
    if layout.plan is not None:
        sections.insert(0, PageSection("Address spaces", figure(layout)))
    return page(f"Address space of {layout.name}", _head(layout)[0], sections)
