"""Every mapping of page tables in any memory, 4- or 5-level, with identical subtrees read once.

A table that is reached by many entries is read once for each level that it serves, and what it maps is joined into
repeating mappings where that is one; so tables that map the whole address space with a few pages take
milliseconds. Tables that really hold more than `MAX_TABLES` tables or `MAX_MAPPINGS` mappings are read up to
there, and `Reading.stopped` says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mh_builder.paging import (
    ADDRESS_FIELD,
    ENTRIES,
    ENTRY_BYTES,
    LARGE,
    NO_EXECUTE,
    PAGE_BYTES,
    PRESENT,
    USER,
    WRITABLE,
    Geometry,
    level_shift,
)
from mh_builder.report.mapping import Mapping, append
from mh_builder.report.physical import DumpError, MemoryGapError, PhysicalMemory

MAX_TABLES = 1 << 17
MAX_MAPPINGS = 1 << 18
"""In all tables of one level together."""

_ENTRIES = struct.Struct(f"<{ENTRIES}Q")
_EMPTY = bytes(PAGE_BYTES)
_LARGE_PAT = 1 << 12
"""Bit 12 of a large leaf is PAT; the other address bits below its size are reserved."""


class Flaw(Enum):
    """Why an entry leads nowhere, or where it should not."""

    TOO_HIGH = "its address is not below MAXPHYADDR"
    RESERVED = "it has a reserved bit"
    LARGE_ROOT = "its level has no large pages"
    NOT_ALIGNED = "its large page is not aligned"
    NO_TABLE = "its table is outside the memory"
    SHARED_TABLE = "its table is not private"


class Defect(NamedTuple):
    """An entry that is wrong in itself; `va` is the first virtual address that depends on it."""

    flaw: Flaw
    va: int
    level: int
    gpa: int
    """Of the entry."""
    entry: int


@dataclass(frozen=True)
class Reading:
    """What was read; `mappings` are in the order of virtual addresses, neighbours of the same bits joined."""

    cr3: int
    geometry: Geometry
    mappings: tuple[Mapping, ...]
    tables: dict[int, tuple[int, ...]]
    """GPA of a table -> the levels that it serves, highest first. More than one is a loop, or near one."""
    defects: tuple[Defect, ...]
    stopped: int | None
    """First virtual address that was not looked at, because the tables are too large; None: all was."""


def read_tables(memory: PhysicalMemory, cr3: int, geometry: Geometry) -> Reading:
    """Read all that the tables at `cr3` map. Raises `DumpError` where the root is not in `memory`."""
    return _Reader(memory, geometry).read(cr3)


class _Full(Exception):
    """The bound is reached at virtual address `va`."""

    def __init__(self, va: int) -> None:
        super().__init__()
        self.va = va


class _Table(NamedTuple):
    """A table that is being read: it serves `level`, and was met first for virtual address `va`."""

    gpa: int
    level: int
    va: int
    found: list[Mapping]
    """With addresses from the table's own start."""

    @property
    def page_bytes(self) -> int:
        """Bytes that one entry stands for."""
        return 1 << level_shift(self.level)


