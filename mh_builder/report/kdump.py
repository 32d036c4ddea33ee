"""Kdump-compressed dumps: what makedumpfile and QEMU's `dump-guest-memory -z` write, also in the flattened form.

Source: makedumpfile, IMPLEMENTATION and diskdump_mod.h (header, sub header, bitmaps, page descriptors), makedumpfile.h
(the flattened form); QEMU, include/sysemu/dump.h. QEMU, dump/dump.c (struct DiskDumpHeader32, KdumpSubHeader32).
"""

from __future__ import annotations

import mmap
import struct
import zlib
from array import array
from bisect import bisect_right
from functools import lru_cache
from typing import NamedTuple

from mh_builder.paging import PAGE_BYTES, PAGE_SHIFT
from mh_builder.report.cpu import Cpu
from mh_builder.report.notes import cpus_of
from mh_builder.report.physical import DumpError, MemoryGapError, PhysicalMemory

MAGIC, FLAT_MAGIC = b"KDUMP   ", b"makedumpfile\0\0\0\0"


class _Format(NamedTuple):
    """The structures of a dump, or of one whose addresses have 32 bits; the machine is x86_64 in both, for QEMU."""

    header: struct.Struct
    """Signature; status, block size, blocks of the sub header, blocks of both bitmaps."""
    notes: struct.Struct
    """Of the sub header: where the notes are, and their size."""


_WIDE = _Format(struct.Struct("<8s394x22x4I"), struct.Struct("<48xQQ"))
_NARROW = _Format(struct.Struct("<8s394x10x4I"), struct.Struct("<32xQI"))
_DESCRIPTOR = struct.Struct("<QIIQ")
_FLAT_START = 4096
_FLAT_RECORD = struct.Struct(">qq")

_ZLIB, _OTHERS = 1, {2: "lzo", 4: "snappy", 0x20: "zstd"}
_CHUNK = 4096
"""Bytes of the bitmap that are counted together."""
_KEPT_PAGES = 512
_MAX_NOTES = 1 << 24


def is_kdump(data: bytes | mmap.mmap) -> bool:
    """Whether the file begins as one."""
    return data[: len(MAGIC)] == MAGIC or data[: len(FLAT_MAGIC)] == FLAT_MAGIC


