"""`ovmf extract`: the image of the migration helper that a firmware image carries."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from mh_abi.image import parse_image
from mh_builder.schemes import name_of
from mh_cli import options
from mh_cli.errors import GOOD
from mh_cli.output import print_json
from mh_cli.ovmf_files import about, check_output, read_image, write_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a flash image or IGVM file with the helper in it")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the flat binary")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the flat binary, and say where firmware puts it."""
    check_output(arguments.output, arguments.image)
    image = read_image(arguments.image)
    with about(arguments.image):
        found = image.carried()
    write_file(arguments.output, found.blob)
    digest = hashlib.sha256(found.blob).hexdigest()
    descriptor = parse_image(found.blob).descriptor
    scheme = name_of(descriptor.scheme, descriptor.window)
    if arguments.json:
        place = {"base": found.entry.base, "memory_bytes": found.entry.memory_bytes, "scheme": scheme}
        print_json("ovmf-extract/1", {"image_bytes": len(found.blob), "sha256": digest} | place)
        return GOOD
    print(f"{arguments.output}: {scheme}, {len(found.blob):#x} bytes, SHA-256 {digest}")
    print(f"reserved {found.entry.base:#x} to {found.entry.base + found.entry.memory_bytes - 1:#x}")
    return GOOD
