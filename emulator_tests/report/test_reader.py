"""The reader of page tables, against tables that are written by hand and against the builder's."""

from __future__ import annotations

import random
import struct

import pytest

from emulator_tests.report.build import LARGE, NX, PAGE, A, D, G, Memory, P, U, W
from mh_builder.paging import GIB, MIB, Geometry, Leaf, walk
from mh_builder.report.mapping import Mapping, joined
from mh_builder.report.physical import DumpError, PhysicalMemory, raw_dump
from mh_builder.report.reader import Flaw, Reading, read_tables

MILAN, ROME, PLAIN, LA57 = Geometry(48, 51), Geometry(48, 47), Geometry(52, None), Geometry(52, None, 5)


def read(memory: Memory, cr3: int, geometry: Geometry = PLAIN) -> Reading:
    return read_tables(raw_dump(bytes(memory.data)), cr3, geometry)


def short(mapping: Mapping) -> tuple[int, int, int, int, str]:
    return mapping.va, mapping.gpa, mapping.size, mapping.page_bytes, mapping.rights


@pytest.mark.parametrize("levels", [4, 5])
def test_every_page_size_at_its_level(levels: int) -> None:
    memory = Memory()
    pt = memory.table({5: 0x7000 | P | W})
    pd = memory.table({0: pt | P | W, 3: 6 * MIB | P | W | LARGE | NX})
    pdpt = memory.table({0: pd | P | W, 2: 7 * GIB | P | LARGE})
    root = memory.table({0: pdpt | P | W, 511: pdpt | P})
    if levels == 5:
        root = memory.table({511: root | P | W})
    reading = read(memory, root, Geometry(52, None, levels))
    low = 0 if levels == 4 else 0xFFFF_0000_0000_0000
    high = 0xFFFF_FF80_0000_0000
    assert [short(mapping) for mapping in reading.mappings] == [
        (low + 5 * PAGE, 0x7000, PAGE, PAGE, "rwx"),
        (low + 6 * MIB, 6 * MIB, 2 * MIB, 2 * MIB, "rw-"),
        (low + 2 * GIB, 7 * GIB, GIB, GIB, "r-x"),
        (high + 5 * PAGE, 0x7000, PAGE, PAGE, "r-x"),
        (high + 6 * MIB, 6 * MIB, 2 * MIB, 2 * MIB, "r--"),
        (high + 2 * GIB, 7 * GIB, GIB, GIB, "r-x"),
    ]
    assert sorted(reading.tables) == sorted({pt, pd, pdpt, root, *reading.tables})
    assert not reading.defects
    assert reading.stopped is None


def test_rights_are_those_of_all_levels() -> None:
    memory = Memory()
    pt = memory.table({0: 0x1000 | P | W | U})
    for bits, rights, user in (
        (P, "r-x", False),
        (P | W, "rwx", False),
        (P | W | U, "rwx", True),
        (P | NX, "r--", False),
    ):
        root = memory.table({0: memory.table({0: memory.table({0: pt | P | W | U}) | bits}) | P | W | U})
        (mapping,) = read(memory, root).mappings
        assert (mapping.rights, mapping.user) == (rights, user)


