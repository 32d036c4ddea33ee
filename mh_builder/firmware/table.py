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

_TAIL_BYTES = 32
ENTRY_HEADER = struct.Struct("<H16s")


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
    entries: dict[UUID, Entry] = {}
    while top - start >= ENTRY_HEADER.size:
        length, guid = ENTRY_HEADER.unpack_from(flash, top - ENTRY_HEADER.size)
        if not ENTRY_HEADER.size <= length <= top - start:
            raise FirmwareError(f"GUIDed table: entry at {top:#x} has {length:#x} bytes, {top - start:#x} are left")
        entry = Entry(UUID(bytes_le=guid), top, length)
        if entry.guid in entries:
            raise FirmwareError(f"GUIDed table: second entry {entry.guid} at {top:#x}")
        entries[entry.guid] = entry
        top -= length
    return Table(start, end, tuple(entries.values()))
