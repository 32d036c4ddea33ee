"""Firmware volumes and the files in them.

Source: UEFI PI 1.8, volume 3, sections 2.1.4 (types of files), 3.2.1 (volume header), 3.2.3 (file header),
3.2.4 (states).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from mh_builder.firmware import guids
from mh_builder.firmware.errors import FirmwareError

SIGNATURE = b"_FVH"
SIGNATURE_OFFSET = 40
VOLUME_HEADER = struct.Struct("<16s16sQ4sIHHHBB")
_EXTENSION = struct.Struct("<16sI")
FILE_HEADER = struct.Struct("<16sBBBB3sB")
FILE_ALIGN = 8
ERASED = b"\xff"

ERASE_POLARITY = 0x800
LARGE_FILE, HAS_CHECKSUM = 0x01, 0x40
NO_CHECKSUM = 0xAA
FILE_SIZE_LIMIT = 1 << 24
"""FFS2 gives a file's size 24 bits."""

TYPE_FREEFORM, TYPE_SEC_CORE, TYPE_PEI_CORE, TYPE_DXE_CORE, TYPE_DRIVER = 0x02, 0x03, 0x04, 0x05, 0x07
TYPE_VOLUME, TYPE_SMM_CORE, TYPE_PAD = 0x0B, 0x0D, 0xF0
FILE_TYPES = {
    0x01: "raw", TYPE_FREEFORM: "freeform", TYPE_SEC_CORE: "SEC core", TYPE_PEI_CORE: "PEI core",
    TYPE_DXE_CORE: "DXE core", 0x06: "PEIM", TYPE_DRIVER: "driver", 0x08: "PEIM and driver", 0x09: "application",
    0x0A: "SMM driver", TYPE_VOLUME: "volumes", 0x0C: "SMM and DXE driver", TYPE_SMM_CORE: "SMM core", TYPE_PAD: "pad",
}  # fmt: skip

MOST_FILES = 0x4000
"""OVMF has some 130 in a volume; of a volume with more, none is read."""

# What is valid has its bit inverted against the erase polarity; the highest such bit is the state.
_DATA_VALID, _MARKED_FOR_UPDATE, _DELETED = 0x04, 0x08, 0x10
STATE_VALID = 0xFF ^ 0x07

