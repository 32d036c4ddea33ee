"""`ovmf boot`: boot a firmware image under QEMU and look at what its loader leaves in memory."""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mh_abi import abi
from mh_abi.image import parse_image
from mh_builder.firmware.flash import LARGEST_FLASH, read_flash
from mh_builder.firmware.line import check_line
from mh_builder.firmware.volume import find_volumes
from mh_builder.igvm.firmware import memory_of
from mh_cli import options
from mh_cli.errors import BAD, GOOD, UsageError
from mh_cli.output import print_json
from mh_cli.ovmf_files import about, read_file, read_image
from mh_emulator.uefi.loaded import loaded
from mh_qemu.machine import QemuMachine

LARGEST_KERNEL = 256 << 20
_E820 = re.compile(r"BIOS-e820: \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\] (.+?)\s*$", re.MULTILINE)
_MIB = 1 << 20
_LONGEST_TIMEOUT = 24 * 3600


@dataclass(frozen=True, slots=True)
class Report:
    """What was seen; `e820` are the entries that touch the helper's pages, None without a kernel."""

    line: str
    seconds: float
    base: int
    memory_bytes: int
    first_difference: int | None
    e820: list[tuple[int, int, str]] | None

    @property
    def exact(self) -> bool:
        """Whether the kernel sees the helper's pages reserved, and no others with them."""
        return self.e820 is None or self.e820 == [(self.base, self.base + self.memory_bytes, "reserved")]

    @property
    def good(self) -> bool:
        """Whether all is as it has to be."""
        return self.first_difference is None and self.exact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a flash image or IGVM file with the helper in it")
    parser.add_argument("--vars", type=Path, metavar="FILE", help="variable store; a copy is used")
    parser.add_argument("--kernel", type=Path, metavar="VMLINUZ", help="a Linux kernel, whose memory map is checked")
    parser.add_argument("--ram", type=options.size, default=512 * _MIB, metavar="BYTES", help="default 512M")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="for each step (default 300)")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Boot, compare, print; bad where anything is not as it has to be."""
    image = read_image(arguments.image)
    with about(arguments.image):
        blob = image.carried().blob
        flash = image.flash
        memory = [] if image.igvm is None else memory_of(image.igvm)
        wiring = _wiring(flash, arguments.vars is not None)
    variables = None if arguments.vars is None else read_file(arguments.vars, LARGEST_FLASH)
    kernel = None if arguments.kernel is None else read_file(arguments.kernel, LARGEST_KERNEL)
    if not _MIB <= arguments.ram <= 1 << 40:
        raise UsageError(f"RAM of {arguments.ram:#x} bytes is not in {_MIB:#x} to {1 << 40:#x}")
    if not 0 < arguments.timeout <= _LONGEST_TIMEOUT:
        raise UsageError(f"timeout of {arguments.timeout:g} s is not in 0 to {_LONGEST_TIMEOUT}")
    with tempfile.TemporaryDirectory(prefix="mh-boot-") as folder:
        # Copies: QEMU writes to flash, and a name may hold what its options do not.
        for name, data in (("firmware", flash), ("variables", variables), ("kernel", kernel)):
            if data is not None:
                (Path(folder) / name).write_bytes(data)
        command = [part.format(folder=folder) for part in wiring]
        for gpa, data in memory:
            (Path(folder) / f"{gpa:x}").write_bytes(data)
            command += ["-device", f"loader,file={folder}/{gpa:x},addr={gpa:#x},force-raw=on"]
        if kernel is not None:
            command += ["-kernel", f"{folder}/kernel", "-append", "console=ttyS0 panic=-1"]
        report = _boot(command, blob, arguments, with_kernel=kernel is not None)
    _print(report, as_json=arguments.json)
    return GOOD if report.good else BAD


def _wiring(flash: bytes, has_variables: bool) -> list[str]:  # noqa: FBT001
    """QEMU's options for this flash image: where its variables are, and whether SMM alone may write them."""
    has_own_store = any(volume.first_file is None for volume in find_volumes(flash))
    needs_smm = read_flash(flash).needs_smm
    if has_own_store and has_variables:
        raise UsageError("--vars: the image has its own variable store")
    if needs_smm and not (has_own_store or has_variables):
        raise UsageError("this image keeps its variables in SMM and does not start without a store: give --vars")
    access = "" if has_own_store else ",readonly=on"
    options_ = ["-drive", f"if=pflash,format=raw,unit=0{access},file={{folder}}/firmware"]
    if has_variables:
        options_ += ["-drive", "if=pflash,format=raw,unit=1,file={folder}/variables"]
    if needs_smm:
        options_ += ["-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
        # With S3, X64 builds with SMM that are older than edk2-stable202305 stop in PEI: OvmfPkg/PlatformPei.
        options_ += ["-global", "ICH9-LPC.disable_s3=1"]
    return options_


def _boot(command: list[str], blob: bytes, arguments: argparse.Namespace, *, with_kernel: bool) -> Report:
    helper = parse_image(blob)
    base, size = helper.descriptor.home, helper.memory_bytes
    began = time.monotonic()
    with QemuMachine(command, ram_mib=-(-arguments.ram // _MIB)) as machine:
        line = machine.wait_for_debug(abi.MH_DEBUG_MARKER, arguments.timeout)
        seconds = time.monotonic() - began
        check_line(line, base, size)
        machine.stop()
        found = machine.read_memory(base, size)
        e820 = None
        if with_kernel:
            machine.qmp.execute("cont")
            machine.wait_for_end(arguments.timeout)
            e820 = _overlapping(machine.serial, base, base + size)
    return Report(line, seconds, base, size, _first_difference(found, loaded(helper, None)), e820)


def _overlapping(serial: str, start: int, end: int) -> list[tuple[int, int, str]]:
    entries = [(int(low, 16), int(high, 16) + 1, kind) for low, high, kind in _E820.findall(serial)]
    return [entry for entry in entries if entry[0] < end and start < entry[1]]


def _first_difference(found: bytes, expected: bytes) -> int | None:
    if found == expected:
        return None
    pairs = zip(found, expected, strict=False)
    return next((offset for offset, (one, other) in enumerate(pairs) if one != other), min(len(found), len(expected)))


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        shown = asdict(report) | {"e820_exact": None if report.e820 is None else report.exact, "good": report.good}
        print_json("ovmf-boot/1", shown)
        return
    end = report.base + report.memory_bytes - 1
    print(f"debug port after {report.seconds:.1f} s: {report.line}")
    differs = "" if report.first_difference is None else f" differ at {report.base + report.first_difference:#x}"
    print(f"memory {report.base:#x} to {end:#x}: {differs or 'equal to the image, byte for byte'}")
    for low, high, kind in report.e820 or ():
        print(f"e820 {low:#x} to {high - 1:#x}: {kind}")
    if not report.exact:
        print(f"e820 does not show exactly {report.base:#x} to {end:#x} as reserved")
