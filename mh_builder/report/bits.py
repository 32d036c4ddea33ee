"""Rules about the bits of an image's entries: each has what the builder gives it, and no other.

Source: AMD64 APM volume 2, section 5.4 (the fields of entries), 5.6.6 (protection keys), 7.8 (PAT).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from mh_builder.paging import (
    ACCESSED,
    AVAILABLE,
    CACHE_DISABLE,
    DIRTY,
    ENTRIES,
    ENTRY_BYTES,
    GLOBAL,
    KEY_MASK,
    KEY_SHIFT,
    LARGE,
    NO_EXECUTE,
    PRESENT,
    USER,
    WRITABLE,
    WRITE_THROUGH,
    Geometry,
)
from mh_builder.report.finding import Finding
from mh_builder.report.layout import Layout
from mh_builder.report.trace import TABLES, bit_names

_TABLE = struct.Struct(f"<{ENTRIES}Q")
_KEY = KEY_MASK << KEY_SHIFT
_TYPE = WRITE_THROUGH | CACHE_DISABLE


def not_write_back(layout: Layout) -> Iterator[Finding]:
    """Memory of another type is slow, and seen in another order by another vCPU or by the host."""
    for mapping in layout.mappings:
        if mapping.pat_index:
            yield Finding(f"{layout.describe(mapping)} is not write-back", (mapping,))


def global_pages(layout: Layout) -> Iterator[Finding]:
    """A global translation outlives the change of tables that the start makes, and a host's of the vCPU."""
    for mapping in layout.mappings:
        if mapping.is_global:
            yield Finding(f"{layout.describe(mapping)} is global", (mapping,))


def keyed_pages(layout: Layout) -> Iterator[Finding]:
    """The helper sets no protection keys, and another may be in PKRU."""
    for mapping in layout.mappings:
        if mapping.key:
            yield Finding(f"{layout.describe(mapping)} has protection key {mapping.key}", (mapping,))


def odd_entries(layout: Layout) -> Iterator[Finding]:
    """Bits that the builder does not set, or leaves out; an entry that is not present is zero.

    These are A and D, what software may use, U, and in pointers to tables also rights, memory type, G and key. Of
    leaves those have rules of their own.
    """
    for gpa, levels in layout.reading.tables.items():
        for index, value in enumerate(_TABLE.unpack(layout.memory.read_table(gpa))):
            problem = _problem(value, levels[0], layout.geometry) if value else ""
            if problem:
                place = gpa + index * ENTRY_BYTES
                yield Finding(f"{TABLES[levels[0]]} entry {value:#x} at GPA {place:#x} {problem}")


def _problem(value: int, level: int, geometry: Geometry) -> str:
    shape = _LEAF if level == 1 or value & LARGE else _POINTER
    if value & shape.looked_at == shape.wanted:
        return ""
    if not value & PRESENT:
        return "is not present, and not zero"
    odd, missing = value & shape.looked_at & ~shape.wanted, shape.wanted & ~value
    said = []
    if odd:
        said.append(f"has {_names(odd, level, geometry)}")
    if missing:
        said.append(f"is without {_names(missing, level, geometry)}")
    return " and ".join(said)


def _names(bits: int, level: int, geometry: Geometry) -> str:
    """Bits of an entry by name: `bit_names` looks at those of entries that are present."""
    return " and ".join(bit_names(bits | PRESENT, level, geometry)[1:])


class _Shape(NamedTuple):
    """Which bits are looked at, and those of them that have to be set."""

    looked_at: int
    wanted: int


_ANYWHERE = PRESENT | ACCESSED | DIRTY | USER | AVAILABLE
_LEAF = _Shape(_ANYWHERE, PRESENT | ACCESSED | DIRTY)
_POINTER = _Shape(_ANYWHERE | WRITABLE | NO_EXECUTE | _TYPE | GLOBAL | _KEY, PRESENT | WRITABLE | ACCESSED)
