"""Where a kernel, its parameters, its initrd and a helper lie in a guest's RAM, and how its vCPU begins.

All of it is launched, and so measured. Source: Linux, Documentation/arch/x86/boot.rst (64-bit boot protocol) and
zero-page.rst; the memory map is that of ACPI, section 15.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mh_builder.flat_segments import CODE, DATA
from mh_builder.paging import MIB, PAGE_BYTES, Span, Tables
from mh_emulator.cpu.registers import Registers, Table
from mh_emulator.host.topology import FOUR_GIB, Topology
from mh_emulator.linux import acpi
from mh_emulator.linux.kernel import ENTRY_64, SETUP_HEADER, Kernel, KernelError

DEFAULT_COMMAND_LINE = "console=ttyS0 nokaslr mitigations=off panic=-1 reboot=t"
"""Serial console, no random addresses, none of what defends a guest against its own programs, an end after a panic."""

_GDT, _BOOT_PARAMETERS, _COMMAND_LINE, _TABLES, _STACK, _ACPI = 0x8000, 0x1_0000, 0x2_0000, 0x3_0000, 0x7_0000, 0x9_F000
_LOW_END = 0xA_0000
_BOOT_CS, _BOOT_DS = 0x10, 0x18
_DESCRIPTORS = struct.pack("<4Q", 0, 0, CODE, DATA)
_LARGE_PAGE = 2 * MIB

_RSDP, _E820_COUNT, _LOADER, _INITRD, _COMMAND_LINE_POINTER, _E820 = 0x070, 0x1E8, 0x210, 0x218, 0x228, 0x2D0
_E820_ENTRY = struct.Struct("<QQI")
_RAM, _RESERVED, _ACPI_DATA = 1, 2, 3
_UNDEFINED_LOADER = 0xFF
_CIPHER_BLOCK = 16


@dataclass(frozen=True)
class Loaded:
    """A guest that has not begun."""

    contents: tuple[tuple[int, bytes], ...]
    """(GPA, bytes) of everything that is launched."""
    registers: Registers


@dataclass(frozen=True)
class Plan:
    """What is to be loaded; the memory map keeps `reserved` from the kernel."""

    kernel: Kernel
    initrd: bytes
    command_line: str
    topology: Topology
    reserved: range


def helper_home(kernel: Kernel) -> int:
    """The first GPA for a helper that the kernel does not need before it knows its memory map."""
    return -(-kernel.end // _LARGE_PAGE) * _LARGE_PAGE


def check_line(kernel: Kernel, text: str) -> None:
    """Raise `KernelError` for a command line that the kernel cannot take."""
    line = text.encode("utf-8", "surrogateescape")
    if b"\0" in line or len(line) > kernel.command_line_limit:
        raise KernelError(f"command line of {len(line)} bytes: no zeros, at most {kernel.command_line_limit}")


def check(plan: Plan) -> None:
    """Raise `KernelError` for what does not fit, before anything is made."""
    kernel = plan.kernel
    check_line(kernel, plan.command_line)
    low = max(kernel.end, plan.reserved.stop)
    if low > plan.topology.below:
        raise KernelError(f"kernel and helper reach {low:#x}, RAM below 4 GiB {plan.topology.below:#x}")
    if kernel.address < MIB or kernel.address % PAGE_BYTES:
        raise KernelError(f"the kernel wants to be at {kernel.address:#x}: below {MIB:#x}, or not at a page")
    if _initrd_start(plan) < low:
        room = max(_initrd_end(plan) - low, 0)
        raise KernelError(f"initrd of {len(plan.initrd):#x} bytes: above {low:#x} there is room for {room:#x}")


def load(plan: Plan, c_bit: int) -> Loaded:
    """Lay it out for a part with that C-bit. Raises `KernelError`."""
    check(plan)
    kernel, c_mask = plan.kernel, 1 << c_bit
    tables = Tables(0, largest_page=_LARGE_PAGE)
    tables.map(Span(0, 0, FOUR_GIB, writable=True, executable=True, private=True))
    pieces = [
        (_GDT, _DESCRIPTORS),
        (_BOOT_PARAMETERS, _boot_parameters(plan)),
        (_COMMAND_LINE, plan.command_line.encode("utf-8", "surrogateescape") + b"\0"),
        (_TABLES, tables.dumps(_TABLES, c_mask)),
        (_ACPI, acpi.tables(_ACPI)),
        (kernel.address, kernel.code),
        (_initrd_start(plan), plan.initrd),
    ]
    registers = Registers.long_mode(kernel.address + ENTRY_64, _STACK, _TABLES | c_mask).with_changes(
        cs=_BOOT_CS, ss=_BOOT_DS, ds=_BOOT_DS, es=_BOOT_DS,
        rsi=_BOOT_PARAMETERS, gdtr=Table(_GDT, len(_DESCRIPTORS) - 1),
    )  # fmt: skip
    return Loaded(tuple((gpa, data + bytes(-len(data) % _CIPHER_BLOCK)) for gpa, data in pieces if data), registers)


def _initrd_end(plan: Plan) -> int:
    return min(plan.topology.below, plan.kernel.initrd_end)


def _initrd_start(plan: Plan) -> int:
    return (_initrd_end(plan) - len(plan.initrd)) // PAGE_BYTES * PAGE_BYTES


def _boot_parameters(plan: Plan) -> bytes:
    data, kernel = bytearray(PAGE_BYTES), plan.kernel
    data[SETUP_HEADER : SETUP_HEADER + len(kernel.setup)] = kernel.setup
    data[_LOADER] = _UNDEFINED_LOADER
    struct.pack_into("<Q", data, _RSDP, _ACPI)
    struct.pack_into("<I", data, _COMMAND_LINE_POINTER, _COMMAND_LINE)
    if plan.initrd:
        struct.pack_into("<II", data, _INITRD, _initrd_start(plan), len(plan.initrd))
    entries = list(_memory_map(plan))
    data[_E820_COUNT] = len(entries)
    for number, entry in enumerate(entries):
        _E820_ENTRY.pack_into(data, _E820 + number * _E820_ENTRY.size, *entry)
    return bytes(data)


def _memory_map(plan: Plan) -> list[tuple[int, int, int]]:
    """(GPA, bytes, kind) of each piece."""
    topology = plan.topology
    hole = plan.reserved or range(topology.below, topology.below)
    pieces = [
        (0, _ACPI, _RAM),
        (_ACPI, _LOW_END - _ACPI, _ACPI_DATA),
        (MIB, hole.start - MIB, _RAM),
        (hole.start, len(hole), _RESERVED),
        (hole.stop, topology.below - hole.stop, _RAM),
        (FOUR_GIB, topology.above, _RAM),
    ]
    return [piece for piece in pieces if piece[1]]