_SEARCH_STEP = 0x1000


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of `size` bytes at `offset`; `first_file` is an offset as well, None without an FFS inside."""

    offset: int
    size: int
    name: UUID | None
    first_file: int | None

    @property
    def end(self) -> int:
        """First byte behind the volume."""
        return self.offset + self.size

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"volume at {self.offset:#x}"


@dataclass(frozen=True, slots=True)
class File:
    """A file of `size` bytes at `offset`, header included."""

    offset: int
    size: int
    header_bytes: int
    guid: UUID
    kind: int
    attributes: int

    @property
    def end(self) -> int:
        """First byte behind the file."""
        return self.offset + self.size

    @property
    def body(self) -> int:
        """Where its contents start."""
        return self.offset + self.header_bytes


@dataclass(frozen=True, slots=True)
class Contents:
    """The files of a volume, and where its free space starts."""

    files: tuple[File, ...]
    free: int


def find_volumes(data: bytes) -> Iterator[Volume]:
    """Every volume of a flash image, from its start; gaps are searched in steps of 4 KiB."""
    offset = 0
    while offset + VOLUME_HEADER.size <= len(data):
        if data[offset + SIGNATURE_OFFSET : offset + SIGNATURE_OFFSET + 4] == SIGNATURE:
            volume = read_volume(data, offset, len(data))
            yield volume
            offset = volume.end
        else:
            offset += _SEARCH_STEP


def read_volume(data: bytes, offset: int, limit: int) -> Volume:
    """The volume at `offset`, which must end at `limit` or below. Raises `FirmwareError`."""
    where = f"volume at {offset:#x}"
    if offset + VOLUME_HEADER.size > limit:
        raise FirmwareError(f"{where}: its header ends at {offset + VOLUME_HEADER.size:#x}, the data at {limit:#x}")
    fields = VOLUME_HEADER.unpack_from(data, offset)
    _, system, size, signature, attributes, header_bytes, _, extension, _, _ = fields
    if signature != SIGNATURE:
        raise FirmwareError(f"{where}: signature {signature.hex()}, not {SIGNATURE.hex()}")
    if offset + size > limit:
        raise FirmwareError(f"{where}: truncated, it ends at {offset + size:#x}, the data at {limit:#x}")
    if header_bytes % 2 or not VOLUME_HEADER.size <= header_bytes <= size:
        raise FirmwareError(f"{where}: header of {header_bytes:#x} bytes in {size:#x}")
    total = sum(struct.unpack_from(f"<{header_bytes // 2}H", data, offset)) & 0xFFFF
    if total:
        raise FirmwareError(f"{where}: bad checksum, the header's words add up to {total:#x}, not 0x0")
    if UUID(bytes_le=system) not in (guids.FFS2, guids.FFS3):
        return Volume(offset, size, None, None)
    if not attributes & ERASE_POLARITY:
        raise FirmwareError(f"{where}: attributes {attributes:#x}, erased bytes are expected to be 0xff")
    if not extension:
        return Volume(offset, size, None, offset + header_bytes)
    return Volume(offset, size, *_extension(data, offset, size, extension))


def _extension(data: bytes, offset: int, size: int, extension: int) -> tuple[UUID, int]:
    """(name, first file) of a volume with an extended header."""
    if extension + _EXTENSION.size > size:
        raise FirmwareError(f"volume at {offset:#x}: extended header at {extension:#x} of {size:#x} bytes")
    name, length = _EXTENSION.unpack_from(data, offset + extension)
    if length < _EXTENSION.size or extension + length > size:
        raise FirmwareError(f"volume at {offset:#x}: extended header of {length:#x} bytes at {extension:#x}")
    return UUID(bytes_le=name), offset + aligned(extension + length)


def aligned(offset: int, boundary: int = FILE_ALIGN) -> int:
    """`offset`, rounded up."""
    return -(-offset // boundary) * boundary


def read_files(data: bytes, volume: Volume) -> Contents:
    """All files of a volume; what follows them must be erased. Raises `FirmwareError`."""
    if volume.first_file is None:
        raise FirmwareError(f"{volume.title}: its file system is unknown")
    files: list[File] = []
    offset = volume.first_file
    while offset + FILE_HEADER.size <= volume.end:
        if len(files) > MOST_FILES:
            raise FirmwareError(f"{volume.title}: more than {MOST_FILES:#x} files")
        if data[offset : offset + FILE_HEADER.size] == ERASED * FILE_HEADER.size:
            break
        file, is_deleted = _read_file(data, offset, volume)
        if not is_deleted:
            files.append(file)
        offset = volume.offset + aligned(file.end - volume.offset)
    free = min(offset, volume.end)
    used = volume.end - free - data.count(ERASED, free, volume.end)
    if used:
        raise FirmwareError(f"{volume.title}: {used:#x} bytes of its free space from {free:#x} are not 0xff")
    return Contents(tuple(files), free)


def _read_file(data: bytes, offset: int, volume: Volume) -> tuple[File, bool]:
    """The file at `offset`, and whether it is deleted."""
    where = f"file at {offset:#x}"
    guid, _, body_sum, kind, attributes, size3, state = FILE_HEADER.unpack_from(data, offset)
    size, header_bytes = int.from_bytes(size3, "little"), FILE_HEADER.size
    if attributes & LARGE_FILE:
        header_bytes += 8
        size = int.from_bytes(data[offset + FILE_HEADER.size : offset + header_bytes], "little")
    if not header_bytes <= size <= volume.end - offset:
        raise FirmwareError(f"{where}: {size:#x} bytes, {volume.title} ends at {volume.end:#x}")
    total = sum(data[offset : offset + header_bytes]) - body_sum - state & 0xFF
    if total:
        raise FirmwareError(f"{where}: bad checksum, the header's bytes add up to {total:#x}, not 0x0")
    reached = 1 << (~state & 0xFF).bit_length() >> 1
    if reached not in (_DATA_VALID, _MARKED_FOR_UPDATE, _DELETED):
        raise FirmwareError(f"{where}: state {state:#x} is that of no finished file")
    expected = _body_checksum(data[offset + header_bytes : offset + size]) if attributes & HAS_CHECKSUM else NO_CHECKSUM
    if body_sum != expected and reached != _DELETED:
        raise FirmwareError(f"{where}: bad checksum, the contents have {expected:#x}, the header says {body_sum:#x}")
    return File(offset, size, header_bytes, UUID(bytes_le=guid), kind, attributes), reached == _DELETED


def _body_checksum(body: bytes) -> int:
    return -sum(body) & 0xFF


def file_header(guid: UUID, kind: int, attributes: int, body: bytes) -> bytes:
    """The 24 bytes before `body`. Raises `FirmwareError` where it is too large for them."""
    size = FILE_HEADER.size + len(body)
    if size >= FILE_SIZE_LIMIT:
        raise FirmwareError(f"file {guid}: {size:#x} bytes, a file has less than {FILE_SIZE_LIMIT:#x}")
    body_sum = _body_checksum(body) if attributes & HAS_CHECKSUM else NO_CHECKSUM
    fields = guid.bytes_le, kind, attributes, size.to_bytes(3, "little")
    header_sum = -sum(FILE_HEADER.pack(fields[0], 0, 0, *fields[1:], 0)) & 0xFF
    return FILE_HEADER.pack(fields[0], header_sum, body_sum, *fields[1:], STATE_VALID)
