"""`ovmf igvm`: what an IGVM file launches, and to which digests."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from mh_builder.firmware.digests import Mode
from mh_builder.firmware.errors import FirmwareError
from mh_builder.igvm.announced import data_hobs
from mh_builder.igvm.file import LARGEST_IGVM, Igvm
from mh_builder.igvm.launch import launch_digest, modes, wrong_id_block
from mh_builder.igvm.layout import SupportedPlatform
from mh_builder.igvm.listing import Line, listing, mask_names
from mh_builder.igvm.read import read_igvm
from mh_cli import options
from mh_cli.errors import GOOD
from mh_cli.output import print_json
from mh_cli.ovmf_files import about, read_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an IGVM file")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the platforms, the directives in their order, and a digest or a reason for each kind of SEV guest."""
    data = read_file(arguments.file, LARGEST_IGVM)
    with about(arguments.file):
        igvm = read_igvm(data)
    digests, reasons = _digests(igvm)
    wrong = wrong_id_block(igvm) if Mode.SNP in digests else None
    if arguments.json:
        platforms = [
            {"platform": platform.name, "mask": mask, "version": body.version, "highest_vtl": body.highest_vtl}
            for (platform, mask), body in zip(igvm.platforms.items(), igvm.bodies(SupportedPlatform), strict=True)
        ]
        print_json("ovmf-igvm/1", {
            "version": igvm.version, "platforms": platforms, "headers": [asdict(line) for line in listing(igvm)],
            "digests": {mode.value: digest for mode, digest in digests.items()},
            "reasons": {mode.value: reason for mode, reason in reasons.items()},
            "data_hobs": [hob._asdict() for hob in data_hobs(igvm)],
            "id_block": None if wrong is None else wrong.as_json(),
        })  # fmt: skip
        return GOOD
    print(f"IGVM version {igvm.version}, {len(data):#x} bytes, {len(igvm.headers)} headers")
    for platform, mask in igvm.platforms.items():
        print(f"platform {platform.name}, mask {mask:#x}")
    for line in listing(igvm):
        print(_text(igvm, line))
    for hob in data_hobs(igvm):
        print(f"data HOB {hob.address:#x} to {hob.address + hob.length - 1:#x}  type {hob.data_type:#x}")
    for mode, shown in (digests | reasons).items():
        print(f"{mode.value:6} {shown}")
    if wrong is not None:
        print(wrong)
    return GOOD


def _digests(igvm: Igvm) -> tuple[dict[Mode, str], dict[Mode, str]]:
    digests, reasons = {}, {}
    for mode in modes(igvm):
        try:
            digests[mode] = launch_digest(igvm, mode).hex()
        except FirmwareError as error:
            reasons[mode] = f"no digest: {error}"
    return digests, reasons


def _text(igvm: Igvm, line: Line) -> str:
    place = "" if line.gpa is None else f"{line.gpa:#x}"
    size = f"{line.size:#x}" if line.size else ""
    return f"{place:>14} {size:>9}  {line.name:14}  {mask_names(igvm, line.mask)}  {line.detail}".rstrip()
