"""x86-64 page tables: entries, a builder and a walker; the one place that knows the bits.

Source: AMD64 Architecture Programmer's Manual volume 2, chapter 5 (5.3: long mode; 5.2.3: PAE paging), and
section 15.34.1 on the C-bit, whose position CPUID 8000_001F EBX[5:0] gives.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import NamedTuple

from mh_abi.errors import MigrationHelperError

PAGE_SHIFT = 12
PAGE_BYTES = 1 << PAGE_SHIFT
ENTRIES = 512
ENTRY_BYTES = 8

PRESENT = 1 << 0
WRITABLE = 1 << 1
USER = 1 << 2
WRITE_THROUGH = 1 << 3
CACHE_DISABLE = 1 << 4
ACCESSED = 1 << 5
DIRTY = 1 << 6
LARGE = 1 << 7
GLOBAL = 1 << 8
NO_EXECUTE = 1 << 63

SMALL_PAT, LARGE_PAT = 1 << 7, 1 << 12
"""PAT in a leaf of 4 KiB, and in a larger one."""
KEY_SHIFT, KEY_MASK = 59, 0xF
"""Protection key of a leaf (CR4.PKE)."""

AVAILABLE = 0x7 << 9 | 0x7F << 52
"""Bits of an entry that are left to software: 11:9 and 58:52."""

ADDRESS_FIELD = 0x000F_FFFF_FFFF_F000
"""Bits 51:12 of an entry, before MAXPHYADDR and the C-bit are considered."""

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

LEAF_BYTES = {1: PAGE_BYTES, 2: 2 * MIB, 3: GIB}
"""Level of a leaf entry -> bytes that it maps."""

PAE_LEVELS = 3
"""Of 32-bit code with PAE, whose root has four entries, and virtual addresses 32 bits."""
_PAE_ROOT_ENTRIES, _PAE_ROOT_BYTES = 4, 32
_PAE_RESERVED = 0x7FF << 52
_PAE_ROOT_RESERVED = WRITABLE | USER | 0x7 << 6 | NO_EXECUTE
"""Of the root: bit 5 is reserved too, but QEMU sets A there (TCG, target/i386/tcg/sysemu/excp_helper.c)."""


def whole_pages(size: int) -> int:
    """Bytes of the pages of 4 KiB that `size` bytes need."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def level_shift(level: int) -> int:
    """Address bits below the index of `level` (1 is the lowest table)."""
    return PAGE_SHIFT + 9 * (level - 1)


def table_index(address: int, level: int) -> int:
    """Index (0..511) of `address` in its table of `level`."""
    return (address >> level_shift(level)) & (ENTRIES - 1)


def is_canonical(address: int, levels: int = 4) -> bool:
    """Whether the 64-bit `address` is sign-extended from bit 47 (4 levels) or 56 (5 levels); with PAE, has 32 bits."""
    if levels == PAE_LEVELS:
        return not address >> 32
    top = address >> (level_shift(levels + 1) - 1)
    return top in (0, (1 << (65 - level_shift(levels + 1))) - 1)


class Origin(Enum):
    """What the physical side of a span is counted from."""

    ABSOLUTE = "absolute"
    IMAGE = "image"
    """From the image's load base: entries move with it."""


@dataclass(frozen=True, slots=True)
class Span:
    """`size` bytes at virtual address `va` that map to guest-physical `gpa`; all in bytes, page-granular."""

    va: int
    gpa: int
    size: int
    writable: bool
    executable: bool
    private: bool
    origin: Origin = Origin.ABSOLUTE

    @property
    def end(self) -> int:
        """First virtual address behind the span."""
        return self.va + self.size


@dataclass(frozen=True, slots=True)
class EntryRun:
    """`count` present entries side by side, as built: without base and C-bit, and which of the two they take.

    The first is entry `index` of its table and has that `value`; each of the others is `step` more than the one before.
    """

    index: int
    count: int
    value: int
    step: int
    moves: bool
    private: bool


class PagingError(MigrationHelperError, ValueError):
    """Spans that cannot become page tables."""


class _Table:
    """One table: its entries, a bit for each that is taken, and the tables that some of them point to."""

    def __init__(self) -> None:
        self.runs: list[EntryRun] = []
        self.below: dict[int, _Table] = {}
        self._taken = 0

    def add(self, run: EntryRun) -> int | None:
        """Add entries; or return the lowest index that is taken already, and change nothing."""
        wanted = ((1 << run.count) - 1) << run.index
        doubled = self._taken & wanted
        if doubled:
            return (doubled & -doubled).bit_length() - 1
        self._taken |= wanted
        self.runs.append(run)
        return None


