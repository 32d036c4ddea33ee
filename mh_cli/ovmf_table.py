"""`ovmf table`: the GUIDed table of a firmware image, what its entries mean, and what is wrong with them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mh_builder.firmware.entries import decode, finding, name_of
from mh_builder.firmware.metadata import IGVM_KINDS, METADATA_KINDS, Area, inspect_metadata
from mh_builder.firmware.table import Entry, read_table
from mh_cli import options
from mh_cli.errors import BAD, GOOD
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
    """Print the entries from the footer down, as QEMU reads them, then the findings; bad where there is one."""
    image = read_image(arguments.image)
    with about(arguments.image):
        flash = image.flash
        table = read_table(flash)
    metadata = inspect_metadata(flash, table)
    findings = [*filter(None, (finding(entry, flash) for entry in table.entries)), *metadata.findings]
    if arguments.json:
        print_json("ovmf-table/1", {
            "start": table.start, "end": table.end, "entries": [_entry(flash, entry) for entry in table.entries],
            "areas": _areas(metadata.areas, METADATA_KINDS), "igvm_areas": _areas(metadata.igvm_areas, IGVM_KINDS),
            "findings": findings,
        })  # fmt: skip
        return BAD if findings else GOOD
    print(f"GUIDed table at {table.start:#x} to {table.end:#x}, {len(table.entries)} entries")
    for entry in table.entries:
        print(_line(flash, entry))
    for name, areas, kinds in (
        ("SEV metadata", metadata.areas, METADATA_KINDS),
        ("IGVM metadata", metadata.igvm_areas, IGVM_KINDS),
    ):
        for area in areas:
            print(f"{area.gpa:#10x}  {area.size:#6x}  {name}: {kinds.get(area.kind, f'unknown kind {area.kind:#x}')}")
    for line in findings:
        print(f"{arguments.image}: {line}")
    return BAD if findings else GOOD


def _line(flash: bytes, entry: Entry) -> str:
    data = entry.data(flash)
    shown = data[:_SHOWN_BYTES].hex() + ("..." if len(data) > _SHOWN_BYTES else "")
    fields = ", ".join(f"{name} {value:#x}" for name, value in decode(entry, flash).items())
    return f"{entry.start:#10x}  {entry.length:#6x}  {entry.guid}  {name_of(entry) or 'unknown'}  {fields or shown}"


def _entry(flash: bytes, entry: Entry) -> dict[str, Any]:
    return {
        "guid": str(entry.guid),
        "name": name_of(entry),
        "offset": entry.start,
        "length": entry.length,
        "data": entry.data(flash).hex(),
        "fields": dict(decode(entry, flash)),
    }


def _areas(areas: tuple[Area, ...], kinds: Mapping[int, str]) -> list[dict[str, Any]]:
    return [{"gpa": area.gpa, "size": area.size, "kind": kinds.get(area.kind), "number": area.kind} for area in areas]
