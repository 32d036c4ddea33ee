"""What fw_cfg has of a kernel and of ACPI, for firmware that takes both from there.

Source: QEMU, docs/specs/fw_cfg.rst, hw/i386/x86.c (x86_load_linux: the items of -kernel), hw/acpi/bios-linker-loader.c
(etc/table-loader); edk2, OvmfPkg/QemuKernelLoaderFsDxe, OvmfPkg/AcpiPlatformDxe/QemuFwCfgAcpi.c.
"""

from __future__ import annotations

import struct

from mh_emulator.linux import acpi
from mh_emulator.linux.kernel import Kernel
from mh_emulator.q35.fw_cfg import Offer

_KERNEL_SIZE, _INITRD_SIZE, _KERNEL, _INITRD = 0x08, 0x0B, 0x11, 0x12
_LINE_SIZE, _LINE, _SETUP_SIZE, _SETUP = 0x14, 0x15, 0x17, 0x18

_TABLES, _LOADER = "etc/acpi/tables", "etc/table-loader"
_NAME_BYTES, _COMMAND_BYTES = 56, 128
_ALLOCATE, _ADD_POINTER, _ADD_CHECKSUM = 1, 2, 3
_ALIGN, _HIGH = 64, 1


def offer(kernel: Kernel, initrd: bytes, command_line: str) -> Offer:
    """All of it."""
    line = command_line.encode("utf-8", "surrogateescape") + b"\0"
    items = {_KERNEL: kernel.code, _INITRD: initrd, _LINE: line, _SETUP: kernel.head}
    sizes = {_KERNEL_SIZE: _KERNEL, _INITRD_SIZE: _INITRD, _LINE_SIZE: _LINE, _SETUP_SIZE: _SETUP}
    return Offer(_acpi(), items | {size: struct.pack("<I", len(items[of])) for size, of in sizes.items()})


def _acpi() -> dict[str, bytes]:
    """The tables as from address 0, and what firmware has to do wherever it puts them; it makes an RSDP of its own."""
    laid, name = acpi.lay_out(0), _name(_TABLES)
    data = bytearray(laid.data)
    commands = [_command(_ALLOCATE, name + struct.pack("<IB", _ALIGN, _HIGH))]
    for offset, size in laid.pointers:
        commands.append(_command(_ADD_POINTER, name + name + struct.pack("<IB", offset, size)))
    for table in laid.pointing:
        # Firmware sums what is there, so the sum itself has to be zero.
        data[table.start + acpi.CHECKSUM] = 0
        summed = struct.pack("<III", table.start + acpi.CHECKSUM, table.start, len(table))
        commands.append(_command(_ADD_CHECKSUM, name + summed))
    return {_TABLES: bytes(data), _LOADER: b"".join(commands)}


def _name(text: str) -> bytes:
    return text.encode().ljust(_NAME_BYTES, b"\0")


def _command(number: int, operands: bytes) -> bytes:
    return (struct.pack("<I", number) + operands).ljust(_COMMAND_BYTES, b"\0")
