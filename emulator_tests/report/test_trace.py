"""One address through the tables: every step with its bits by name; and the reasons why one leads nowhere."""

from __future__ import annotations

import pytest

from emulator_tests.report.build import LARGE, NX, PAGE, A, D, G, Memory, P, U, W
from mh_builder.paging import GIB, MIB, Geometry
from mh_builder.report.layout import Layout
from mh_builder.report.physical import DumpError, raw_dump
from mh_builder.report.reader import read_tables
from mh_builder.report.trace import (
    MAX_REACHED,
    BadAddressError,
    bit_names,
    denied,
    reaching_gpa,
    reaching_memory,
    route,
)

PLAIN = Geometry(52, None)


def layout(memory: Memory, root: int, geometry: Geometry = PLAIN) -> Layout:
    contents = raw_dump(bytes(memory.data))
    return Layout("dump", contents, read_tables(contents, root, geometry))


@pytest.mark.parametrize(
    ("entry", "level", "geometry", "names"),
    [
        (0, 1, PLAIN, ""),
        (W | NX, 1, PLAIN, ""),
        (P | W | U | A | D | G, 1, PLAIN, "P RW US A D G"),
        (P | 1 << 3 | 1 << 4 | 1 << 7, 1, PLAIN, "P PWT PCD PAT"),
        (P | LARGE | 1 << 12 | NX, 2, PLAIN, "P NX PS PAT"),
        (P | 1 << 9 | 1 << 58, 3, PLAIN, "P AVL9 AVL58"),
        (P | 5 << 59, 1, PLAIN, "P MPK=5"),
        (P | 5 << 59, 2, PLAIN, "P"),
        (P | 1 << 51, 1, Geometry(48, 51), "P C"),
        (P | 1 << 50, 1, Geometry(48, 51), "P reserved50"),
        (P | LARGE | 1 << 20, 2, PLAIN, "P PS reserved20"),
    ],
)
def test_bits_by_name(entry: int, level: int, geometry: Geometry, names: str) -> None:
    assert " ".join(bit_names(entry, level, geometry)) == names


def test_five_levels_down_to_a_large_page() -> None:
    memory = Memory()
    pd = memory.table({3: 8 * MIB | P | W | LARGE})
    pdpt = memory.table({2: pd | P | W})
    root = memory.table({256: memory.table({1: pdpt | P | W}) | P | W})
    va = 0xFF00_0000_0000_0000 + (1 << 39) + 2 * GIB + 6 * MIB + 0x123
    found = route(layout(memory, root, Geometry(52, None, 5)), va)
    assert [(step.table, step.number) for step in found.steps] == [("PML5", 256), ("PML4", 1), ("PDPT", 2), ("PD", 3)]
    assert found.leaf is not None
    assert (found.leaf.gpa, found.leaf.page_bytes) == (8 * MIB + 0x123, 2 * MIB)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize(("right", "bit"), [("write", W), ("user mode", U), ("execute", NX)])
def test_one_level_denies_and_it_is_named(levels: int, right: str, bit: int) -> None:
    """The reader, the walker and the line of `walk` agree on each level that can decide."""
    names = ["PT", "PD", "PDPT", "PML4", "PML5"][:levels]
    for name in names:
        memory, below = Memory(), 0x5000
        for table in names:
            below = memory.table({0: (below | P | W | U) ^ (bit if table == name else 0)})
        space = layout(memory, below, Geometry(52, None, levels))
        (mapping,) = space.mappings
        found = route(space, 0x123)
        assert found.leaf is not None
        rights = {"write": mapping.writable, "user mode": mapping.user, "execute": mapping.executable}
        assert rights == {"write": True, "user mode": True, "execute": True} | {right: False}
        assert (found.leaf.writable, found.leaf.user, found.leaf.executable) == tuple(rights.values())
        assert denied(found.steps, space.geometry) == dict.fromkeys(rights, ()) | {right: (name,)}


def test_reasons_to_end_nowhere() -> None:
    memory = Memory()
    pt = memory.table({1: 0x1000 | P | 1 << 50})
    root = memory.chain(4, pt)
    memory.set(root, 5, 0x7000_0000 | P)
    memory.set(root, 6, P | LARGE)
    space = layout(memory, root, Geometry(48, None))
    for va, why in (
        (0, "PT entry is not present"),
        (PAGE, "PT entry is reserved"),
        (5 << 39, "PDPT entry at GPA 0x70000000 is outside the dump"),
        (6 << 39, "PML4 entry is reserved"),
        (7 << 39, "PML4 entry is not present"),
    ):
        found = route(space, va)
        assert (found.leaf, found.why) == (None, why)


def test_addresses_that_no_table_has() -> None:
    memory = Memory()
    space = layout(memory, memory.table())
    for va in (1 << 47, 1 << 64, -1):
        with pytest.raises(BadAddressError, match=r"is not canonical with 4 levels$"):
            route(space, va)
    with pytest.raises(DumpError, match=r"^GPA 0x10000000000000 is not below 0x10000000000000$"):
        reaching_gpa(space, 1 << 52)
    with pytest.raises(DumpError, match=r"^ram_addr 0x5: only an image of ours says"):
        reaching_memory(space, "ram_addr", 5)


def test_back_from_memory_finds_every_way() -> None:
    memory = Memory()
    pt = memory.table({0: 5 * PAGE | P, 7: 5 * PAGE | P | W, 8: 6 * PAGE | P})
    pd = memory.table({0: pt | P | W, 1: LARGE | P | W, 9: pt | P})
    root = memory.table({0: memory.table({0: pd | P | W}) | P | W})
    found = reaching_gpa(layout(memory, root), 5 * PAGE + 3)
    assert [(item.va, item.mapping.rights) for item in found] == [
        (3, "r-x"),
        (7 * PAGE + 3, "rwx"),
        (2 * MIB + 5 * PAGE + 3, "rwx"),
        (18 * MIB + 3, "r-x"),
        (18 * MIB + 7 * PAGE + 3, "r-x"),
    ]


def test_back_from_memory_is_bounded() -> None:
    memory = Memory()
    for number in range(4):
        memory.table(dict.fromkeys(range(512), (number + 1) * PAGE | P | W))
    found = reaching_gpa(layout(memory, 0), 4 * PAGE + 1)
    assert len(found) == MAX_REACHED
    assert [item.va for item in found[:2]] == [1, PAGE + 1]
