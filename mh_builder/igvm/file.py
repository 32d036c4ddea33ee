"""An IGVM file: its headers in their order, and the bytes that they name.

Source: the public crate `igvm` 0.4 (microsoft/igvm, igvm/src/lib.rs, `new_from_binary`, `serialize`). The reader is
stricter: every offset, size, mask and place is checked before anything else looks at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import NamedTuple, TypeVar
from zlib import crc32

from mh_builder.firmware.errors import FirmwareError
from mh_builder.igvm.layout import (
    ALIGNMENT,
    ARCHITECTURE_X64,
    CHECKSUM_OFFSET,
    FIXED_HEADER,
    FIXED_HEADER_2,
    KNOWN,
    LARGE_PAGE,
    MAGIC,
    OPTIONAL,
    SECTION_STARTS,
    STRUCTURES,
    VARIABLE_HEADER,
    Body,
    Kind,
    Opaque,
    PageData,
    Platform,
    SupportedPlatform,
    VpContext,
)
from mh_builder.paging import MIB, PAGE_BYTES

LARGEST_IGVM = 256 * MIB
"""Bytes; more than a kernel and its initial RAM disk need."""
MAX_HEADERS = 1 << 18
"""Twice as many as there can be pages of 4 KiB (`MEMORY_LIMIT`)."""

_B = TypeVar("_B", bound=Body)


class Header(NamedTuple):
    """A variable header: its type as the file has it, where it begins in the file, and its body."""

    kind: int
    offset: int
    body: Body

    @property
    def body_offset(self) -> int:
        """Where in the file the body begins."""
        return self.offset + VARIABLE_HEADER.size

    @property
    def name(self) -> str:
        """What the crate calls it."""
        known = self.kind & ~OPTIONAL
        return Kind(known).name if known in KNOWN else f"type {self.kind:#x}"


@dataclass(frozen=True)
class Igvm:
    """An IGVM file, read; `headers` in the order of the file."""

    data: bytes
    version: int
    headers_end: int
    """Where in the file the data begin."""
    headers: tuple[Header, ...]

    def bodies(self, kind: type[_B]) -> Iterator[_B]:
        """All bodies that are read as `kind`, in the order of the file."""
        return (header.body for header in self.headers if isinstance(header.body, kind))

    @property
    def platforms(self) -> dict[Platform, int]:
        """Each platform, and the bit that stands for it in masks."""
        return {Platform(body.platform): body.mask for body in self.bodies(SupportedPlatform)}

    def contents(self, body: PageData | VpContext) -> bytes | None:
        """The bytes of a page or of registers, None for a page that is zero."""
        if not body.file_offset:
            return None
        return self.data[body.file_offset : body.file_offset + page_bytes(body)]


def page_bytes(body: PageData | VpContext) -> int:
    """Bytes that a page takes in memory, or registers in the file."""
    return 2 * MIB if isinstance(body, PageData) and body.flags & LARGE_PAGE else PAGE_BYTES


def is_igvm(data: bytes | mmap) -> bool:
    """Whether `data` begins as an IGVM file does."""
    return data[: len(MAGIC)] == MAGIC


def parse(data: bytes) -> Igvm:
    """Read the headers of a file, without a look at what they mean together. Raises `FirmwareError`."""
    if len(data) < FIXED_HEADER.size:
        raise FirmwareError(f"IGVM: {len(data):#x} bytes have no room for a fixed header of {FIXED_HEADER.size:#x}")
    magic, version, offset, size, total, checksum = FIXED_HEADER.unpack_from(data)
    if magic != MAGIC:
        raise FirmwareError(f"IGVM: it begins with {magic.hex()}, not {MAGIC.hex()}")
    fixed = _fixed_bytes(data, version)
    if total != len(data):
        raise FirmwareError(f"IGVM: the fixed header says {total:#x} bytes, there are {len(data):#x}")
    if offset % ALIGNMENT or not fixed <= offset <= offset + size <= total:
        raise FirmwareError(
            f"IGVM: variable headers of {size:#x} bytes at {offset:#x} are not between {fixed:#x} and {total:#x}"
        )
    found = header_checksum(data, fixed, offset, size)
    if found != checksum:
        raise FirmwareError(f"IGVM: CRC-32 of the headers is {found:#010x}, the fixed header says {checksum:#010x}")
    return Igvm(data, version, offset + size, tuple(_headers(data, offset, offset + size)))


def header_checksum(data: bytes | bytearray, fixed: int, offset: int, size: int) -> int:
    """CRC-32 of the fixed header, its own field as zero, and the variable headers."""
    head = bytearray(data[:fixed])
    head[CHECKSUM_OFFSET : CHECKSUM_OFFSET + 4] = bytes(4)
    return crc32(data[offset : offset + size], crc32(head))


def _fixed_bytes(data: bytes, version: int) -> int:
    if version == 1:
        return FIXED_HEADER.size
    if version != 2:
        raise FirmwareError(f"IGVM: format version {version}, known are 1 and 2")
    if len(data) < FIXED_HEADER_2.size:
        raise FirmwareError(f"IGVM: {len(data):#x} bytes have no room for a fixed header of {FIXED_HEADER_2.size:#x}")
    architecture, page = FIXED_HEADER_2.unpack_from(data)[-2:]
    if (architecture, page) != (ARCHITECTURE_X64, PAGE_BYTES):
        raise FirmwareError(
            f"IGVM: architecture {architecture:#x} with pages of {page:#x}, "
            f"not {ARCHITECTURE_X64:#x} (x86-64) with {PAGE_BYTES:#x}"
        )
    return FIXED_HEADER_2.size


def _headers(data: bytes, offset: int, end: int) -> Iterator[Header]:
    count, section = 0, SECTION_STARTS[-1]
    while offset < end:
        count += 1
        if count > MAX_HEADERS:
            raise FirmwareError(f"IGVM: more than {MAX_HEADERS:#x} variable headers, at {offset:#x} of {end:#x}")
        header, following = _header(data, offset, end)
        known = header.kind & ~OPTIONAL
        if known in KNOWN:
            start = next(start for start in SECTION_STARTS if known >= start)
            if start < section:
                raise FirmwareError(f"IGVM: {header.name} at {offset:#x} comes after headers of type {section:#x} on")
            section = start
        yield header
        offset = following


def _header(data: bytes, offset: int, end: int) -> tuple[Header, int]:
    """The header at `offset`, and where the next one begins."""
    room = end - offset - VARIABLE_HEADER.size
    if room < 0:
        raise FirmwareError(
            f"IGVM: header at {offset:#x}: {end - offset:#x} bytes are left, {VARIABLE_HEADER.size:#x} needed"
        )
    kind, length = VARIABLE_HEADER.unpack_from(data, offset)
    following = offset + VARIABLE_HEADER.size + -(-length // ALIGNMENT) * ALIGNMENT
    if following > end:
        raise FirmwareError(f"IGVM: header of type {kind:#x} at {offset:#x}: {length:#x} bytes, {room:#x} are left")
    body = data[offset + VARIABLE_HEADER.size : offset + VARIABLE_HEADER.size + length]
    if any(data[offset + VARIABLE_HEADER.size + length : following]):
        raise FirmwareError(
            f"IGVM: header of type {kind:#x} at {offset:#x}: the bytes behind its {length:#x} are not zero"
        )
    return Header(kind, offset, _body(kind, offset, body)), following


def _body(kind: int, offset: int, data: bytes) -> Body:
    known = kind & ~OPTIONAL
    if known not in KNOWN:
        if kind & OPTIONAL:
            return Opaque(data)
        raise FirmwareError(f"IGVM: header of the unknown type {kind:#x} at {offset:#x}, and it is not optional")
    layout, read_as = STRUCTURES[Kind(known)]
    if kind & OPTIONAL and read_as is Opaque:
        return Opaque(data)
    if kind & OPTIONAL:
        raise FirmwareError(f"IGVM: {Kind(known).name} at {offset:#x} is marked as optional: loaders may differ on it")
    if len(data) != layout.size:
        raise FirmwareError(f"IGVM: {Kind(known).name} at {offset:#x} has {len(data):#x} bytes, not {layout.size:#x}")
    body = read_as(*layout.unpack(data))
    reserved = getattr(body, "reserved", 0)
    if any(reserved) if isinstance(reserved, bytes) else reserved:
        raise FirmwareError(f"IGVM: {Kind(known).name} at {offset:#x}: a reserved field is not zero")
    return body
