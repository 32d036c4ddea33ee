"""`ovmf measure`: the launch digest that a guest owner expects of a firmware image, launched without a kernel."""

from __future__ import annotations

import argparse
from pathlib import Path

from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.measure import MAX_VCPUS, Mode, Vcpus, launch_digest
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import PARTS
from mh_cli import options
from mh_cli.errors import GOOD
from mh_cli.output import print_json
from mh_cli.ovmf_files import about, read_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a flash image of OVMF")
    modes = [mode.value for mode in Mode]
    parser.add_argument("--mode", choices=modes, help="kind of guest (default: each that the image can be)")
    add_vcpus(parser)
    parser.add_argument("--snp-features", type=options.size, default=1, metavar="MASK", help="SEV_FEATURES under SNP")
    options.add_part(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def add_vcpus(parser: argparse.ArgumentParser) -> None:
    """How many vCPUs there are, and those of the helper."""
    parser.add_argument("--vcpus", type=_count, default=1, metavar="N", help="of the main VM (default 1)")
    parser.add_argument(
        "--cpu-signature", type=options.size, metavar="EAX",
        help="CPUID 0000_0001 EAX as the VMM shows it (default: that of the part; QEMU's models have other steppings)",
    )  # fmt: skip
    parser.add_argument(
        "--vmsa", type=Path, action="append", default=[], metavar="FILE",
        help="of a vCPU of the helper, as `build --start es` writes it; measured after the main VM's, with SEV-ES",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Print one digest for each mode."""
    flash = read_file(arguments.image)
    vcpus = vcpus_of(arguments, arguments.snp_features)
    with about(arguments.image):
        if arguments.mode is None:
            digests = measure_all(flash, vcpus)
        else:
            digests = {Mode(arguments.mode): launch_digest(flash, Mode(arguments.mode), vcpus)}
    if arguments.json:
        print_json("ovmf-measure/1", {"digests": as_json(digests)})
        return GOOD
    for mode, digest in digests.items():
        print(f"{mode.value:6} {digest.hex()}")
    return GOOD


def vcpus_of(arguments: argparse.Namespace, snp_features: int = 1) -> Vcpus:
    """What `add_vcpus` and `--part` read. Raises `UsageError`, `FirmwareError`."""
    pages = []
    for path in arguments.vmsa:
        page = read_file(path, PAGE_BYTES)
        if len(page) != PAGE_BYTES:
            raise FirmwareError(f"{path}: {len(page):#x} bytes, a VMSA has {PAGE_BYTES:#x}")
        pages.append(page)
    signature = PARTS[arguments.part].signature if arguments.cpu_signature is None else arguments.cpu_signature
    return Vcpus(arguments.vcpus, signature & 0xFFFF_FFFF, snp_features, tuple(pages))


def measure_all(flash: bytes, vcpus: Vcpus) -> dict[Mode, bytes]:
    """The digest of each mode in which the image can be launched; at least for plain SEV. Raises `FirmwareError`."""
    digests = {Mode.SEV: launch_digest(flash, Mode.SEV, vcpus)}
    for mode in (Mode.SEV_ES, Mode.SNP):
        try:
            digests[mode] = launch_digest(flash, mode, vcpus)
        except FirmwareError:
            continue
    return digests


def as_json(digests: dict[Mode, bytes]) -> dict[str, str]:
    """Mode -> digest in hexadecimal."""
    return {mode.value: digest.hex() for mode, digest in digests.items()}


def _count(text: str) -> int:
    try:
        count = int(text, 0)
    except ValueError:
        count = 0
    if not 0 < count <= MAX_VCPUS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of vCPUs from 1 to {MAX_VCPUS}")
    return count