class _Reader:
    def __init__(self, memory: PhysicalMemory, geometry: Geometry) -> None:
        self._memory = memory
        self._geometry = geometry
        self._address_mask, self._reserved_mask = geometry.address_mask, geometry.reserved_mask
        self._reserved_at = [geometry.reserved_at(level) for level in range(geometry.levels + 1)]
        self._c_mask = geometry.c_mask
        self._known: dict[tuple[int, int], list[Mapping]] = {}
        self._defects: list[Defect] = []
        self._room = dict.fromkeys(range(1, geometry.levels + 1), MAX_MAPPINGS)
        known_bits = self._address_mask | PAGE_BYTES - 1
        self._address_end = ~known_bits & known_bits + 1
        """The lowest bit of an entry above its address that is no part of it: C-bit, reserved or for software."""
        self._stopped: int | None = None

    def read(self, cr3: int) -> Reading:
        root, levels = self._geometry.root(cr3), self._geometry.levels
        try:
            mappings = self._read(root, levels, 0)
        except MemoryGapError as gap:
            stored = self._memory.size
            raise DumpError(f"root table of CR3 {cr3:#x}: {gap}, which stores {stored:#x} bytes") from None
        tables: dict[int, tuple[int, ...]] = {}
        for gpa, level in self._known:
            tables[gpa] = tuple(sorted((*tables.get(gpa, ()), level), reverse=True))
        canonical = tuple(item._replace(va=_signed(item.va, levels)) for item in self._halves(mappings))
        stopped = None if self._stopped is None else _signed(self._stopped, levels)
        return Reading(cr3, self._geometry, canonical, tables, tuple(self._defects), stopped)

    def _halves(self, mappings: list[Mapping]) -> Iterator[Mapping]:
        """What goes on through the middle of the address space is two mappings."""
        half = 1 << level_shift(self._geometry.levels + 1) - 1
        for item in mappings:
            if item.va < half < item.end:
                yield from item.parts(item.va, half)
                yield from item.parts(half, item.end)
            else:
                yield item

    def _read(self, gpa: int, level: int, va: int) -> list[Mapping]:
        """What the table maps, with addresses from its own start; read before, where it served this level before."""
        known = self._known.get((gpa, level))
        if known is not None:
            return known
        data = self._table(gpa, level)
        table = _Table(gpa, level, va, [])
        self._known[gpa, level] = table.found
        if data != _EMPTY and self._stopped is None:
            try:
                self._check_room(len(self._known) <= MAX_TABLES, va)
                self._entries(table, _ENTRIES.unpack(data))
            except _Full as full:
                # What was found before the bound is good, and all that comes after it in the walk is left out.
                self._stopped = full.va if self._stopped is None else min(full.va, self._stopped)
        return table.found

    def _table(self, gpa: int, level: int) -> bytes:
        if level < self._geometry.levels:
            return self._memory.read_table(gpa)
        return self._memory.read(gpa, self._geometry.root_entries * ENTRY_BYTES).ljust(PAGE_BYTES, b"\0")

    def _entries(self, table: _Table, entries: tuple[int, ...]) -> None:
        index = 0
        while index < ENTRIES and self._stopped is None:
            entry, first = entries[index], index
            index += 1
            if not entry & PRESENT:
                continue
            flaw = self._flaw(table, entry)
            if flaw is not None:
                self._defect(flaw, table, first, entry)
            elif table.level == 1 or entry & LARGE:
                index = first + self._run(entries, first, table.page_bytes)
                self._add(table, self._leaf(table, entries, first, index - first))
            else:
                self._descend(table, first, entry)

    def _flaw(self, table: _Table, entry: int) -> Flaw | None:
        """Why the CPU would fault on the entry."""
        if entry & self._reserved_at[table.level]:
            if entry & self._reserved_mask & ADDRESS_FIELD:
                return Flaw.TOO_HIGH
            return Flaw.LARGE_ROOT if entry & LARGE and table.level > 1 else Flaw.RESERVED
        if table.level == 1 or not entry & LARGE:
            return None
        below = entry & self._address_mask & table.page_bytes - 1 & ~_LARGE_PAT
        return Flaw.NOT_ALIGNED if below else None

    def _run(self, entries: tuple[int, ...], first: int, size: int) -> int:
        """How many entries from `first` are leaves of one mapping: each a page further, or all the same page."""
        entry = entries[first]
        step = entries[first + 1] - entry if first + 1 < ENTRIES else -1
        if step not in (0, size):
            return 1
        # A carry out of the address would change bits above it, which mean something else.
        pages = (self._address_end - (entry & self._address_mask & self._address_end - 1)) // size
        room = min(ENTRIES - first, pages) if step else ENTRIES - first
        count, expected = 1, entry + step
        while count < room and entries[first + count] == expected:
            count += 1
            expected += step
        return count

    def _leaf(self, table: _Table, entries: tuple[int, ...], first: int, count: int) -> Mapping:
        entry, size = entries[first], table.page_bytes
        mask = self._address_mask & -size
        return Mapping(
            va=first * size,
            gpa=entry & mask,
            size=size * count,
            page_bytes=size,
            bits=entry & ~(mask | self._c_mask),
            writable=bool(entry & WRITABLE),
            user=bool(entry & USER),
            executable=not entry & NO_EXECUTE,
            private=bool(entry & self._c_mask),
            period=size if count > 1 and entries[first + 1] == entry else 0,
        )

    def _descend(self, table: _Table, index: int, entry: int) -> None:
        if self._c_mask and not entry & self._c_mask:
            self._defect(Flaw.SHARED_TABLE, table, index, entry)
        start = index * table.page_bytes
        try:
            inner = self._read(entry & self._address_mask, table.level - 1, table.va + start)
        except MemoryGapError:
            self._defect(Flaw.NO_TABLE, table, index, entry)
            return
        entry |= self._geometry.granted_at(table.level)
        writable, user, executable = bool(entry & WRITABLE), bool(entry & USER), not entry & NO_EXECUTE
        if writable and user and executable:
            self._take(table, start, inner)
            return
        for item in inner:
            lower = Mapping(
                start + item.va,
                *item[1:5],
                item.writable and writable,
                item.user and user,
                item.executable and executable,
                *item[8:],
            )
            self._add(table, lower)

    def _take(self, table: _Table, start: int, inner: list[Mapping]) -> None:
        """Add what a table maps that loses no right on the way: of it only the first may go on with what there is."""
        count = min(len(inner), self._room[table.level])
        if count:
            self._add(table, inner[0]._replace(va=start + inner[0].va))
            rest = inner[1:count]
            table.found.extend([Mapping._make((start + item[0], *item[1:])) for item in rest] if start else rest)
            self._room[table.level] -= count - 1
        if count < len(inner):
            self._add(table, inner[count]._replace(va=start + inner[count].va))

    def _add(self, table: _Table, item: Mapping) -> None:
        if not (table.found and append(table.found, item)):
            self._check_room(self._room[table.level] > 0, table.va + item.va)
            self._room[table.level] -= 1
            table.found.append(item)

    def _defect(self, flaw: Flaw, table: _Table, index: int, entry: int) -> None:
        va = table.va + index * table.page_bytes
        self._check_room(len(self._defects) < MAX_MAPPINGS, va)
        place = table.gpa + index * ENTRY_BYTES
        self._defects.append(Defect(flaw, _signed(va, self._geometry.levels), table.level, place, entry))

    def _check_room(self, is_room: bool, va: int) -> None:  # noqa: FBT001 - what is checked
        if not is_room:
            raise _Full(va)


def _signed(va: int, levels: int) -> int:
    """`va` with its top bit extended, as the CPU wants it."""
    bits = level_shift(levels + 1)
    return va | (1 << 64) - (1 << bits) if va >> bits - 1 & 1 else va
