"""`boot --kernel`: Linux with a helper beside it, alone or by firmware, and its migration while it works."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mh_builder.header import PROTECTION
from mh_builder.helper import build_helper
from mh_builder.image.vmsa import hosted
from mh_builder.paging import GIB, PAGE_BYTES
from mh_builder.parts import PARTS
from mh_builder.schemes import name_of
from mh_builder.schemes.space import Options, Start
from mh_cli import boot_snapshot
from mh_cli.boot_firmware import carrier
from mh_cli.boot_output import print_console, print_moved, show
from mh_cli.errors import BAD, GOOD, UsageError
from mh_cli.output import print_json
from mh_cli.ovmf_files import about, read_file

if TYPE_CHECKING:
    from mh_emulator.linux.boot import LinuxGuest, Report
    from mh_emulator.linux.kernel import Kernel
    from mh_emulator.linux.launch import Way
    from mh_emulator.linux.stop import Stop, Stopped
    from mh_emulator.secret import Secret
    from mh_emulator.snapshot.shelf import Shelf

_OPTIONS = ("initrd", "append", "at")
_STEP = re.compile(r"([0-9]{1,2})(?:\+([0-9]{1,9}))?")
"""Of our first process, and instructions behind it."""
_DEFAULT_SCHEME = "regions"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What only a kernel takes."""
    group = parser.add_argument_group("with --kernel")
    group.add_argument("--initrd", type=Path, metavar="FILE", help="initial RAM disk (default: one process of ours)")
    group.add_argument("--append", metavar="TEXT", help="command line, in place of ours, which the guide lists")
    group.add_argument(
        "--at", metavar="STEP",
        help="stop it for --migrate behind that step of our first process, or N instructions later: `STEP+N`, or"
        " behind the middle one asleep: `idle`,"
        " in a system call: `syscall`, or in its timer's interrupt: `interrupt` (default: the middle one)",
    )  # fmt: skip

    group.add_argument(
        "--post-copy", action="store_true", help="with --migrate: it goes on at the target at once, its pages follow"
    )


def refuse_options(arguments: argparse.Namespace) -> None:
    """Raise `UsageError` where a firmware is given what a kernel takes."""
    for name in _OPTIONS:
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name} needs --kernel")
    if arguments.post_copy:
        raise UsageError("--post-copy needs --kernel")


def run(arguments: argparse.Namespace) -> int:
    """Boot; bad where the guest does not come to its end, prints the wrong, or is not migrated well."""
    from mh_emulator.linux.boot import Boot

    _check(arguments)
    stop, shelf = _stop(arguments), boot_snapshot.shelf(arguments)
    with boot_snapshot.told_of(arguments):
        boot = Boot(_guest(arguments, shelf), show, shelf)
        if arguments.post_copy:
            report = boot.post_copy(stop)
        else:
            report = boot.migrate(stop) if arguments.migrate else boot.run()
    if arguments.json:
        print_json("boot-kernel/1", report.as_json())
    else:
        _print(report)
    return GOOD if report.good else BAD


def _check(arguments: argparse.Namespace) -> None:
    from mh_emulator.linux.stop import Where

    if arguments.vars is not None:
        raise UsageError("--vars needs --fd")
    if arguments.start == Start.ES.value and arguments.fd is not None:
        raise UsageError("--start es: a kernel is booted through firmware in plain SEV only")
    if arguments.start == Start.ES.value and arguments.at == Where.SYSCALL.value:
        raise UsageError("--start es: KVM sets no breakpoint in such a guest: no --at syscall")
    if arguments.start == Start.ES.value and arguments.post_copy:
        raise UsageError("--start es: the registers of such a guest come with its last page: no --post-copy")
    if arguments.at is not None and not arguments.migrate:
        raise UsageError("--at needs --migrate")
    if arguments.post_copy and not arguments.migrate:
        raise UsageError("--post-copy needs --migrate")


def _stop(arguments: argparse.Namespace) -> Stop:
    """Where the guest is to be stopped. Raises `UsageError`."""
    from mh_emulator.linux import work
    from mh_emulator.linux.stop import Stop, Where

    lines, half = work.lines(), work.STEPS // 2
    if arguments.initrd is not None and arguments.at not in (None, Where.IDLE.value):
        raise UsageError(f"--at {arguments.at} needs our first process: with --initrd there is only --at idle")
    if arguments.initrd is not None:
        return Stop()
    places = {where.value: where for where in Where if where is not Where.SENT}
    if arguments.at in places:
        return Stop(lines[half], places[arguments.at])
    asked = str(half) if arguments.at is None else arguments.at
    found = _STEP.fullmatch(asked)
    if found is None or int(found[1]) >= work.STEPS:
        raise UsageError(f"--at {asked!r}: neither a step, 0 to {work.STEPS - 1}, nor {', '.join(places)}")
    return Stop(lines[int(found[1])], instructions=int(found[2] or 0))


