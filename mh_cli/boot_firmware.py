"""`boot --fd`: firmware from the reset vector, and its migration by the helper that it has loaded."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mh_abi.image import HelperImage, parse_image
from mh_builder.firmware import guids
from mh_builder.firmware.errors import FirmwareError
from mh_builder.firmware.flash import read_flash
from mh_builder.firmware.inject import check_target, extract, inject
from mh_builder.firmware.table import read_table
from mh_builder.firmware.units import Units, check_variables, split
from mh_builder.helper import build_helper
from mh_builder.parts import PARTS
from mh_builder.schemes.space import Options, Start
from mh_cli import boot_snapshot
from mh_cli.boot_output import print_console, print_moved, show
from mh_cli.errors import BAD, GOOD, UsageError
from mh_cli.output import print_json
from mh_cli.ovmf_files import about, read_file, read_image

if TYPE_CHECKING:
    from mh_emulator.q35.boot import Report

_HELPER_RAM_LIMIT = 1 << 30
"""Of a helper that is built here: the tables for more have to be launched too."""


def run(arguments: argparse.Namespace) -> int:
    """Boot; bad where the firmware does not come to its end, or its migration is not good."""
    from mh_emulator.owner import POLICY, POLICY_ES
    from mh_emulator.q35.boot import Boot, Firmware

    if arguments.migrate and arguments.start == Start.ES.value:
        raise UsageError("--migrate needs --start host: no host gives a vCPU of SEV-ES its registers")
    if arguments.vars and arguments.start == Start.HOST.value:
        raise UsageError("--vars needs --start es: under plain SEV there is no flash device")
    shelf, flash = boot_snapshot.shelf(arguments), _read(arguments)
    variables = b"" if arguments.start == Start.HOST.value else _variables(arguments, flash)
    flash = _with_helper(arguments, flash, arguments.scheme)
    helper = _carried(arguments, flash) if arguments.migrate or _carries(arguments, flash) else None
    if arguments.snapshot is not None and helper is None:
        raise UsageError("--snapshot needs a helper in the firmware: it is made behind its loader's line; or --kernel")
    units = Units(split(flash).code, variables)
    policy = POLICY_ES if arguments.start == Start.ES.value else POLICY
    with boot_snapshot.told_of(arguments):
        boot = Boot(Firmware(PARTS[arguments.part], units, arguments.memory, helper, policy), show, shelf)
        report = boot.migrate() if arguments.migrate else boot.run()
    if arguments.json:
        print_json("boot/1", report.as_json())
    else:
        _print(report)
    return GOOD if report.good else BAD


def carrier(arguments: argparse.Namespace, default_scheme: str) -> tuple[bytes, HelperImage]:
    """The code of a flash image, and the helper in it: of the default scheme where it has none and none is named.

    Raises `UsageError`, `FirmwareError`.
    """
    flash = _read(arguments)
    flash = _with_helper(arguments, flash, arguments.scheme or (None if _carries(arguments, flash) else default_scheme))
    return split(flash).code, _carried(arguments, flash)


def _read(arguments: argparse.Namespace) -> bytes:
    flash = read_image(arguments.fd).flash
    with about(arguments.fd):
        read_flash(flash)
    return flash


def _carries(arguments: argparse.Namespace, flash: bytes) -> bool:
    with about(arguments.fd):
        return read_table(flash).find(guids.FIRMWARE_ENTRY) is not None


def _with_helper(arguments: argparse.Namespace, flash: bytes, scheme: str | None) -> bytes:
    """The image with a helper of that scheme, or as it is without one. Raises `FirmwareError`."""
    if scheme is None:
        return flash
    with about(arguments.fd):
        check_target(flash)
    blob = build_helper(scheme, Options(ram_limit=_HELPER_RAM_LIMIT)).data
    with about(arguments.fd):
        return inject(flash, blob)


def _carried(arguments: argparse.Namespace, flash: bytes) -> HelperImage:
    """The helper in the image, for which there is room. Raises `FirmwareError`."""
    with about(arguments.fd):
        helper = parse_image(extract(flash).blob)
        _check_room(helper, arguments.memory)
    return helper


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