class Tables:
    """Page tables under construction.

    `first_table` is the byte offset of the root table from the base of the image; the other tables
    follow it. Entries come out without load base and C-bit: the linker makes relocations of both.
    No leaf maps more than `largest_page` bytes.
    """

    def __init__(self, first_table: int, levels: int = 4, largest_page: int = GIB) -> None:
        self.first_table = first_table
        self.levels = levels
        self._leaf_levels = tuple(level for level in (3, 2, 1) if LEAF_BYTES[level] <= largest_page)
        self._tables = [_Table()]

    @property
    def size(self) -> int:
        """Bytes of all tables."""
        return len(self._tables) * PAGE_BYTES

    def map(self, span: Span) -> None:
        """Map `span` with the largest pages that fit; raise `PagingError` where something is mapped already."""
        if (span.va | span.gpa | span.size) % PAGE_BYTES or span.size <= 0:
            raise PagingError(f"span {span.va:#x} -> {span.gpa:#x} of {span.size:#x} bytes is not made of 4 KiB pages")
        if not (is_canonical(span.va, self.levels) and is_canonical(span.end - 1, self.levels)):
            raise PagingError(f"virtual addresses {span.va:#x} to {span.end - 1:#x} are not canonical")
        for offset, level, count in self._pieces(span):
            self._map_piece(span, offset, level, count)

    def runs(self) -> Iterator[tuple[int, EntryRun]]:
        """(byte offset of the first entry from the first table, entries), table by table."""
        for number, table in enumerate(self._tables):
            for run in table.runs:
                yield number * PAGE_BYTES + run.index * ENTRY_BYTES, run

    def dumps(self, base: int, c_mask: int) -> bytes:
        """The tables as bytes, for an image at guest-physical `base`; `c_mask` is ORed into private entries."""
        data = bytearray(self.size)
        for offset, run in self.runs():
            first = run.value + (base if run.moves else 0) | (c_mask if run.private else 0)
            values = range(first, first + run.count * run.step, run.step)
            struct.pack_into(f"<{run.count}Q", data, offset, *values)
        return bytes(data)

    def _pieces(self, span: Span) -> Iterator[tuple[int, int, int]]:
        """(offset in the span, level, number of leaves) within a table, large pages where both addresses allow them."""
        # An image may be loaded at any page, so a page of it never becomes part of a larger one.
        levels = (1,) if span.origin is Origin.IMAGE else self._leaf_levels
        offset = 0
        while offset < span.size:
            va, left = span.va + offset, span.size - offset
            aligned = va | (span.gpa + offset)
            level = next(n for n in levels if aligned % LEAF_BYTES[n] == 0 and LEAF_BYTES[n] <= left)
            count = min(left // LEAF_BYTES[level], ENTRIES - table_index(va, level))
            yield offset, level, count
            offset += count * LEAF_BYTES[level]

    def _map_piece(self, span: Span, offset: int, leaf_level: int, count: int) -> None:
        va, step = span.va + offset, LEAF_BYTES[leaf_level]
        table = self._tables[0]
        for level in range(self.levels, leaf_level, -1):
            table = self._descend(table, table_index(va, level), va)
        index = table_index(va, leaf_level)
        value = span.gpa + offset | PRESENT | ACCESSED | DIRTY
        value |= WRITABLE if span.writable else 0
        value |= 0 if span.executable else NO_EXECUTE
        value |= LARGE if leaf_level > 1 else 0
        doubled = table.add(EntryRun(index, count, value, step, span.origin is Origin.IMAGE, span.private))
        if doubled is not None:
            raise PagingError(f"virtual address {va + (doubled - index) * step:#x} is mapped twice")

    def _descend(self, table: _Table, index: int, va: int) -> _Table:
        if index not in table.below:
            # Rights are decided in the leaf alone: upper entries allow writing and execution.
            pointer = self.first_table + len(self._tables) * PAGE_BYTES
            value = pointer | PRESENT | WRITABLE | ACCESSED
            if table.add(EntryRun(index, 1, value, PAGE_BYTES, moves=True, private=True)) is not None:
                raise PagingError(f"virtual address {va:#x} is mapped twice")
            table.below[index] = _Table()
            self._tables.append(table.below[index])
        return table.below[index]


class Geometry(NamedTuple):
    """How a CPU reads entries: `c_bit` is None without memory encryption."""

    physical_bits: int
    c_bit: int | None
    levels: int = 4

    @property
    def c_mask(self) -> int:
        """The C-bit as a mask, 0 without one."""
        return 0 if self.c_bit is None else 1 << self.c_bit

    @property
    def address_mask(self) -> int:
        """Address bits of an entry that reach memory."""
        return ADDRESS_FIELD & ~self.c_mask & ((1 << self.physical_bits) - 1)

    @property
    def reserved_mask(self) -> int:
        """Bits of every present entry that must be zero."""
        wide = _PAE_RESERVED if self.levels == PAE_LEVELS else 0
        return ADDRESS_FIELD & ~self.c_mask & ~((1 << self.physical_bits) - 1) | wide

    def reserved_at(self, level: int) -> int:
        """Bits of a present entry of `level` that must be zero, whether it is a leaf or not."""
        if level == self.levels == PAE_LEVELS:
            return self.reserved_mask | _PAE_ROOT_RESERVED
        return self.reserved_mask | (LARGE if level > max(LEAF_BYTES) else 0)

    def granted_at(self, level: int) -> int:
        """Rights that entries of `level` have no bits for, and give."""
        return WRITABLE | USER if level == self.levels == PAE_LEVELS else 0

    @property
    def root_entries(self) -> int:
        """Entries of the root table."""
        return _PAE_ROOT_ENTRIES if self.levels == PAE_LEVELS else ENTRIES

    @property
    def root_mask(self) -> int:
        """Bits of CR3 that are the GPA of the root table."""
        return 0x1_0000_0000 - _PAE_ROOT_BYTES if self.levels == PAE_LEVELS else self.address_mask

    def root(self, cr3: int) -> int:
        """GPA of the root table."""
        return cr3 & self.root_mask


class Leaf(NamedTuple):
    """Where an address ends: `gpa` of the very byte, and what all levels together allow."""

    gpa: int
    page_bytes: int
    writable: bool
    user: bool
    executable: bool
    private: bool
    path: tuple[tuple[int, int, int], ...]
    """(level, GPA of the entry, entry), root first."""


class Hole(NamedTuple):
    """An address that ends nowhere: `reserved` when an entry has a bit set that must be zero."""

    reserved: bool
    path: tuple[tuple[int, int, int], ...]


class _Step(NamedTuple):
    """What a walk does at one level."""

    level: int
    shift: int
    """Address bits below the index."""
    reserved: int
    granted: int
    page_bytes: int
    """Of a leaf; 0 where there is none."""


class _Plan(NamedTuple):
    """What the walks of one geometry have in common."""

    root_mask: int
    address_mask: int
    c_mask: int
    steps: tuple[_Step, ...]
    """Root first."""


@cache
def _plan(geometry: Geometry) -> _Plan:
    steps = tuple(
        _Step(
            level, level_shift(level), geometry.reserved_at(level), geometry.granted_at(level), LEAF_BYTES.get(level, 0)
        )
        for level in range(geometry.levels, 0, -1)
    )
    return _Plan(geometry.root_mask, geometry.address_mask, geometry.c_mask, steps)


def walk(read_entry: Callable[[int], int], cr3: int, va: int, geometry: Geometry) -> Leaf | Hole:
    """Translate `va` through the tables at `cr3`.

    `read_entry` maps the GPA of an entry (C-bit removed: table walks are always private) to its 64 bits.
    Rights are combined as the CPU does; EFER.NXE, CR0.WP, SMEP and SMAP are the caller's.
    """
    path: list[tuple[int, int, int]] = []
    root_mask, address_mask, c_mask, steps = _plan(geometry)
    table = cr3 & root_mask
    combined = WRITABLE | USER
    no_execute = 0
    for level, shift, reserved, granted, page_bytes in steps:
        address = table + (va >> shift & ENTRIES - 1) * ENTRY_BYTES
        entry = read_entry(address)
        path.append((level, address, entry))
        if not entry & PRESENT:
            return Hole(reserved=False, path=tuple(path))
        if entry & reserved:
            return Hole(reserved=True, path=tuple(path))
        combined &= entry | granted
        no_execute |= entry & NO_EXECUTE
        if level == 1 or (page_bytes and entry & LARGE):
            offset_mask = page_bytes - 1
            # Bit 12 of a large leaf is PAT; the other bits below its size are reserved.
            if level > 1 and entry & address_mask & offset_mask & ~(1 << 12):
                return Hole(reserved=True, path=tuple(path))
            return Leaf(
                gpa=entry & address_mask & ~offset_mask | va & offset_mask,
                page_bytes=page_bytes,
                writable=bool(combined & WRITABLE),
                user=bool(combined & USER),
                executable=not no_execute,
                private=bool(entry & c_mask),
                path=tuple(path),
            )
        table = entry & address_mask
    raise AssertionError("level 1 always ends the walk")
