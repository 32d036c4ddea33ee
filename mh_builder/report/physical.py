"""Guest-physical memory as a report sees it: a few pieces of bytes, most of them mapped from files."""

from __future__ import annotations

import mmap
import struct
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mh_abi.errors import MigrationHelperError
from mh_builder.paging import ENTRY_BYTES, PAGE_BYTES

_ENTRY = struct.Struct("<Q")
_COMPARED = 1 << 20
"""Bytes that are compared at once."""


class DumpError(MigrationHelperError, ValueError):
    """Bytes that are no memory dump, or a dump that lacks what is needed; the message names both numbers."""


class Piece(NamedTuple):
    """`size` bytes at guest-physical `gpa`, in `data` from `offset`; what lies behind the end of `data` is zero."""

    gpa: int
    size: int
    data: bytes | mmap.mmap
    offset: int = 0

    @property
    def end(self) -> int:
        """First GPA behind the piece."""
        return self.gpa + self.size


def merged(pieces: Iterable[Piece]) -> list[Piece]:
    """Pieces of one file without what is there twice. Raises `DumpError` where that is not the same twice."""
    found: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.gpa, -piece.size)):
        last = found[-1] if found else None
        if last is None or piece.gpa > last.end:
            found.append(piece)
            continue
        twice = min(last.end, piece.end) - piece.gpa
        is_same_place = piece.offset - piece.gpa == last.offset - last.gpa
        if not is_same_place:
            _check_same(last, piece, twice)
        if piece.size > twice:
            rest = Piece(piece.gpa + twice, piece.size - twice, piece.data, piece.offset + twice)
            if is_same_place:
                found[-1] = last._replace(size=rest.end - last.gpa)
            else:
                found.append(rest)
    return found


def _check_same(first: Piece, second: Piece, size: int) -> None:
    for done in range(0, size, _COMPARED):
        gpa, length = second.gpa + done, min(_COMPARED, size - done)
        one, other = (piece.offset + gpa - piece.gpa for piece in (first, second))
        if first.data[one : one + length] != second.data[other : other + length]:
            raise DumpError(f"memory at GPA {gpa:#x} is stored twice, at {one:#x} and {other:#x}, and not the same")


class MemoryGapError(DumpError):
    """A read at `gpa`, where the dump has no memory."""

    def __init__(self, gpa: int) -> None:
        super().__init__(f"GPA {gpa:#x} is outside the dump")
        self.gpa = gpa


class PhysicalMemory:
    """Pieces of memory by GPA. Raises `DumpError` where two of them overlap."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.pieces = tuple(sorted((piece for piece in pieces if piece.size), key=lambda piece: piece.gpa))
        self._starts = [piece.gpa for piece in self.pieces]
        for first, second in zip(self.pieces, self.pieces[1:], strict=False):
            if second.gpa < first.end:
                raise DumpError(f"memory at GPA {second.gpa:#x} overlaps memory up to {first.end:#x}")

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(piece.size for piece in self.pieces)

    def read(self, gpa: int, size: int) -> bytes:
        """`size` bytes at `gpa`, all within one piece. Raises `MemoryGapError`."""
        number = bisect_right(self._starts, gpa) - 1
        if number < 0 or gpa + size > self.pieces[number].end:
            raise MemoryGapError(gpa)
        piece = self.pieces[number]
        start = piece.offset + gpa - piece.gpa
        return bytes(piece.data[start : start + size]).ljust(size, b"\0")

    def read_entry(self, gpa: int) -> int:
        """The page-table entry at `gpa`. Raises `MemoryGapError`."""
        return int(_ENTRY.unpack(self.read(gpa, ENTRY_BYTES))[0])

    def read_table(self, gpa: int) -> bytes:
        """The page table at `gpa`. Raises `MemoryGapError`."""
        return self.read(gpa, PAGE_BYTES)


def map_file(path: Path) -> bytes | mmap.mmap:
    """The bytes of a file, mapped and not read: a dump may be larger than this machine's memory."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def raw_dump(data: bytes | mmap.mmap, start: int = 0) -> PhysicalMemory:
    """A dump without a header, such as QEMU's `pmemsave` writes, whose first byte lies at GPA `start`."""
    return PhysicalMemory([Piece(start, len(data), data)])
