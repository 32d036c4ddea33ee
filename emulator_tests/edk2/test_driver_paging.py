"""Page tables made for the purpose: what both loaders take for private, and one page that they make shared.

The driver's parts run under ASan and UBSan.
"""

from __future__ import annotations

import struct
from typing import Protocol

import pytest

from emulator_tests.edk2.native_driver import TABLES, NativeDriver
from emulator_tests.firmware.probe import AssemblyWalk, sharing
from mh_builder.paging import GIB, MIB, PAGE_BYTES, Geometry, Hole, Leaf, Span, Tables, walk


def leaf(tables: bytes, address: int, geometry: Geometry) -> Leaf | Hole:
    def read(gpa: int) -> int:
        return int(struct.unpack_from("<Q", tables, gpa - TABLES)[0])

    return walk(read, TABLES, address, geometry)


def made(levels: int, largest: int, c_mask: int) -> bytes:
    """Identity: private, read and write, not to be executed; 4 GiB, or 128 MiB of 4 KiB pages."""
    tables = Tables(0, levels, largest)
    end = 128 * MIB if largest == PAGE_BYTES else 4 * GIB
    tables.map(Span(0, 0, end, writable=True, executable=False, private=True))
    return tables.dumps(TABLES, c_mask)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("largest", [GIB, 2 * MIB, PAGE_BYTES])
@pytest.mark.parametrize("c_bit", [47, 51])
def test_one_page_is_shared_and_nothing_else_changes(
    driver: NativeDriver, levels: int, largest: int, c_bit: int
) -> None:
    geometry = Geometry(48, c_bit, levels)
    before = made(levels, largest, 1 << c_bit)
    address = 0x441_A000
    level, after = driver.share(before, levels, 1 << c_bit, address + 0x123)
    assert level == {GIB: 3, 2 * MIB: 2, PAGE_BYTES: 1}[largest]
    neighbours = [address + offset for offset in (-MIB, -PAGE_BYTES, PAGE_BYTES, MIB)]
    others = [*neighbours, *range(0, 128 * MIB, 2 * MIB), *range(0x440_0000, 0x460_0000, PAGE_BYTES)]
    for other in others:
        if other == address:
            continue
        old, new = leaf(before, other, geometry), leaf(after, other, geometry)
        assert isinstance(old, Leaf)
        assert isinstance(new, Leaf)
        assert (new.gpa, new.writable, new.user, new.executable, new.private) == (other, True, False, False, True)
    page = leaf(after, address, geometry)
    assert isinstance(page, Leaf)
    assert (page.gpa, page.page_bytes, page.private, page.writable) == (address, PAGE_BYTES, False, True)
    # Table walks are private, and the firmware's own code looks for the C-bit in pointers as well.
    assert all(entry & 1 << c_bit for level, _, entry in page.path if level > 1)


def test_rights_and_caching_of_a_large_page_are_kept(driver: NativeDriver) -> None:
    tables = bytearray(made(4, 2 * MIB, 1 << 51))
    at = (leaf(bytes(tables), 0x400000, Geometry(48, 51)).path[-1][1]) - TABLES
    entry = struct.unpack_from("<Q", tables, at)[0]
    user, write_through, no_cache, glob, pat, available = 1 << 2, 1 << 3, 1 << 4, 1 << 8, 1 << 12, 1 << 52
    extra = user | write_through | no_cache | glob | pat | available
    struct.pack_into("<Q", tables, at, entry | extra)
    level, after = driver.share(bytes(tables), 4, 1 << 51, 0x400000)
    assert level == 2
    path = leaf(after, 0x401000, Geometry(48, 51)).path
    assert path[-2][2] & user
    small = path[-1][2]
    # In a 4 KiB entry PAT is bit 7, where a larger one says that it is large.
    assert small & 0xFFF == (entry | user | write_through | no_cache | glob) & 0xFFF | 1 << 7
    assert small & available
    assert small & 0x000F_FFFF_FFFF_F000 & ~(1 << 51) == 0x401000


@pytest.mark.parametrize("address", [4 * GIB, 1 << 39])
def test_an_address_that_is_not_mapped_stays_so(driver: NativeDriver, address: int) -> None:
    before = made(4, GIB, 1 << 51)
    level, after = driver.share(before, 4, 1 << 51, address)
    assert level == 0
    assert after[: len(before)] == before
    assert not any(after[len(before) :])


class Walk(Protocol):
    """What a loader takes for private."""

    def is_private(self, tables: bytes, levels: int, c_mask: int, address: int, size: int) -> bool:
        """Whether `size` bytes are mapped private by tables that lie at `TABLES`."""


@pytest.fixture(params=["assembly", "driver"])
def loader(request: pytest.FixtureRequest) -> Walk:
    """Each loader in turn."""
    if request.param == "assembly":
        return AssemblyWalk()
    driver: NativeDriver = request.getfixturevalue("driver")
    return driver


PAGE = 0x441_A000
SHAPES = [(levels, largest) for levels in (4, 5) for largest in (GIB, 2 * MIB, PAGE_BYTES)]
C_BITS = (47, 51)


def path(tables: bytes, c_bit: int, levels: int, address: int = PAGE) -> dict[int, int]:
    """Level -> offset in the tables of the entry that maps an address."""
    return {level: entry - TABLES for level, entry, _ in leaf(tables, address, Geometry(48, c_bit, levels)).path}


def toggled(tables: bytes, offset: int, bits: int) -> bytes:
    (entry,) = struct.unpack_from("<Q", tables, offset)
    return tables[:offset] + struct.pack("<Q", entry ^ bits) + tables[offset + 8 :]