class _Plain:
    """The file itself."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        found = bytes(self._data[offset : offset + size])
        if len(found) != size:
            raise DumpError(f"kdump: {size:#x} bytes at {offset:#x}, the file has {len(self._data):#x}")
        return found


class _Flat:
    """A flattened file: pieces with their places, as they were written to a pipe; the later of two counts.

    There is one for every few pages, so each is three numbers: where in the dump, how long, where in the file.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        self._offsets, self._sizes, self._places = array("q"), array("q"), array("q")
        self._read_pieces()
        order = sorted(range(len(self._offsets)), key=self._offsets.__getitem__)
        self._offsets, self._sizes, self._places = (
            array("q", (column[number] for number in order)) for column in (self._offsets, self._sizes, self._places)
        )

    def _read_pieces(self) -> None:
        position = _FLAT_START
        while position + _FLAT_RECORD.size <= len(self._data):
            offset, size = _FLAT_RECORD.unpack(self._data[position : position + _FLAT_RECORD.size])
            position += _FLAT_RECORD.size
            if offset < 0 or size < 0:
                return
            if position + size > len(self._data):
                raise DumpError(f"kdump: a piece ends at {position + size:#x}, the file at {len(self._data):#x}")
            for column, value in ((self._offsets, offset), (self._sizes, size), (self._places, position)):
                column.append(value)
            position += size
        raise DumpError(f"kdump: cut off at {len(self._data):#x}, no mark of its end")

    def read(self, offset: int, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            at = offset + len(found)
            number = bisect_right(self._offsets, at) - 1
            skip = at - self._offsets[number] if number >= 0 else 0
            if number < 0 or skip >= self._sizes[number]:
                raise DumpError(f"kdump: {size:#x} bytes at {offset:#x}, nothing is stored at {at:#x}")
            start = self._places[number] + skip
            found += self._data[start : start + min(size - len(found), self._sizes[number] - skip)]
        return bytes(found)


class KdumpMemory(PhysicalMemory):
    """Memory of which each page is stored by itself, most of them compressed."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        """Raise `DumpError` where it is another file, truncated, or of another page size."""
        super().__init__([])
        self._file = _Flat(data) if data[: len(FLAT_MAGIC)] == FLAT_MAGIC else _Plain(data)
        self._format = _WIDE
        signature, _, block, sub_blocks, bitmap_blocks = self._header(_WIDE)
        if signature == MAGIC and block != PAGE_BYTES and self._header(_NARROW)[2] == PAGE_BYTES:
            self._format = _NARROW
            _, _, block, sub_blocks, bitmap_blocks = self._header(_NARROW)
        if signature != MAGIC:
            raise DumpError(f"kdump: signature {signature.hex()}, not {MAGIC.hex()}")
        if block != PAGE_BYTES:
            raise DumpError(f"kdump: blocks of {block:#x} bytes, pages of {PAGE_BYTES:#x} are read")
        size = bitmap_blocks // 2 * block
        first = (1 + sub_blocks) * block
        self._bitmap = self._file.read(first + size, size)
        self._descriptors = first + bitmap_blocks * block
        self._before = [0]
        for start in range(0, size, _CHUNK):
            chunk = int.from_bytes(self._bitmap[start : start + _CHUNK], "little")
            self._before.append(self._before[-1] + chunk.bit_count())
        self._page = lru_cache(_KEPT_PAGES)(self._read_page)

    def _header(self, layout: _Format) -> tuple[bytes, int, int, int, int]:
        size = layout.header.size
        signature, status, block, sub_blocks, bitmap_blocks = layout.header.unpack(self._file.read(0, size))
        return signature, status, block, sub_blocks, bitmap_blocks

    @property
    def size(self) -> int:
        """Bytes of all pages that are stored."""
        return self._before[-1] * PAGE_BYTES

    def cpus(self) -> list[Cpu]:
        """The CPUs whose registers QEMU has dumped."""
        notes = self._format.notes
        offset, size = notes.unpack(self._file.read(PAGE_BYTES, notes.size))
        if size > _MAX_NOTES:
            raise DumpError(f"kdump: notes of {size:#x} bytes, at most {_MAX_NOTES:#x} are read")
        return list(cpus_of(self._file.read(offset, size))) if size else []

    def read(self, gpa: int, size: int) -> bytes:
        """`size` bytes at `gpa`. Raises `MemoryGapError`, and `DumpError` for a page that cannot be had."""
        found = b""
        while len(found) < size:
            at = gpa + len(found)
            skip = at % PAGE_BYTES
            found += self._page(at >> PAGE_SHIFT)[skip : skip + size - len(found)]
        return found

    def _read_page(self, number: int) -> bytes:
        if number >> 3 >= len(self._bitmap) or not self._bitmap[number >> 3] >> (number & 7) & 1:
            raise MemoryGapError(number << PAGE_SHIFT)
        where = self._descriptors + self._rank(number) * _DESCRIPTOR.size
        offset, size, flags, _ = _DESCRIPTOR.unpack(self._file.read(where, _DESCRIPTOR.size))
        if size > PAGE_BYTES:
            raise DumpError(f"kdump: page at GPA {number << PAGE_SHIFT:#x} is stored in {size:#x} bytes")
        stored = self._file.read(offset, size)
        if flags & _ZLIB:
            stored = _inflated(stored, number << PAGE_SHIFT)
        for flag, name in _OTHERS.items():
            if flags & flag:
                raise DumpError(f"kdump: page at GPA {number << PAGE_SHIFT:#x} is compressed by {name}, read is zlib")
        if len(stored) != PAGE_BYTES:
            raise DumpError(f"kdump: page at GPA {number << PAGE_SHIFT:#x} has {len(stored):#x} bytes")
        return stored

    def _rank(self, number: int) -> int:
        """How many stored pages come before page `number`."""
        byte = number >> 3
        chunk = byte // _CHUNK
        between = int.from_bytes(self._bitmap[chunk * _CHUNK : byte], "little").bit_count()
        below = self._bitmap[byte] & (1 << (number & 7)) - 1
        return self._before[chunk] + between + below.bit_count()


def _inflated(stored: bytes, gpa: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(stored, PAGE_BYTES + 1)
    except zlib.error as error:
        raise DumpError(f"kdump: page at GPA {gpa:#x}: {error}") from None
