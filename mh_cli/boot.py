"""`boot`: run firmware from the reset vector, or a Linux kernel, on the emulated machine; migrate it while it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mh_abi.image import HelperImage, parse_image
from mh_builder.firmware import guids
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.flash import read_flash
from mh_builder.firmware.inject import check_target, extract, inject
from mh_builder.firmware.table import read_table
from mh_builder.firmware.units import Units, check_variables, split
from mh_builder.helper import build_helper
from mh_builder.paging import MIB, PAGE_BYTES
from mh_builder.parts import PARTS
from mh_builder.schemes import SCHEMES
from mh_builder.schemes.space import MIRROR_STARTS, Options, Start
from mh_cli import boot_kernel, options
from mh_cli.boot_output import print_console, print_moved, show
from mh_cli.errors import BAD, GOOD, UsageError
from mh_cli.output import print_json
from mh_cli.ovmf_files import about, read_file, read_image

if TYPE_CHECKING:
    from mh_emulator.q35.boot import Report

_LEAST, _MOST = 128 * MIB, 2 << 30
_HELPER_RAM_LIMIT = 1 << 30
"""Of a helper that is built here: the tables for more have to be launched too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    guest = parser.add_mutually_exclusive_group(required=True)
    guest.add_argument("--fd", type=Path, metavar="IMAGE", help="flash image of OVMF")
    guest.add_argument("--kernel", type=Path, metavar="VMLINUZ", help="Linux kernel for x86-64, without firmware")
    parser.add_argument(
        "--vars", type=Path, metavar="FILE",
        help="its variables, for --start es (default: what the image begins with, or lies beside it as OVMF_VARS*.fd)",
    )  # fmt: skip
    parser.add_argument("--migrate", action="store_true", help="migrate it, by the helper beside it")
    parser.add_argument(
        "--scheme",
        choices=list(SCHEMES),
        metavar="SCHEME",
        help="--fd: inject a helper of that scheme first; --kernel: load that one beside it (default regions)",
    )
    parser.add_argument(
        "--memory", type=options.size, default=256 * MIB, metavar="BYTES", help="RAM of the guest (default 256M)"
    )
    parser.add_argument(
        "--start", choices=[start.value for start in MIRROR_STARTS], default=Start.HOST.value,
        help="plain SEV, without variables, or SEV-ES (default host)",
    )  # fmt: skip
    boot_kernel.add_options(parser)
    options.add_part(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Boot; bad where the guest does not come to its end, or its migration is not good."""
    if not _LEAST <= arguments.memory <= _MOST or arguments.memory % PAGE_BYTES:
        raise UsageError(f"--memory {arguments.memory:#x}: not in {_LEAST:#x} to {_MOST:#x}, or not made of pages")
    if arguments.kernel is not None:
        return boot_kernel.run(arguments)
    boot_kernel.refuse_options(arguments)
    return _run_firmware(arguments)


def _run_firmware(arguments: argparse.Namespace) -> int:
    from mh_emulator.owner import POLICY, POLICY_ES
    from mh_emulator.q35.boot import Boot, Firmware

    if arguments.migrate and arguments.start == Start.ES.value:
        raise UsageError("--migrate needs --start host: no host gives a vCPU of SEV-ES its registers")
    if arguments.vars and arguments.start == Start.HOST.value:
        raise UsageError("--vars needs --start es: under plain SEV there is no flash device")
    units, helper = _image(arguments)
    policy = POLICY_ES if arguments.start == Start.ES.value else POLICY
    boot = Boot(Firmware(PARTS[arguments.part], units, arguments.memory, helper, policy), show)
    report = boot.migrate() if arguments.migrate else boot.run()
    if arguments.json:
        print_json("boot/1", report.as_json())
    else:
        _print(report)
    return GOOD if report.good else BAD


def _image(arguments: argparse.Namespace) -> tuple[Units, HelperImage | None]:
    """The flash, and the helper in it, if there is one. Raises `UsageError`, `FirmwareError`."""
    flash = read_image(arguments.fd).flash
    with about(arguments.fd):
        read_flash(flash)
    variables = b"" if arguments.start == Start.HOST.value else _variables(arguments, flash)
    with about(arguments.fd):
        if arguments.scheme:
            check_target(flash)
    if arguments.scheme:
        blob = build_helper(arguments.scheme, Options(ram_limit=_HELPER_RAM_LIMIT)).data
        with about(arguments.fd):
            flash = inject(flash, blob)
    with about(arguments.fd):
        if not arguments.migrate and read_table(flash).find(guids.FIRMWARE_ENTRY) is None:
            return Units(split(flash).code, variables), None
        helper = parse_image(extract(flash).blob)
        _check_room(helper, arguments.memory)
    return Units(split(flash).code, variables), helper


def _variables(arguments: argparse.Namespace, flash: bytes) -> bytes:
    """The variable store, without which SEV-ES firmware does not come far. Raises `UsageError`, `FirmwareError`."""
    path, own = arguments.vars, split(flash).variables
    if path is None and own:
        return own
    if path is None:
        path = arguments.fd.with_name(arguments.fd.name.replace("CODE", "VARS"))
        if path == arguments.fd or not path.exists():
            raise FirmwareError(f"{arguments.fd}: it has no variable store, which SEV-ES firmware needs: give --vars")
    data = read_file(path)
    with about(path):
        check_variables(data)
    return data


def _check_room(helper: HelperImage, ram_bytes: int) -> None:
    end = helper.descriptor.home + helper.memory_bytes
    if end > ram_bytes:
        raise FirmwareError(f"its helper ends at {end:#x}, RAM at {ram_bytes:#x}")
    if helper.descriptor.ram_limit < ram_bytes:
        raise FirmwareError(f"its helper reaches RAM below {helper.descriptor.ram_limit:#x}, there is {ram_bytes:#x}")


def _print(report: Report) -> None:
    if report.helper_equal is not None:
        whole = "equal to what its loader has to leave, byte for byte" if report.helper_equal else "DIFFERENT"
        print(f"helper: {whole}")
    if report.moved is not None:
        print_moved(report.moved)
    for name, text in (("debug port", report.debug), ("serial port", report.serial)):
        print_console(name, text)
    print(f"idle after {report.cpu_seconds:.1f} s CPU")
