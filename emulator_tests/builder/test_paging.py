"""Page-table builder and walker."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from mh_builder.paging import (
    GIB,
    MIB,
    PAGE_BYTES,
    TIB,
    Geometry,
    Hole,
    Leaf,
    Origin,
    PagingError,
    Span,
    Tables,
    is_canonical,
    walk,
)

FIRST = 0x8000
MILAN = Geometry(48, 51)


def span(va: int, gpa: int, size: int, **changes: Any) -> Span:
    return replace(Span(va, gpa, size, writable=True, executable=False, private=True), **changes)


def look(tables: Tables, va: int, base: int = 0, geometry: Geometry = MILAN) -> Leaf | Hole:
    data = tables.dumps(base, geometry.c_mask)

    def read_entry(gpa: int) -> int:
        (entry,) = struct.unpack_from("<Q", data, gpa - base - FIRST)
        return int(entry)

    return walk(read_entry, base + FIRST | geometry.c_mask, va, geometry)


def test_largest_pages_that_fit() -> None:
    tables = Tables(FIRST)
    tables.map(span(GIB - 2 * MIB - PAGE_BYTES, 3 * GIB - 2 * MIB - PAGE_BYTES, GIB + 4 * MIB + PAGE_BYTES * 2))
    sizes = {}
    for va in (GIB - 2 * MIB - PAGE_BYTES, GIB - 2 * MIB, GIB, 2 * GIB, 2 * GIB + 2 * MIB):
        leaf = look(tables, va)
        assert isinstance(leaf, Leaf)
        assert leaf.gpa == va + 2 * GIB
        sizes[va] = leaf.page_bytes
    assert list(sizes.values()) == [PAGE_BYTES, 2 * MIB, GIB, 2 * MIB, PAGE_BYTES]


def test_size_depends_on_both_addresses() -> None:
    tables = Tables(FIRST)
    tables.map(span(GIB, 2 * MIB, 4 * MIB))
    leaf = look(tables, GIB + 3 * MIB)
    assert isinstance(leaf, Leaf)
    assert (leaf.gpa, leaf.page_bytes) == (5 * MIB, 2 * MIB)


def test_rights_and_view() -> None:
    tables = Tables(FIRST)
    tables.map(span(0, 0, PAGE_BYTES, writable=False, executable=True))
    tables.map(span(PAGE_BYTES, PAGE_BYTES, PAGE_BYTES, private=False))
    code, shared = look(tables, 0), look(tables, PAGE_BYTES + 5)
    assert isinstance(code, Leaf)
    assert isinstance(shared, Leaf)
    assert (code.writable, code.executable, code.private, code.user) == (False, True, True, False)
    assert (shared.writable, shared.executable, shared.private, shared.gpa) == (True, False, False, PAGE_BYTES + 5)


def test_image_entries_move_and_stay_small() -> None:
    tables = Tables(FIRST)
    tables.map(Span(0, 0, 4 * MIB, writable=True, executable=False, private=True, origin=Origin.IMAGE))
    leaf = look(tables, 2 * MIB, base=7 * GIB)
    assert isinstance(leaf, Leaf)
    assert (leaf.gpa, leaf.page_bytes) == (7 * GIB + 2 * MIB, PAGE_BYTES)


def test_nothing_beside_a_span() -> None:
    tables = Tables(FIRST)
    tables.map(span(MIB, MIB, PAGE_BYTES))
    for va in (MIB - 1, MIB + PAGE_BYTES, 512 * GIB + MIB, 1 << 47):
        hole = look(tables, va)
        assert isinstance(hole, Hole)
        assert not hole.reserved


def test_twice_is_an_error() -> None:
    tables = Tables(FIRST)
    tables.map(span(0, 0, 2 * GIB))
    for again in (span(GIB, 0, GIB), span(GIB + MIB, 0, PAGE_BYTES), span(0, 0, 2 * MIB)):
        with pytest.raises(PagingError, match=r"^virtual address 0x[0-9a-f]+ is mapped twice$"):
            tables.map(again)


@pytest.mark.parametrize("bad", [span(1, 0, PAGE_BYTES), span(0, 8, PAGE_BYTES), span(0, 0, 5), span(0, 0, 0)])
def test_only_whole_pages(bad: Span) -> None:
    with pytest.raises(PagingError, match=r"is not made of 4 KiB pages$"):
        Tables(FIRST).map(bad)


def test_only_canonical_addresses() -> None:
    for va in (1 << 47, (1 << 47) - PAGE_BYTES):
        with pytest.raises(PagingError, match=r"are not canonical$"):
            Tables(FIRST).map(span(va, 0, 2 * PAGE_BYTES))
    assert is_canonical(0xFFFF_8000_0000_0000)
    assert not is_canonical(0xFFFF_7FFF_FFFF_FFFF)
    assert is_canonical(0x00FF_FFFF_FFFF_FFFF, levels=5)


def test_table_count_for_four_tebibytes() -> None:
    tables = Tables(FIRST)
    tables.map(span(0, 0, 4 * TIB))
    assert tables.size == 9 * PAGE_BYTES


def one_entry(value: int, geometry: Geometry = MILAN, level: int = 1) -> Leaf | Hole:
    """Walk to `value` at that level through permissive upper entries."""

    def read(address: int) -> int:
        depth = 4 - (address >> 12)
        return value if depth == level else (address & ~0xFFF) + 0x1000 | 0x7

    return walk(read, 0, 0, geometry)


def test_reserved_bits() -> None:
    rome = Geometry(48, 47)
    assert isinstance(one_entry(1 | 1 << 51, MILAN), Leaf)
    assert one_entry(1 | 1 << 51, rome).path
    for geometry, bit in ((rome, 51), (rome, 48), (MILAN, 50), (MILAN, 48), (Geometry(48, None), 51)):
        hole = one_entry(1 | 1 << bit, geometry)
        assert isinstance(hole, Hole)
        assert hole.reserved
    assert isinstance(one_entry(1 | 1 << 47, rome), Leaf)


def test_reserved_bits_of_large_pages() -> None:
    for level, bit in ((2, 13), (2, 20), (3, 13), (3, 29)):
        hole = one_entry(0x81 | 1 << bit, level=level)
        assert isinstance(hole, Hole)
        assert hole.reserved
    for level in (2, 3):
        assert isinstance(one_entry(0x81 | 1 << 12, level=level), Leaf), "bit 12 is PAT"


def test_large_bit_in_the_root_is_reserved() -> None:
    hole = one_entry(0x81, level=4)
    assert isinstance(hole, Hole)
    assert hole.reserved


def test_runs_are_the_entries_of_the_tables() -> None:
    tables = Tables(FIRST)
    tables.map(span(MIB, MIB, 3 * PAGE_BYTES))
    tables.map(span(0, 0, PAGE_BYTES))
    tables.map(span(2 * MIB, 2 * MIB, 6 * MIB))
    offsets = [offset + 8 * n for offset, run in tables.runs() for n in range(run.count)]
    words = struct.unpack(f"<{tables.size // 8}Q", tables.dumps(0, 0))
    assert sorted(offsets) == [8 * n for n, word in enumerate(words) if word]


def test_doubled_address_is_the_first_of_several() -> None:
    tables = Tables(FIRST)
    tables.map(span(6 * PAGE_BYTES, 0, 2 * PAGE_BYTES))
    with pytest.raises(PagingError, match="virtual address 0x6000 is mapped twice"):
        tables.map(span(3 * PAGE_BYTES, 0, 9 * PAGE_BYTES))
