"""Sections of a firmware file.

Source: UEFI PI 1.8, volume 3, sections 2.2.4 and 3.2.5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from mh_builder.firmware.errors import FirmwareError

GUIDED, PE32, TE, DEPEX, USER_INTERFACE, VOLUME_IMAGE, RAW = 0x02, 0x10, 0x12, 0x13, 0x15, 0x17, 0x19

_HEADER_BYTES, _LARGE_HEADER_BYTES = 4, 8
_LARGE = 0xFFFFFF
_GUIDED_HEADER = struct.Struct("<16sHH")
GUIDED_HEADER_BYTES = _HEADER_BYTES + _GUIDED_HEADER.size
PROCESSING_REQUIRED = 0x01

MOST_SECTIONS = 0x10000
"""OVMF's files have some ten; of more, none is read."""

_PUSH, _AND, _END = 0x02, 0x03, 0x08


@dataclass(frozen=True, slots=True)
class Section:
    """A section of `size` bytes at `offset`; its contents start at `body`."""

    offset: int
    size: int
    kind: int
    body: int

    @property
    def end(self) -> int:
        """First byte behind the section."""
        return self.offset + self.size


def read_sections(data: bytes, start: int, end: int) -> Iterator[Section]:
    """The sections between `start` and `end`. Raises `FirmwareError`."""
    offset, count = start, 0
    while offset < end:
        count += 1
        if count > MOST_SECTIONS:
            raise FirmwareError(f"section at {offset:#x}: more than {MOST_SECTIONS:#x} since {start:#x}")
        size, header_bytes = int.from_bytes(data[offset : offset + 3], "little"), _HEADER_BYTES
        if size == _LARGE:
            header_bytes = _LARGE_HEADER_BYTES
            size = int.from_bytes(data[offset + _HEADER_BYTES : offset + header_bytes], "little")
        if not header_bytes <= size <= end - offset:
            raise FirmwareError(f"section at {offset:#x}: {size:#x} bytes, what holds it ends at {end:#x}")
        yield Section(offset, size, data[offset + 3], offset + header_bytes)
        offset = start + -(-(offset + size - start) // 4) * 4


def guided(data: bytes, section: Section) -> tuple[UUID, int]:
    """(GUID, offset of the contents) of a GUID-defined section."""
    if section.body + _GUIDED_HEADER.size > section.end:
        raise FirmwareError(f"section at {section.offset:#x}: {section.size:#x} bytes have no room for a GUID")
    guid, start, _ = _GUIDED_HEADER.unpack_from(data, section.body)
    if not section.body + _GUIDED_HEADER.size <= section.offset + start <= section.end:
        raise FirmwareError(f"section at {section.offset:#x}: contents at {start:#x} of {section.size:#x} bytes")
    return UUID(bytes_le=guid), section.offset + start


def make_section(kind: int, body: bytes) -> bytes:
    """One section of less than 16 MiB."""
    size = _HEADER_BYTES + len(body)
    if size >= _LARGE:
        raise FirmwareError(f"section of {size:#x} bytes, this one has less than {_LARGE:#x}")
    return size.to_bytes(3, "little") + bytes([kind]) + body


def make_guided(guid: UUID, body: bytes) -> bytes:
    """A GUID-defined section that has to be processed to be read."""
    head = _GUIDED_HEADER.pack(guid.bytes_le, GUIDED_HEADER_BYTES, PROCESSING_REQUIRED)
    return make_section(GUIDED, head + body)


def join(sections: list[bytes]) -> bytes:
    """The body of a file with these sections."""
    joined = bytearray()
    for section in sections:
        joined += bytes(-len(joined) % 4) + section
    return bytes(joined)


def depex(first: UUID, second: UUID) -> bytes:
    """A dependency section: both protocols must be there (PI 1.8 volume 2, section 10.6)."""
    code = bytes([_PUSH]) + first.bytes_le + bytes([_PUSH]) + second.bytes_le + bytes([_AND, _END])
    return make_section(DEPEX, code)
