"""`ovmf measure`: the launch digest that a guest owner expects of a firmware image, launched without a kernel."""

from __future__ import annotations

import argparse
from pathlib import Path

from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.measure import MAX_VCPUS, Mode, Vcpus, launch_digest
from mh_builder.igvm.launch import launch_digest as igvm_digest
from mh_builder.igvm.launch import modes
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import PARTS
from mh_cli import options
from mh_cli.errors import GOOD, UsageError
from mh_cli.output import print_json
from mh_cli.ovmf_files import Firmware, about, read_file, read_image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a flash image of OVMF, or an IGVM file")
    modes = [mode.value for mode in Mode]
    parser.add_argument("--mode", choices=modes, help="kind of guest (default: each that the image can be)")
    add_vcpus(parser)
    add_snp_features(parser)
    options.add_part(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def add_snp_features(parser: argparse.ArgumentParser) -> None:
    """What the VMSAs of an SNP guest have in SEV_FEATURES."""
    parser.add_argument("--snp-features", type=options.size, metavar="MASK", help="SEV_FEATURES under SNP (default 1)")


def add_vcpus(parser: argparse.ArgumentParser) -> None:
    """How many vCPUs there are, and those of the helper."""
    parser.add_argument("--vcpus", type=_count, metavar="N", help="of the main VM (default 1)")
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
    image = read_image(arguments.image)
    vcpus = vcpus_of(arguments, image, arguments.snp_features)
    with about(arguments.image):
        if arguments.mode is None:
            digests = measure_all(image, vcpus)
        else:
            digests = {Mode(arguments.mode): measure(image, Mode(arguments.mode), vcpus)}
    if arguments.json:
        print_json("ovmf-measure/1", {"digests": as_json(digests)})
        return GOOD
    for mode, digest in digests.items():
        print(f"{mode.value:6} {digest.hex()}")
    return GOOD


def vcpus_of(arguments: argparse.Namespace, image: Firmware, snp_features: int | None = None) -> Vcpus:
    """What `add_vcpus` and `--part` read. Raises `UsageError`, `FirmwareError`."""
    given = {"--vcpus": arguments.vcpus, "--cpu-signature": arguments.cpu_signature, "--snp-features": snp_features}
    for name, value in given.items():
        if image.igvm is not None and value is not None:
            raise UsageError(f"{name} {value:#x}: an IGVM file has the registers of its vCPUs itself")
    pages = []
    for path in arguments.vmsa:
        page = read_file(path, PAGE_BYTES)
        if len(page) != PAGE_BYTES:
            raise FirmwareError(f"{path}: {len(page):#x} bytes, a VMSA has {PAGE_BYTES:#x}")
        pages.append(page)
    signature = PARTS[arguments.part].signature if arguments.cpu_signature is None else arguments.cpu_signature
    features = 1 if snp_features is None else snp_features
    return Vcpus(arguments.vcpus or 1, signature & 0xFFFF_FFFF, features, tuple(pages))


def measure(image: Firmware, mode: Mode, vcpus: Vcpus) -> bytes:
    """The digest of an image, by its vCPUs or, of an IGVM file, by its own. Raises `FirmwareError`."""
    if image.igvm is None:
        return launch_digest(image.data, mode, vcpus)
    return igvm_digest(image.igvm, mode, vcpus.helper_vmsas)


def measure_all(image: Firmware, vcpus: Vcpus) -> dict[Mode, bytes]:
    """The digest of each mode in which the image can be launched; at least for plain SEV, unless an IGVM file is not.

    Raises `FirmwareError`.
    """
    if image.igvm is not None:
        return {mode: measure(image, mode, vcpus) for mode in modes(image.igvm)}
    digests = {Mode.SEV: measure(image, Mode.SEV, vcpus)}
    for mode in (Mode.SEV_ES, Mode.SNP):
        try:
            digests[mode] = measure(image, mode, vcpus)
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