def test_neighbours_are_one_mapping_until_a_bit_differs() -> None:
    memory = Memory()
    entries = {index: 0x10000 + index * PAGE | P | W | (A | D if index == 3 else 0) for index in range(6)}
    root = memory.chain(4, memory.table(entries | {6: 0x80000 | P | W, 8: 0x18000 | P | W}))
    reading = read(memory, root)
    assert [(mapping.va // PAGE, mapping.size // PAGE, mapping.bits) for mapping in reading.mappings] == [
        (0, 3, P | W), (3, 1, P | W | A | D), (4, 2, P | W), (6, 1, P | W), (8, 1, P | W),
    ]  # fmt: skip
    assert [(mapping.va // PAGE, mapping.size // PAGE) for mapping in joined(reading.mappings)] == [
        (0, 6),
        (6, 1),
        (8, 1),
    ]


def test_the_c_bit_is_the_view_and_no_address() -> None:
    memory = Memory()
    c = 1 << 47
    root = memory.chain(4, memory.table({0: 0x5000 | P | c, 1: 0x6000 | P, 2: (c - PAGE) | P, 3: c | P}), P | W | c)
    found = [(mapping.gpa, mapping.size, mapping.private) for mapping in read(memory, root | c, ROME).mappings]
    assert found == [(0x5000, PAGE, True), (0x6000, PAGE, False), (c - PAGE, PAGE, False), (0, PAGE, True)]


def test_defects_are_named_with_their_entry() -> None:
    memory = Memory()
    good = 0x5000 | P | 1 << 51
    pt = memory.table({0: good, 7: 0x5000 | P | 1 << 50})
    pd = memory.table({0: pt | P | 1 << 51, 1: 0x123000 | P | LARGE, 2: 0x7FFF000 | P | 1 << 51})
    root = memory.table({0: memory.table({0: pd | P}) | P | 1 << 51, 4: P | LARGE})
    reading = read(memory, root, MILAN)
    assert [(defect.flaw, defect.va, defect.level, defect.gpa) for defect in reading.defects] == [
        (Flaw.SHARED_TABLE, 0, 3, pd + PAGE),
        (Flaw.TOO_HIGH, 7 * PAGE, 1, pt + 56),
        (Flaw.NOT_ALIGNED, 2 * MIB, 2, pd + 8),
        (Flaw.NO_TABLE, 4 * MIB, 2, pd + 16),
        (Flaw.LARGE_ROOT, 4 << 39, 4, root + 32),
    ]
    assert [mapping.gpa for mapping in reading.mappings] == [0x5000]


def test_root_outside_the_memory() -> None:
    for cr3 in (0x1000, 0x1_0000_0000, 0xFFFF_FFFF_FFFF_F000):
        with pytest.raises(
            DumpError,
            match=r"^root table of CR3 0x[0-9a-f]+: GPA 0x[0-9a-f]+ is outside the dump, which stores 0x1000 bytes$",
        ):
            read_tables(raw_dump(bytes(PAGE)), cr3, PLAIN)


def pages(reading: Reading) -> dict[int, Mapping]:
    return {
        va: mapping._replace(va=va, gpa=gpa, size=mapping.page_bytes, period=0)
        for mapping in reading.mappings
        for va, gpa in mapping.pages()
    }


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("geometry", [MILAN, ROME, PLAIN, LA57], ids=["51", "47", "none", "la57"])
def test_agrees_with_the_walker_on_random_tables(seed: int, geometry: Geometry) -> None:
    """Few entries a table, of all kinds: then each address is looked up one by one."""
    chance = random.Random(seed)
    count = 12
    memory = Memory()
    for _ in range(count):
        entries = {}
        for index in chance.sample(range(512), 6):
            entry = chance.randrange(count) << 12 | chance.choice((P, P | W, P | W | U, P | NX, P | W | LARGE, 0))
            entry |= chance.choice((0, geometry.c_mask, geometry.c_mask, 1 << 45, 1 << 50))
            entries[index] = entry
            if chance.random() < 0.5 and index < 511:
                entries[index + 1] = entry + chance.choice((0, PAGE, 1 << 21))
        memory.table(entries)
    dump = raw_dump(bytes(memory.data))
    reading = read_tables(dump, 0, geometry)
    assert reading.stopped is None
    found = pages(reading)
    for va in chance.sample(sorted(found), min(len(found), 300)):
        leaf = walk(dump.read_entry, 0, va, geometry)
        mapping = found[va]
        assert isinstance(leaf, Leaf)
        assert leaf[:6] == (
            mapping.gpa, mapping.page_bytes, mapping.writable, mapping.user, mapping.executable, mapping.private
        )  # fmt: skip
    assert len(found) == count_leaves(dump, 0, geometry.levels, geometry)


def count_leaves(dump: PhysicalMemory, table: int, level: int, geometry: Geometry) -> int:
    """Leaves below a table, counted as simply as can be."""
    total = 0
    for entry in struct.unpack("<512Q", dump.read_table(table)):
        address = entry & geometry.address_mask
        if not entry & P or entry & geometry.reserved_mask or (entry & LARGE and level > 3):
            continue
        if level == 1:
            total += 1
        elif entry & LARGE:
            total += not address & (1 << 12 + 9 * (level - 1)) - 1 & ~PAGE
        elif address < len(dump.pieces[0].data):
            total += count_leaves(dump, address, level - 1, geometry)
    return total


def test_tables_that_map_everything_with_five_pages() -> None:
    memory = Memory()
    for number in range(5):
        memory.table(dict.fromkeys(range(512), (number + 1) * PAGE | P | W))
    low, high = read(memory, 0, LA57).mappings
    assert (low.va, low.size, low.period, low.gpa) == (0, 1 << 56, PAGE, 5 * PAGE)
    assert (high.va, high.end) == (0xFF00_0000_0000_0000, 1 << 64)


def test_linear_subtree_that_is_used_again_and_again() -> None:
    memory = Memory()
    pt = memory.table({index: index * PAGE | P for index in range(512)})
    root = memory.chain(3, memory.table(dict.fromkeys(range(512), pt | P)))
    (mapping,) = read(memory, root).mappings
    assert (mapping.size, mapping.period) == (GIB, 2 * MIB)
    assert mapping.addresses_of(0x5123) == range(0x5123, GIB, 2 * MIB)
    parts = list(mapping.parts(2 * MIB + PAGE, 8 * MIB + PAGE))
    assert [(part.va, part.gpa, part.size, part.period) for part in parts] == [
        (2 * MIB + PAGE, PAGE, 2 * MIB - PAGE, 0), (4 * MIB, 0, 4 * MIB, 2 * MIB), (8 * MIB, 0, PAGE, 0)
    ]  # fmt: skip


def test_loop_is_seen_and_ends() -> None:
    memory = Memory()
    root = memory.table()
    memory.set(root, 0, root | P | W)
    reading = read(memory, root)
    assert reading.tables == {root: (4, 3, 2, 1)}
    assert [short(mapping) for mapping in reading.mappings] == [(0, root, PAGE, PAGE, "rwx")]


def test_absurd_tables_are_bounded_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other entry leads back: 256^5 mappings that cannot be joined."""
    monkeypatch.setattr("mh_builder.report.reader.MAX_MAPPINGS", 10_000)
    memory = Memory()
    root = memory.table(dict.fromkeys(range(0, 512, 2), P | W | G))
    reading = read(memory, root, LA57)
    assert len(reading.mappings) == 10_000
    assert reading.stopped is not None
    assert reading.mappings[-1].end <= reading.stopped


def test_pieces_of_memory() -> None:
    memory = PhysicalMemory([])
    assert memory.size == 0
    with pytest.raises(DumpError):
        memory.read_entry(0)