@pytest.mark.parametrize(("levels", "largest"), SHAPES)
@pytest.mark.parametrize("c_bit", C_BITS)
def test_what_is_mapped_private_is_private(loader: Walk, levels: int, largest: int, c_bit: int) -> None:
    tables = made(levels, largest, 1 << c_bit)
    for address, size in ((PAGE, 1), (PAGE + 0xFFF, 2), (PAGE, 32 * PAGE_BYTES), (0, PAGE_BYTES)):
        assert loader.is_private(tables, levels, 1 << c_bit, address, size)


@pytest.mark.parametrize(("levels", "largest"), SHAPES)
@pytest.mark.parametrize("c_bit", C_BITS)
def test_no_level_may_lack_the_c_bit_or_be_absent(loader: Walk, levels: int, largest: int, c_bit: int) -> None:
    """Neither the page nor a table on the way to it."""
    tables = made(levels, largest, 1 << c_bit)
    entries = path(tables, c_bit, levels)
    assert list(entries) == list(range(levels, {GIB: 3, 2 * MIB: 2, PAGE_BYTES: 1}[largest] - 1, -1))
    for offset in entries.values():
        for bits in (1 << c_bit, 1):
            assert not loader.is_private(toggled(tables, offset, bits), levels, 1 << c_bit, PAGE, 1)


@pytest.mark.parametrize("number", [0, 7, 15])
def test_one_shared_page_is_enough(loader: Walk, number: int) -> None:
    tables = made(4, PAGE_BYTES, 1 << 51)
    tables = toggled(tables, path(tables, 51, 4, PAGE + number * PAGE_BYTES)[1], 1 << 51)
    assert not loader.is_private(tables, 4, 1 << 51, PAGE + 0x800, 15 * PAGE_BYTES + 1)
    assert not loader.is_private(tables, 4, 1 << 51, PAGE + number * PAGE_BYTES + 0xFFF, 1)
    assert loader.is_private(tables, 4, 1 << 51, PAGE + (number + 1) * PAGE_BYTES, PAGE_BYTES)
    assert loader.is_private(tables, 4, 1 << 51, PAGE - PAGE_BYTES, number * PAGE_BYTES + PAGE_BYTES)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize(("real", "named"), [(51, 47), (47, 51), (51, 50), (51, 33)])
def test_another_c_bit_than_that_of_the_tables(loader: Walk, levels: int, real: int, named: int) -> None:
    assert not loader.is_private(made(levels, 2 * MIB, 1 << real), levels, 1 << named, PAGE, 1)


@pytest.mark.parametrize("levels", [4, 5])
def test_a_pointer_that_keeps_a_high_bit_is_not_followed(loader: Walk, levels: int) -> None:
    """Where entries have the named bit as well as the real one."""
    tables = made(levels, 2 * MIB, 1 << 51 | 1 << 47)
    assert not loader.is_private(tables, levels, 1 << 47, PAGE, 1)


@pytest.mark.parametrize("c_bit", [0, 1, 9, 31, 52, 63])
def test_no_part_has_its_c_bit_there(loader: Walk, c_bit: int) -> None:
    """Though every entry has the bit: it is present, writable, anything but encrypted."""
    assert not loader.is_private(made(4, 2 * MIB, 1 << c_bit), 4, 1 << c_bit, PAGE, 1)


@pytest.mark.parametrize("c_bit", [32, 51])
def test_a_c_bit_at_either_end(loader: Walk, c_bit: int) -> None:
    assert loader.is_private(made(4, 2 * MIB, 1 << c_bit), 4, 1 << c_bit, PAGE, 1)


@pytest.mark.parametrize("level", [4, 5])
def test_no_page_is_larger_than_1_gib(loader: Walk, level: int) -> None:
    """The bit that makes an entry a page means nothing above."""
    tables = made(5, 2 * MIB, 1 << 51)
    tables = toggled(tables, path(tables, 51, 5)[level], 1 << 7)
    assert loader.is_private(tables, 5, 1 << 51, PAGE, 1)
    assert not loader.is_private(tables, 5, 1 << 51, 4 * GIB, 1)


@pytest.mark.parametrize("size", [(1 << 64) - PAGE, (1 << 64) - 1])
def test_memory_that_wraps_is_not_private(loader: Walk, size: int) -> None:
    assert not loader.is_private(made(4, GIB, 1 << 51), 4, 1 << 51, PAGE, size)


def test_without_sev_all_memory_is_private(loader: Walk) -> None:
    assert loader.is_private(bytes(PAGE_BYTES), 4, 0, PAGE, 1)


@pytest.mark.parametrize(("levels", "largest"), SHAPES)
def test_what_is_not_private_is_not_made_shared(driver: NativeDriver, levels: int, largest: int) -> None:
    """A table that is not private, or not there, is not written to."""
    tables = made(levels, largest, 1 << 51)
    *upper, _ = path(tables, 51, levels).values()
    for offset in upper:
        for bits in (1 << 51, 1):
            before = toggled(tables, offset, bits)
            level, after = driver.share(before, levels, 1 << 51, PAGE)
            assert level == 0
            assert after[: len(before)] == before


def test_all_lines_of_a_page_are_written_back_before_its_entry_changes() -> None:
    """By the assembly loader: no cache holds any under the key that it loses (APM volume 2, section 15.34.5)."""
    tables = made(4, PAGE_BYTES, 1 << 51)
    lines = [("line", PAGE + offset) for offset in range(0, PAGE_BYTES, 64)]
    entry = TABLES + path(tables, 51, 4)[1]
    assert sharing(tables, 1 << 51, PAGE) == [*lines, ("fence", 0), ("entry", entry)]
