"""`ovmf table`: the GUIDed table of a firmware image, and what is known of its entries."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mh_builder.firmware import guids
from mh_builder.firmware.table import METADATA_KINDS, Area, Entry, read_metadata, read_table
from mh_cli import options
from mh_cli.errors import GOOD
from mh_cli.output import print_json
from mh_cli.ovmf_files import about, read_image

_SHOWN_BYTES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "image", type=Path, metavar="IMAGE", help="a flash image, of OVMF or with such a table, or IGVM"
    )
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the entries from the footer down, as QEMU reads them."""
    image = read_image(arguments.image)
    with about(arguments.image):
        flash = image.flash
        table = read_table(flash)
        areas = read_metadata(flash, table)
    if arguments.json:
        entries = [_entry(flash, entry) for entry in table.entries]
        print_json("ovmf-table/1", {"start": table.start, "end": table.end, "entries": entries, "areas": _areas(areas)})
        return GOOD
    print(f"GUIDed table at {table.start:#x} to {table.end:#x}, {len(table.entries)} entries")
    for entry in table.entries:
        data = entry.data(flash)
        shown = data[:_SHOWN_BYTES].hex() + ("..." if len(data) > _SHOWN_BYTES else "")
        name = guids.TABLE_ENTRIES.get(entry.guid, "unknown")
        print(f"{entry.start:#10x}  {entry.length:#6x}  {entry.guid}  {name}  {shown}")
    for area in areas:
        print(f"{area.gpa:#10x}  {area.size:#6x}  SEV metadata: {METADATA_KINDS[area.kind]}")
    return GOOD


def _entry(flash: bytes, entry: Entry) -> dict[str, Any]:
    return {
        "guid": str(entry.guid),
        "name": guids.TABLE_ENTRIES.get(entry.guid),
        "offset": entry.start,
        "length": entry.length,
        "data": entry.data(flash).hex(),
    }


def _areas(areas: tuple[Area, ...]) -> list[dict[str, Any]]:
    return [{"gpa": area.gpa, "size": area.size, "kind": METADATA_KINDS[area.kind]} for area in areas]