def _guest(arguments: argparse.Namespace, shelf: Shelf | None) -> LinuxGuest:
    """What is to be booted. Raises `UsageError`, `FirmwareError`, `KernelError`; the helper is built last."""
    from mh_emulator.linux import initramfs, work
    from mh_emulator.linux.boot import LinuxGuest
    from mh_emulator.linux.kernel import LARGEST_KERNEL, KernelError, read_kernel
    from mh_emulator.linux.load import DEFAULT_COMMAND_LINE

    data = read_file(arguments.kernel, LARGEST_KERNEL)
    with about(arguments.kernel, KernelError):
        kernel = read_kernel(data)
    own = arguments.initrd is None
    initrd = initramfs.archive({"init": work.program()}) if own else read_file(arguments.initrd, arguments.memory)
    line = DEFAULT_COMMAND_LINE if arguments.append is None else arguments.append
    way = _direct if arguments.fd is None else _by_firmware
    secret = boot_snapshot.secret(shelf, PROTECTION[Start(arguments.start)])
    scheme, chosen = way(arguments, kernel, initrd, line, secret)
    expected = work.lines() if own else ()
    return LinuxGuest(PARTS[arguments.part], scheme, kernel.release, arguments.memory, chosen, expected)


def _direct(arguments: argparse.Namespace, kernel: Kernel, initrd: bytes, line: str, secret: Secret) -> tuple[str, Way]:
    from mh_emulator.linux.kernel import KernelError
    from mh_emulator.linux.launch import Direct
    from mh_emulator.linux.load import Plan, check, helper_home
    from mh_emulator.q35.launch import topology

    home, ram = helper_home(kernel), topology(arguments.memory)
    with about(arguments.kernel, KernelError):
        check(Plan(kernel, initrd, line, ram, range(home, home)))
    scheme = arguments.scheme or _DEFAULT_SCHEME
    # Behind all RAM is the page of registers of an SEV-ES guest.
    limit = -(-(arguments.memory + PAGE_BYTES) // GIB) * GIB
    options = Options(home=home, ram_limit=limit, start=Start(arguments.start))
    helper = hosted(build_helper(scheme, options), PARTS[arguments.part].c_bit)
    size = 0 if helper.home is None else helper.memory_bytes
    plan = Plan(kernel, initrd, line, ram, range(home, home + size))
    with about(arguments.kernel, KernelError):
        check(plan)
    return scheme, Direct(plan, helper, secret)


def _by_firmware(
    arguments: argparse.Namespace, kernel: Kernel, initrd: bytes, line: str, secret: Secret
) -> tuple[str, Way]:
    from mh_emulator.linux.firmware import ByFirmware
    from mh_emulator.linux.kernel import KernelError
    from mh_emulator.linux.load import check_line
    from mh_emulator.q35.launch import Carrier

    with about(arguments.kernel, KernelError):
        check_line(kernel, line)
    flash, helper = carrier(arguments, _DEFAULT_SCHEME)
    scheme = name_of(helper.descriptor.scheme, helper.descriptor.window)
    return scheme, ByFirmware(Carrier(flash, helper, secret), arguments.memory, kernel, initrd, line)


def _print(report: Report) -> None:
    print(f"kernel: {report.kernel}")
    print(f"helper: {'equal to what was launched, byte for byte' if report.helper_equal else 'DIFFERENT'}")
    if report.stopped is not None:
        _print_stopped(report.stopped)
    if report.moved is not None:
        print_moved(report.moved)
    print_console("console", report.console)
    if report.guest_ok is not None:
        print(f"first process: {'every line as computed' if report.guest_ok else 'WRONG'}")
    print(f"idle after {report.cpu_seconds:.1f} s CPU")


def _print_stopped(stopped: Stopped) -> None:
    state = f"at {stopped.rip:#x}, CPL {stopped.privilege}, interrupts {'on' if stopped.interrupts else 'off'}"
    print(f"stopped: {state}{'' if stopped.process_rip is None else f'; its process at {stopped.process_rip:#x}'}")
