"""What firmware finds of a kernel and of ACPI in fw_cfg, carried out as edk2 does (QemuFwCfgAcpi.c, QemuLoader.h)."""

from __future__ import annotations

import struct

from emulator_tests.linux.small import kernel
from mh_emulator.linux import acpi
from mh_emulator.linux.kernel import read_kernel
from mh_emulator.linux.offer import offer

BASE = 0x7F12_3000
COMMAND_BYTES = 128
NAME = struct.Struct("<56s")


def loaded(files: dict[str, bytes]) -> bytearray:
    """The tables, allocated at BASE, when all commands of the script are carried out."""
    script, tables = files["etc/table-loader"], bytearray()
    for start in range(0, len(script), COMMAND_BYTES):
        number, operands = script[start], script[start + 4 : start + COMMAND_BYTES]
        name = NAME.unpack_from(operands)[0].rstrip(b"\0").decode()
        if number == 1:
            alignment, zone = struct.unpack_from("<IB", operands, 56)
            assert (BASE % alignment, zone) == (0, 1)
            tables = bytearray(files[name])
        elif number == 2:
            assert NAME.unpack_from(operands, 56) == NAME.unpack_from(operands)
            offset, size = struct.unpack_from("<IB", operands, 112)
            value = int.from_bytes(tables[offset : offset + size], "little")
            assert value < len(tables)
            tables[offset : offset + size] = (value + BASE).to_bytes(size, "little")
        else:
            assert number == 3
            result, first, size = struct.unpack_from("<III", operands, 56)
            tables[result] = -sum(tables[first : first + size]) & 0xFF
    return tables


def test_firmware_that_places_the_tables_has_those_that_a_kernel_alone_gets() -> None:
    files = dict(offer(read_kernel(kernel("hlt")), b"", "").files)
    assert loaded(files) == acpi.lay_out(BASE).data


def test_kernel_initrd_and_command_line_with_their_sizes() -> None:
    data = kernel("hlt")
    items = offer(read_kernel(data), b"initrd", "console=ttyS0").items
    assert items[0x18] + items[0x11] == data
    assert (items[0x12], items[0x15]) == (b"initrd", b"console=ttyS0\0")
    for size, item in ((0x08, 0x11), (0x0B, 0x12), (0x14, 0x15), (0x17, 0x18)):
        assert int.from_bytes(items[size], "little") == len(items[item])
