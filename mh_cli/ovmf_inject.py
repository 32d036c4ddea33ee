"""`ovmf inject`: put the loader and the helper of one scheme into a prebuilt OVMF image."""

from __future__ import annotations

import argparse
from pathlib import Path

from mh_builder.firmware.changes import changes
from mh_builder.firmware.digests import digests_of
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.inject import check_target, firmware_entry, inject
from mh_builder.helper import build_helper
from mh_builder.igvm.announced import announce, announced, check_room, data_hobs
from mh_builder.igvm.file import Igvm
from mh_builder.igvm.launch import wrong_id_block
from mh_builder.schemes import SCHEMES
from mh_cli import options
from mh_cli.errors import GOOD
from mh_cli.output import print_json
from mh_cli.ovmf_files import Firmware, about, check_output, read_image, write_file
from mh_cli.ovmf_launch import add_vcpus, as_json, in_hex, launch_of, say_why_not


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "image", type=Path, metavar="IN", help="a flash image of OVMF or an IGVM file; an earlier helper is replaced"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="the new image, of the same kind"
    )
    parser.add_argument("--scheme", choices=list(SCHEMES), metavar="SCHEME", required=True, help="of the helper")
    parser.add_argument(
        "--by", choices=["volume", "hob"], default="volume",
        help="how the firmware gets it: files of its volume, or data HOBs, of an IGVM file alone (default volume)",
    )  # fmt: skip
    options.add_layout(parser)
    options.add_helper_vcpus(parser, "--helper-vcpus")
    add_vcpus(parser)
    options.add_part(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Inject, write, and report what changed."""
    check_output(arguments.output, arguments.image, *arguments.vmsa)
    image = read_image(arguments.image)
    launch = launch_of(arguments, image)
    with about(arguments.image):
        _CHECKS[arguments.by](image)
    blob = build_helper(arguments.scheme, options.layout(arguments)).data
    with about(arguments.image):
        entry = firmware_entry(blob)
        injected = _BY[arguments.by](image, blob)
        before = digests_of(launch, launch.modes())
        launch = launch_of(arguments, injected)
        after = digests_of(launch, launch.modes())
        wrong = None if injected.igvm is None else wrong_id_block(injected.igvm)
        hobs = [] if injected.igvm is None else data_hobs(injected.igvm)
    write_file(arguments.output, injected.data)
    say_why_not(arguments.output, after)
    changed = changes(image.flash, injected.flash)
    if arguments.json:
        ranges = [{"offset": change.offset, "size": change.size, "what": change.what} for change in changed]
        place = {"base": entry.base, "memory_bytes": entry.memory_bytes, "ring_offset": entry.ring_offset}
        digests = {"before": in_hex(before), "after": in_hex(after)}
        rest = {"changes": ranges, "digests": digests, "id_block": None if wrong is None else wrong.as_json()}
        rest["data_hobs"] = [hob._asdict() for hob in hobs]
        print_json("ovmf-inject/1", {"scheme": arguments.scheme} | place | as_json(after) | rest)
        return GOOD
    print(f"{arguments.output}: {arguments.scheme} at {entry.base:#x} to {entry.base + entry.memory_bytes - 1:#x}")
    for change in changed:
        print(f"changed {change.offset:#10x} to {change.offset + change.size - 1:#10x}  {change.what}")
    for hob in hobs:
        print(f"data HOB {hob.address:#x} to {hob.address + hob.length - 1:#x}  type {hob.data_type:#x}")
    for mode, digest in after.digests.items():
        print(f"{mode.value:6} before {before.digests[mode].hex()}\n{'':6} after  {digest.hex()}")
    if wrong is not None:
        print(wrong)
    return GOOD


def _check_volume(image: Firmware) -> None:
    check_target(image.flash)
    if image.igvm is not None and announced(image.igvm) is not None:
        raise FirmwareError("IGVM: a data HOB announces an image of the migration helper already")


def _check_hob(image: Firmware) -> None:
    check_room(_carrier(image))


def _into_volume(image: Firmware, blob: bytes) -> Firmware:
    return image.changed(inject(image.flash, blob))


def _by_hob(image: Firmware, blob: bytes) -> Firmware:
    igvm = announce(_carrier(image), blob)
    return Firmware(igvm.data, igvm)


def _carrier(image: Firmware) -> Igvm:
    if image.igvm is None:
        raise FirmwareError("no IGVM file, and nothing else brings data HOBs: make one with `ovmf wrap`")
    return image.igvm


_CHECKS = {"volume": _check_volume, "hob": _check_hob}
_BY = {"volume": _into_volume, "hob": _by_hob}
