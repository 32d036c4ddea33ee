"""The least of ACPI that a kernel needs: one processor with a local APIC, no other hardware, one serial port.

Without them Linux takes the local APIC's timer for absent, and waits for one that is not there.

Source: ACPI specification 6.5, sections 5.2.5 (RSDP), 5.2.8 (XSDT), 5.2.9 (FADT, hardware-reduced), 5.2.12 (MADT),
6.4 (resources), 20.2 (AML).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from mh_builder.paging import PAGE_BYTES
from mh_emulator.q35 import lapic, uart

_HEADER = struct.Struct("<4sIBB6s8sI4sI")
CHECKSUM = 9
"""Offset in every table but the RSDP."""
_OEM = b"SEVMH ", b"SEVMHQ35", 1, b"MHMH", 1
_ALIGN = 64

_FADT_BYTES = 276
_FADT_DSDT, _FADT_BOOT, _FADT_FLAGS, _FADT_MINOR, _FADT_X_DSDT = 40, 109, 112, 131, 140
_NO_VGA, _NO_CMOS_CLOCK = 1 << 2, 1 << 5
_NO_POWER_BUTTON, _NO_SLEEP_BUTTON, _HARDWARE_REDUCED = 1 << 4, 1 << 5, 1 << 20
_FADT_6_5_MINOR = 5


class Tables(NamedTuple):
    """Tables one behind the other, each at a multiple of 64, with the addresses that they have from some base."""

    data: bytes
    pointers: tuple[tuple[int, int], ...]
    """(offset, size) of each address in them."""
    pointing: tuple[range, ...]
    """Those that hold one, and so a checksum that depends on the base."""
    xsdt: int
    """Offset of the XSDT."""


def lay_out(base: int) -> Tables:
    """All of them but the RSDP, for that address."""
    data = bytearray()

    def put(table: bytes) -> int:
        start = len(data)
        data.extend(table.ljust(-(-len(table) // _ALIGN) * _ALIGN, b"\0"))
        return start

    dsdt = put(_table(b"DSDT", 2, _serial_port()))
    fadt = put(_fadt(base + dsdt))
    madt = put(_table(b"APIC", 4, _processor()))
    entries = struct.pack("<QQ", base + fadt, base + madt)
    xsdt = put(_table(b"XSDT", 1, entries))
    pointers = ((fadt + _FADT_DSDT, 4), (fadt + _FADT_X_DSDT, 8), *((xsdt + _HEADER.size + 8 * n, 8) for n in range(2)))
    pointing = range(fadt, fadt + _FADT_BYTES), range(xsdt, xsdt + _HEADER.size + len(entries))
    return Tables(bytes(data), pointers, pointing, xsdt)


def tables(gpa: int) -> bytes:
    """All tables, for a page at that GPA, where the RSDP is."""
    laid = lay_out(gpa + _ALIGN)
    return (_rsdp(gpa + _ALIGN + laid.xsdt).ljust(_ALIGN, b"\0") + laid.data).ljust(PAGE_BYTES, b"\0")


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    data = bytearray(_HEADER.pack(signature, _HEADER.size + len(body), revision, 0, *_OEM) + body)
    data[CHECKSUM] = -sum(data) & 0xFF
    return bytes(data)


def _rsdp(xsdt: int) -> bytes:
    data = bytearray(struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, _OEM[0], 2, 0, 36, xsdt, 0))
    data[8] = -sum(data[:20]) & 0xFF
    data[32] = -sum(data) & 0xFF
    return bytes(data)


def _fadt(dsdt: int) -> bytes:
    body = bytearray(_FADT_BYTES - _HEADER.size)
    flags = _HARDWARE_REDUCED | _NO_POWER_BUTTON | _NO_SLEEP_BUTTON
    for at, kind, value in (
        (_FADT_DSDT, "<I", dsdt),
        (_FADT_BOOT, "<H", _NO_VGA | _NO_CMOS_CLOCK),
        (_FADT_FLAGS, "<I", flags),
        (_FADT_MINOR, "<B", _FADT_6_5_MINOR),
        (_FADT_X_DSDT, "<Q", dsdt),
    ):
        struct.pack_into(kind, body, at - _HEADER.size, value)
    return _table(b"FACP", 6, bytes(body))


def _processor() -> bytes:
    """One local APIC, enabled, number 0; no I/O APIC and no pair of 8259s."""
    return struct.pack("<II", lapic.GPAS.start, 0) + struct.pack("<BBBBI", 0, 8, 0, 0, 1)


def _serial_port() -> bytes:
    r"""AML: `\_SB.COM1`, PNP0501 at COM1's ports; without an interrupt, so Linux polls it."""
    ports = bytes([0x47, 1]) + struct.pack("<HHBB", uart.COM1.start, uart.COM1.start, 1, len(uart.COM1)) + b"\x79\0"
    resources = b"\x11" + _package(b"\x0a" + bytes([len(ports)]) + ports)
    identity = b"\x0c" + bytes.fromhex("41d00501")
    device = b"COM1" + b"\x08_HID" + identity + b"\x08_UID\0" + b"\x08_CRS" + resources
    return b"\x10" + _package(b"\\_SB_" + b"\x5b\x82" + _package(device))


def _package(body: bytes) -> bytes:
    """With PkgLength before it, which counts itself: one byte up to 63, then two."""
    if len(body) + 1 < 1 << 6:
        return bytes([len(body) + 1]) + body
    size = len(body) + 2
    return bytes([1 << 6 | size & 0xF, size >> 4]) + body
