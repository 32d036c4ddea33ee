"""`ovmf measure`: the launch digests that a guest owner expects of firmware, of an IGVM file, or of a helper alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from mh_builder.firmware.digests import Digests, Incoming, Mode, digests_of
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.snp import Imi, WholeLaunch
from mh_builder.paging import PAGE_BYTES
from mh_cli import options
from mh_cli.errors import BAD, GOOD, UsageError
from mh_cli.output import print_json
from mh_cli.ovmf_files import about, read_image
from mh_cli.ovmf_launch import add_kernel, add_snp_features, add_vcpus, as_json, launch_of, say_why_not


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "image", type=Path, metavar="IMAGE", help="a flash image of OVMF, an IGVM file, or a helper's flat binary"
    )
    names = [mode.value for mode in Mode]
    parser.add_argument("--mode", choices=names, help="kind of guest (default: all; a line says why one has no digest)")
    add_vcpus(parser)
    add_snp_features(parser)
    add_kernel(parser)
    parser.add_argument(
        "--imi", type=_incoming, metavar="PARTS",
        help="under SNP also the digest over the incoming-migration image: GPA+BYTES, vmsa, with commas; or all",
    )  # fmt: skip
    options.add_part(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one digest for each kind of guest, or why there is none; bad where one that was asked for is missing."""
    if arguments.imi is not None and arguments.mode not in (None, Mode.SNP.value):
        raise UsageError(f"--imi is for SNP, --mode is {arguments.mode}")
    image = read_image(arguments.image)
    launch = launch_of(arguments, image)
    with about(arguments.image):
        modes = launch.modes() if arguments.mode is None else (Mode(arguments.mode),)
        result = digests_of(launch, modes, arguments.imi)
        _check(arguments, result)
    say_why_not(arguments.image, result)
    if arguments.json:
        print_json("ovmf-measure/2", as_json(result))
    else:
        for mode, digest in result.digests.items():
            print(f"{mode.value:6} {digest.hex()}")
        if result.imd is not None:
            print(f"imd    {result.imd.hex()}")
    return GOOD if result.digests else BAD


def _check(arguments: argparse.Namespace, result: Digests) -> None:
    """Raise `FirmwareError` where what was asked for by name is missing."""
    wanted = Mode.SNP if arguments.imi is not None else Mode(arguments.mode) if arguments.mode is not None else None
    if wanted is not None and wanted in result.reasons:
        raise FirmwareError(result.reasons[wanted])


def _incoming(text: str) -> Incoming:
    if text == "all":
        return WholeLaunch()
    parts = text.split(",")
    return Imi(tuple(_range(part) for part in parts if part != "vmsa"), vmsas="vmsa" in parts)


def _range(text: str) -> range:
    start, _, size = text.partition("+")
    try:
        found = range(options.size(start), options.size(start) + options.size(size))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither GPA+BYTES nor vmsa (example: 0x800000+0x9000)") from None
    if not found or (found.start | found.stop) % PAGE_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is not made of pages of {PAGE_BYTES:#x}")
    return found
