"""`build`: images of one scheme or all."""

from __future__ import annotations

import argparse
from pathlib import Path

from mh_builder.helper import build_helper
from mh_builder.image.manifest import manifest
from mh_builder.image.model import Image
from mh_builder.image.output import image_files, write_files
from mh_cli import options
from mh_cli.errors import GOOD, UsageError
from mh_cli.output import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    options.add_started_scheme(parser)
    parser.add_argument("-o", "--output", type=Path, default=options.OUT, metavar="DIR", help="folder (default out)")
    options.add_layout(parser)
    options.add_helper_vcpus(parser)
    options.add_part(parser)
    parser.add_argument(
        "--owner-key", type=options.owner_key, default=b"", metavar="HEX",
        help="the owner's X25519 key, public half: only its owner can give an SNP helper its record",
    )  # fmt: skip
    parser.add_argument("--igvm", action="store_true", help="also an IGVM file: pages, VMSAs, policy; needs --c-bit")
    parser.add_argument(
        "--policy",
        type=options.policy,
        metavar="MASK",
        help="of the launch, in the IGVM file (default 0xb; 0xf with SEV-ES)",
    )
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Build, write all files or none, and say what was written."""
    if arguments.igvm and arguments.c_bit is None:
        raise UsageError("--igvm needs --c-bit: there are page tables among the pages")
    if arguments.policy is not None and not arguments.igvm:
        raise UsageError("--policy is for an IGVM file: give --igvm")
    chosen = options.layout(arguments, arguments.owner_key)
    images = [build_helper(scheme, chosen) for scheme in options.started_schemes(arguments)]
    files: dict[str, bytes] = {}
    for image in images:
        files |= image_files(image)
        if arguments.igvm:
            files[f"{image.space.name}.igvm"] = _igvm(image, arguments.policy)
    paths = write_files(files, arguments.output)
    if arguments.json:
        print_json("build/1", {"images": [manifest(image) for image in images]})
        return GOOD
    for path in paths:
        print(path)
    return GOOD


def _igvm(image: Image, policy: int | None) -> bytes:
    from mh_builder.igvm.helper import helper_igvm

    return helper_igvm(image, policy)
