"""How firmware is launched: the arguments about its vCPUs, its kernel and its VMM, and the digests that come of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mh_abi.image import HelperImage, ImageError, parse_image
from mh_builder.firmware.alone import HelperLaunch
from mh_builder.firmware.digests import Digests, Launch
from mh_builder.firmware.direct import DirectBoot
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.measure import MAX_VCPUS, VCPU_TYPES, VMMS, FlashLaunch, Vcpus
from mh_builder.igvm.launch import IgvmLaunch
from mh_builder.paging import PAGE_BYTES
from mh_builder.parts import PARTS
from mh_cli import options
from mh_cli.errors import UsageError
from mh_cli.ovmf_files import Firmware, read_file

LARGEST_FILE = 1 << 30
"""Bytes of a kernel or an initrd."""

_FLASH_ALONE = ("vcpus", "cpu_signature", "vcpu_type", "vmm_type", "snp_features", "kernel")
"""What is asked of a flash image; other things that are launched have their registers with them."""


def add_vcpus(parser: argparse.ArgumentParser) -> None:
    """Who launches how many vCPUs, and those of the helper."""
    parser.add_argument("--vcpus", type=_count, metavar="N", help="of the main VM (default 1)")
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--cpu-signature", type=options.size, metavar="EAX",
        help="CPUID 0000_0001 EAX as the VMM shows it (default: that of the part; QEMU's models have other steppings)",
    )  # fmt: skip
    model.add_argument(
        "--vcpu-type", choices=sorted(VCPU_TYPES), metavar="MODEL", help="the same by a CPU model of QEMU: EPYC-v4 ..."
    )
    parser.add_argument("--vmm-type", choices=sorted(VMMS), help="who makes the registers (default QEMU)")
    parser.add_argument(
        "--vmsa", type=Path, action="append", default=[], metavar="FILE",
        help="of a vCPU of the helper, as `build --start es` writes it; measured after the main VM's, with SEV-ES",
    )  # fmt: skip
    parser.set_defaults(snp_features=None, kernel=None, initrd=None, append=None)


def add_snp_features(parser: argparse.ArgumentParser) -> None:
    """What the VMSAs of an SNP guest have in SEV_FEATURES."""
    parser.add_argument("--snp-features", type=options.size, metavar="MASK", help="SEV_FEATURES under SNP (default 1)")


def add_kernel(parser: argparse.ArgumentParser) -> None:
    """A kernel that the VMM boots directly, with hashes that are measured."""
    parser.add_argument("--kernel", type=Path, metavar="FILE", help="that the VMM boots, with kernel-hashes=on")
    parser.add_argument("--initrd", type=Path, metavar="FILE", help="of that kernel")
    parser.add_argument("--append", metavar="TEXT", help="command line of that kernel")


def launch_of(arguments: argparse.Namespace, image: Firmware) -> Launch:
    """The launch of a flash image, an IGVM file, or a helper's flat binary. Raises `UsageError`, `FirmwareError`."""
    vmsas = vmsas_of(arguments)
    for name in ("initrd", "append"):
        if getattr(arguments, name) is not None and arguments.kernel is None:
            raise UsageError(f"--{name} is of a kernel: give --kernel")
    if image.igvm is not None:
        _refuse(arguments, "an IGVM file has what is launched, and its registers, itself")
        return IgvmLaunch(image.igvm, vmsas)
    helper = _helper(image.data)
    if helper is not None:
        _refuse(arguments, "a helper alone has no vCPU of firmware and boots nothing: give its --vmsa")
        return HelperLaunch(helper, PARTS[arguments.part].c_bit, vmsas)
    return FlashLaunch(image.data, vcpus_of(arguments, vmsas), _boot(arguments))


def vcpus_of(arguments: argparse.Namespace, vmsas: tuple[bytes, ...] = ()) -> Vcpus:
    """The vCPUs of a flash image."""
    signature = PARTS[arguments.part].signature if arguments.cpu_signature is None else arguments.cpu_signature
    if arguments.vcpu_type is not None:
        signature = VCPU_TYPES[arguments.vcpu_type]
    features = 1 if arguments.snp_features is None else arguments.snp_features
    return Vcpus(arguments.vcpus or 1, signature & 0xFFFF_FFFF, features, vmsas, VMMS[arguments.vmm_type or "QEMU"])


def vmsas_of(arguments: argparse.Namespace) -> tuple[bytes, ...]:
    """The pages of the helper's vCPUs. Raises `UsageError`, `FirmwareError`."""
    return tuple(_vmsa(path) for path in arguments.vmsa)


def say_why_not(path: Path, result: Digests) -> None:
    """Print to stderr, a line each, why there is no digest of a kind of guest, and what to warn of."""
    for mode, reason in result.reasons.items():
        print(f"{path}: no {mode.value} digest: {reason}", file=sys.stderr)
    for line in result.warnings:
        print(f"{path}: warning: {line}", file=sys.stderr)


def in_hex(result: Digests) -> dict[str, str]:
    """Kind of guest -> digest."""
    return {mode.value: digest.hex() for mode, digest in result.digests.items()}


def as_json(result: Digests) -> dict[str, object]:
    """Digests in hexadecimal, and why others are not there."""
    imd = {} if result.imd is None else {"imd": result.imd.hex()}
    return {
        "digests": in_hex(result),
        "reasons": {mode.value: reason for mode, reason in result.reasons.items()},
        "warnings": list(result.warnings),
        **imd,
    }


def _refuse(arguments: argparse.Namespace, why: str) -> None:
    for name in _FLASH_ALONE:
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: {why}")


def _helper(data: bytes) -> HelperImage | None:
    try:
        return parse_image(data)
    except ImageError:
        return None


def _vmsa(path: Path) -> bytes:
    page = read_file(path, PAGE_BYTES)
    if len(page) != PAGE_BYTES:
        raise FirmwareError(f"{path}: {len(page):#x} bytes, a VMSA has {PAGE_BYTES:#x}")
    return page


def _boot(arguments: argparse.Namespace) -> DirectBoot | None:
    if arguments.kernel is None:
        return None
    initrd = b"" if arguments.initrd is None else read_file(arguments.initrd, LARGEST_FILE)
    return DirectBoot(read_file(arguments.kernel, LARGEST_FILE), initrd, arguments.append or "")


def _count(text: str) -> int:
    try:
        count = int(text, 0)
    except ValueError:
        count = 0
    if not 0 < count <= MAX_VCPUS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of vCPUs from 1 to {MAX_VCPUS}")
    return count
