"""Memory of a host process, as a virtual machine monitor maps it for its guest."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import pairwise

from mh_builder.paging import PAGE_BYTES
from mh_emulator.dram.dram import MAP_NORESERVE, Dram

FRAME_ENTRY_BYTES = 8
POPULATED = 1
"""Tells a frame at SPA 0 from none."""
_ZEROS = bytes(PAGE_BYTES)


class UserMemory:
    """An anonymous mapping of `size` bytes; offsets are from its start, frames come with the first touch."""

    def __init__(self, dram: Dram, size: int) -> None:
        if size <= 0 or size % PAGE_BYTES:
            raise ValueError(f"a mapping of {size:#x} bytes is not made of 4 KiB pages")
        self.dram = dram
        self.size = size
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        frames = mmap.mmap(-1, size // PAGE_BYTES * FRAME_ENTRY_BYTES, flags=flags)
        self._frames = memoryview(frames).cast("Q")
        """For each page the SPA of its frame with `POPULATED`, or 0."""
        self.frames_address = ctypes.addressof(ctypes.c_char.from_buffer(frames))
        """Where that lies in this process."""
        self._populated: list[int] = []

    def populated(self) -> list[int]:
        """Offsets of the pages that have a frame, ascending."""
        return sorted(self._populated)

    def frames(self) -> list[tuple[int, int]]:
        """Which pages have a frame, ascending: offset and system physical address of each."""
        return [(offset, self.spa(offset)) for offset in self.populated()]

    def remap(self, frames: Iterable[tuple[int, int]]) -> None:
        """Have these frames and no others; whoever has cached where the pages lay has to forget it."""
        for offset in self._populated:
            self._frames[offset // PAGE_BYTES] = 0
        self._populated.clear()
        for offset, spa in frames:
            self._frames[offset // PAGE_BYTES] = spa | POPULATED
            self._populated.append(offset)

    def discard(self, offsets: Container[int]) -> None:
        """MADV_DONTNEED: these pages have no frame, until they are touched; in this model their frames stay taken."""
        self.remap([(offset, spa) for offset, spa in self.frames() if offset not in offsets])

    def spa(self, offset: int) -> int:
        """System physical address of the byte at `offset`; its page is populated."""
        if not 0 <= offset < self.size:
            raise ValueError(f"offset {offset:#x} is outside of a mapping of {self.size:#x} bytes")
        page, in_page = divmod(offset, PAGE_BYTES)
        frame = self._frames[page] or self._frame(page)
        return frame - POPULATED + in_page

    def spas(self, offset: int, size: int) -> list[int]:
        """System physical addresses of the pages in `size` bytes at `offset`, both whole pages; all are populated."""
        if (offset | size) % PAGE_BYTES or offset < 0 or offset + size > self.size:
            raise ValueError(f"{size:#x} bytes at {offset:#x} are no pages of a mapping of {self.size:#x} bytes")
        pages = range(offset // PAGE_BYTES, (offset + size) // PAGE_BYTES)
        with self.dram.bus:
            self._populate(pages)
            return [frame - POPULATED for frame in self._frames[pages.start : pages.stop]]

    def _populate(self, pages: range) -> list[int]:
        """Give those of these pages a frame that have none; return them. The bus is held."""
        missing = [page for page, frame in zip(pages, self._frames[pages.start : pages.stop], strict=True) if not frame]
        for page, spa in zip(missing, self.dram.allocate_pages(len(missing)), strict=True):
            self._frames[page] = spa | POPULATED
        self._populated += [page * PAGE_BYTES for page in missing]
        return missing

    def _frame(self, page: int) -> int:
        """Its entry, with a frame."""
        with self.dram.bus:
            self._populate(range(page, page + 1))
            return self._frames[page]

    def read_raw(self, offset: int, size: int) -> bytes:
        """Return `size` bytes as the host sees them: ciphertext where a guest wrote privately."""
        with self.dram.bus:
            return b"".join([self._read_stretch(start, length) for start, length in stretches(offset, size)])

    def _read_stretch(self, offset: int, size: int) -> bytes:
        if size < PAGE_BYTES:
            return self.dram.read_raw(self.spa(offset), size)
        return self.dram.read_raw_pages(self.spas(offset, size))

    def write_raw(self, offset: int, data: bytes) -> None:
        """Store `data` as the host does: garbage for a guest that reads privately."""
        with self.dram.bus:
            for start, length in stretches(offset, len(data)):
                at = start - offset
                if length < PAGE_BYTES:
                    self.dram.write_raw(self.spa(start), data[at : at + length])
                else:
                    self._write_pages(start, data[at : at + length])

    def clear(self, offset: int, size: int) -> None:
        """Store zeros, as the host does."""
        with self.dram.bus:
            for start, length in stretches(offset, size):
                if length < PAGE_BYTES:
                    self.dram.write_raw(self.spa(start), bytes(length))
                else:
                    self._clear_pages(range(start // PAGE_BYTES, (start + length) // PAGE_BYTES))

    def _clear_pages(self, pages: range) -> None:
        """A page that nobody has touched comes with zeros."""
        touched = sorted(set(pages).difference(self._populate(pages)))
        spas = [self._frames[page] - POPULATED for page in touched]
        self.dram.write_raw_pages(spas, bytes(len(spas) * PAGE_BYTES))

    def _write_pages(self, offset: int, data: bytes) -> None:
        """Store whole pages; one that nobody has touched comes with zeros."""
        pages = range(offset // PAGE_BYTES, (offset + len(data)) // PAGE_BYTES)
        missing = set(self._populate(pages))
        contents = (data[at : at + PAGE_BYTES] for at in range(0, len(data), PAGE_BYTES))
        both = zip(pages, contents, strict=True)
        written = [(page, content) for page, content in both if page not in missing or content != _ZEROS]
        spas = [self._frames[page] - POPULATED for page, _ in written]
        self.dram.write_raw_pages(spas, b"".join([content for _, content in written]))


@dataclass(frozen=True, slots=True)
class Place:
    """Memory of the host process, from `offset`."""

    memory: UserMemory
    offset: int

    def at(self, distance: int) -> Place:
        """The place `distance` bytes further."""
        return Place(self.memory, self.offset + distance)

    def spa(self, distance: int) -> int:
        """System physical address `distance` bytes further; its page is populated."""
        return self.memory.spa(self.offset + distance)


def stretches(offset: int, size: int) -> list[tuple[int, int]]:
    """Cut `size` bytes at `offset` into a part of a page, whole pages and a part: (offset, length) of each there is."""
    end = offset + size
    first = min(-(-offset // PAGE_BYTES) * PAGE_BYTES, end)
    last = max(first, end // PAGE_BYTES * PAGE_BYTES)
    return [(begin, after - begin) for begin, after in pairwise((offset, first, last, end)) if after > begin]


def pieces(offset: int, size: int) -> list[tuple[int, int]]:
    """Cut `size` bytes at `offset` at page borders: (offset, length) each."""
    cuts = [offset, *range((offset & -PAGE_BYTES) + PAGE_BYTES, offset + size, PAGE_BYTES), offset + size]
    return [(start, end - start) for start, end in pairwise(cuts) if end > start]
