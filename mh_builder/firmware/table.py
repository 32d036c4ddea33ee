"""OVMF's GUIDed table, which lies under the reset vector and is read downwards.

Source: QEMU, hw/i386/pc_sysfw_ovmf.c; edk2, OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm. The footer's GUID ends 32
bytes below the image's end; before every GUID stands a 16-bit length, which counts itself, the GUID and the data below.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

from mh_builder.firmware import guids
from mh_builder.firmware.errors import FirmwareError
from mh_builder.paging import MIB, PAGE_BYTES

_TAIL_BYTES = 32
ENTRY_HEADER = struct.Struct("<H16s")

_METADATA_HEADER = struct.Struct("<4sIII")
_METADATA_ITEM = struct.Struct("<III")
_METADATA_SIGNATURE = b"ASEV"
METADATA_KINDS = {1: "SEC memory", 2: "secrets", 3: "CPUID", 4: "SVSM calling area", 0x10: "kernel hashes"}
METADATA_LIMIT = 256 * MIB
"""All areas together; the measurement hashes a block for each of their pages."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: `length` bytes that end at `end`, header included; the data come first."""

    guid: UUID
    end: int
    length: int

    @property
    def start(self) -> int:
        """Offset of the data in the flash image."""
        return self.end - self.length

    def data(self, flash: bytes) -> bytes:
        """The entry's data."""
        return flash[self.start : self.end - ENTRY_HEADER.size]


@dataclass(frozen=True, slots=True)
class Table:
    """The entries from the footer down; `start` is the lowest byte that the footer counts."""

    start: int
    end: int
    entries: tuple[Entry, ...]

    def find(self, guid: UUID) -> Entry | None:
        """The entry of that GUID."""
        return next((entry for entry in self.entries if entry.guid == guid), None)


@dataclass(frozen=True, slots=True)
class Area:
    """Memory that the SEV metadata names: `size` bytes at GPA `gpa`."""

    gpa: int
    size: int
    kind: int


def read_table(flash: bytes) -> Table:
    """Read the table. Raises `FirmwareError` without one, and for an entry that does not fit."""
    end = len(flash) - _TAIL_BYTES
    top = end - ENTRY_HEADER.size
    if top < 0:
        raise FirmwareError(f"not an OVMF image: {len(flash):#x} bytes have no room for a GUIDed table")
    total, footer = ENTRY_HEADER.unpack_from(flash, top)
    if UUID(bytes_le=footer) != guids.TABLE_FOOTER:
        raise FirmwareError(f"not an OVMF image: no GUIDed table ends at {end:#x}")
    start = end - total
    if not 0 <= start <= top:
        raise FirmwareError(f"GUIDed table at {end:#x}: its length is {total:#x}, of {end:#x} bytes below")
    entries: list[Entry] = []
    while top - start >= ENTRY_HEADER.size:
        length, guid = ENTRY_HEADER.unpack_from(flash, top - ENTRY_HEADER.size)
        if not ENTRY_HEADER.size <= length <= top - start:
            raise FirmwareError(f"GUIDed table: entry at {top:#x} has {length:#x} bytes, {top - start:#x} are left")
        entry = Entry(UUID(bytes_le=guid), top, length)
        if any(entry.guid == other.guid for other in entries):
            raise FirmwareError(f"GUIDed table: second entry {entry.guid} at {top:#x}")
        entries.append(entry)
        top -= length
    return Table(start, end, tuple(entries))


def read_metadata(flash: bytes, table: Table) -> tuple[Area, ...]:
    """The areas of the SEV metadata, none where the image has none. Raises `FirmwareError`.

    Source: edk2, OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm.
    """
    entry = table.find(guids.SEV_METADATA)
    if entry is None:
        return ()
    distance = int.from_bytes(entry.data(flash)[:4], "little")
    start = len(flash) - distance
    if start < 0 or distance < _METADATA_HEADER.size:
        raise FirmwareError(f"SEV metadata: {distance:#x} bytes below the end of {len(flash):#x}")
    signature, size, version, count = _METADATA_HEADER.unpack_from(flash, start)
    if (signature, version) != (_METADATA_SIGNATURE, 1):
        raise FirmwareError(f"SEV metadata at {start:#x}: signature {signature.hex()}, version {version:#x}")
    if size < _METADATA_HEADER.size + count * _METADATA_ITEM.size or size > distance:
        raise FirmwareError(f"SEV metadata at {start:#x}: {count:#x} areas in {size:#x} bytes, {distance:#x} are there")
    first = start + _METADATA_HEADER.size
    areas = tuple(Area(*_METADATA_ITEM.unpack_from(flash, first + i * _METADATA_ITEM.size)) for i in range(count))
    _check_areas(areas)
    return areas


def _check_areas(areas: tuple[Area, ...]) -> None:
    for area in areas:
        if area.kind not in METADATA_KINDS:
            raise FirmwareError(f"SEV metadata: area at {area.gpa:#x} is of the unknown kind {area.kind:#x}")
        if (area.gpa | area.size) % PAGE_BYTES:
            raise FirmwareError(f"SEV metadata: area at {area.gpa:#x} of {area.size:#x} bytes is not made of pages")
    total = sum(area.size for area in areas)
    if total > METADATA_LIMIT:
        raise FirmwareError(f"SEV metadata: areas of {total:#x} bytes, the limit is {METADATA_LIMIT:#x}")
