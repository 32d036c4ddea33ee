"""A PE32+ driver as firmware loads it. Source: Microsoft PE format."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_PE_OFFSET = 0x3C
_SIGNATURE = b"PE\0\0"
_FILE_HEADER = struct.Struct("<HHIIIHH")
_ENTRY_OFFSET, _SIZE_OFFSET = 16, 56
_SECTION = struct.Struct("<8sIIIIIIHHI")


@dataclass(frozen=True, slots=True)
class Driver:
    """`image` is what lies in memory; `entry` is an offset into it."""

    image: bytes
    entry: int


def load_driver(data: bytes) -> Driver:
    """Lay the sections of a driver out that needs no base relocations; raise `ValueError` for anything else."""
    start = int.from_bytes(data[_PE_OFFSET : _PE_OFFSET + 4], "little")
    if data[start : start + 4] != _SIGNATURE:
        raise ValueError(f"no PE signature at {start:#x}")
    header = _FILE_HEADER.unpack_from(data, start + 4)
    optional = start + 4 + _FILE_HEADER.size
    (entry,) = struct.unpack_from("<I", data, optional + _ENTRY_OFFSET)
    (size,) = struct.unpack_from("<I", data, optional + _SIZE_OFFSET)
    image = bytearray(size)
    for number in range(header[1]):
        section = _SECTION.unpack_from(data, optional + header[5] + number * _SECTION.size)
        virtual_size, address, stored, offset = section[1:5]
        length = min(virtual_size, stored)
        image[address : address + length] = data[offset : offset + length]
    return Driver(bytes(image), entry)
