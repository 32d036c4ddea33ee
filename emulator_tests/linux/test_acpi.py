"""ACPI tables, read by their own rules: signatures, lengths, checksums, pointers. Source: ACPI 6.5, section 5.2."""

from __future__ import annotations

import struct

from mh_emulator.linux import acpi

GPA = 0x9_F000


def tables() -> dict[bytes, bytes]:
    """Every table that the RSDP leads to, by its signature."""
    page = acpi.tables(GPA)
    assert len(page) == 4096
    assert page[:8] == b"RSD PTR "
    assert sum(page[:20]) % 256 == sum(page[:36]) % 256 == 0
    (xsdt,) = struct.unpack_from("<Q", page, 24)
    found = {b"XSDT": table(page, xsdt)}
    for (entry,) in struct.iter_unpack("<Q", found[b"XSDT"][36:]):
        one = table(page, entry)
        found[one[:4]] = one
    (dsdt,) = struct.unpack_from("<Q", found[b"FACP"], 140)
    assert (dsdt,) == struct.unpack_from("<I", found[b"FACP"], 40)
    return found | {b"DSDT": table(page, dsdt)}


def table(page: bytes, gpa: int) -> bytes:
    (length,) = struct.unpack_from("<I", page, gpa - GPA + 4)
    found = page[gpa - GPA : gpa - GPA + length]
    assert sum(found) % 256 == 0
    return found


def test_the_tables() -> None:
    found = tables()
    assert set(found) == {b"XSDT", b"FACP", b"APIC", b"DSDT"}
    assert len(found[b"FACP"]) == 276
    (flags,) = struct.unpack_from("<I", found[b"FACP"], 112)
    assert flags >> 20 & 1


def test_one_processor() -> None:
    found = tables()[b"APIC"]
    assert struct.unpack_from("<II", found, 36) == (0xFEE0_0000, 0)
    assert struct.unpack_from("<BBBBI", found, 44) == (0, 8, 0, 0, 1)
    assert len(found) == 52


def test_the_serial_port() -> None:
    r"""Scope (\_SB) { Device (COM1) { _HID PNP0501, _UID 0, _CRS: I/O 0x3F8, 8 bytes } }."""
    code = tables()[b"DSDT"][36:]
    assert code[:2] == bytes([0x10, len(code) - 1])
    assert code[2:8] == b"\\_SB_\x5b"
    assert code[8:10] == bytes([0x82, len(code) - 9])
    assert code[10:14] == b"COM1"
    resources = code.index(b"\x08_CRS")
    assert code[resources + 5 : resources + 9] == bytes([0x11, 13, 0x0A, 10])
    assert code[resources + 9 :] == bytes.fromhex("4701f803f80301087900")
    assert code[14:24] == b"\x08_HID\x0c" + bytes.fromhex("41d00501")
