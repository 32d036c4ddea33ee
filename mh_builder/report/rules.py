"""Rules that make sense for any page tables: ours, a kernel's, a firmware's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mh_builder.paging import PAGE_BYTES
from mh_builder.report.finding import Finding
from mh_builder.report.layout import Layout
from mh_builder.report.mapping import Mapping
from mh_builder.report.reader import Defect, Flaw
from mh_builder.report.trace import TABLES
from mh_builder.schemes.space import Range


def bounded(layout: Layout) -> Iterator[Finding]:
    """The reader came to the end."""
    if layout.reading.stopped is not None:
        count = len(layout.reading.mappings)
        yield Finding(f"the tables are too large: read up to {layout.reading.stopped:#x}, {count} mappings")


def nothing_mapped(layout: Layout) -> Iterator[Finding]:
    """Tables that map nothing: the wrong CR3, or memory that was not dumped."""
    if not layout.reading.mappings:
        yield Finding(f"nothing is mapped: {len(layout.reading.tables)} tables at CR3 {layout.reading.cr3:#x}")


def missing_tables(layout: Layout) -> Iterator[Finding]:
    """Pointers that leave the memory."""
    return defects(layout, Flaw.NO_TABLE)


def reserved_bits(layout: Layout) -> Iterator[Finding]:
    """Entries on which the CPU faults."""
    return defects(layout, Flaw.TOO_HIGH, Flaw.RESERVED, Flaw.LARGE_ROOT, Flaw.NOT_ALIGNED)


def defects(layout: Layout, *flaws: Flaw) -> Iterator[Finding]:
    """Entries with one of these flaws."""
    for defect in layout.reading.defects:
        if defect.flaw in flaws:
            yield Finding(_entry(defect))


def _entry(defect: Defect) -> str:
    return (
        f"{TABLES[defect.level]} entry {defect.entry:#x} at GPA {defect.gpa:#x}, first used for {defect.va:#x}: "
        f"{defect.flaw.value}"
    )


def loops(layout: Layout) -> Iterator[Finding]:
    """Tables that serve more than one level: from there on what is mapped is read as tables."""
    for gpa, levels in layout.reading.tables.items():
        if len(levels) > 1:
            names = " and ".join(TABLES[level] for level in levels)
            yield Finding(f"the table at GPA {gpa:#x} serves as {names}")


def above_c_bit(layout: Layout) -> Iterator[Finding]:
    """Addresses that no one can reach without setting a bit above the C-bit."""
    for mapping in layout.mappings:
        if mapping.gpa_end > layout.geometry.c_mask:
            yield Finding(f"{layout.describe(mapping)} is above the C-bit {layout.geometry.c_mask:#x}", (mapping,))


def writable_code(layout: Layout) -> Iterator[Finding]:
    """W^X within a mapping."""
    for mapping in layout.mappings:
        if mapping.writable and mapping.executable:
            yield Finding(f"{layout.describe(mapping)} is writable and executable", (mapping,))


def code_writable_elsewhere(layout: Layout) -> Iterator[Finding]:
    """W^X between mappings of one privilege: what a kernel maps for its users is theirs to write through it."""
    mappings = layout.mappings
    for is_user in (False, True):
        mine = [mapping for mapping in mappings if mapping.user is is_user]
        code = [mapping for mapping in mine if mapping.executable]
        data = [mapping for mapping in mine if mapping.writable]
        for first, second in overlapping(layout, code, data):
            if first != second:
                yield Finding(
                    f"code at {layout.describe(first)} is writable at {layout.describe(second)}", (first, second)
                )


def two_views(layout: Layout) -> Iterator[Finding]:
    """Memory that is read decrypted in one place and raw in another."""
    mappings = layout.mappings
    private = [mapping for mapping in mappings if mapping.private]
    shared = [mapping for mapping in mappings if not mapping.private]
    for first, second in overlapping(layout, private, shared):
        yield Finding(f"{layout.describe(first)} is also seen at {layout.describe(second)}", (first, second))


def shared_tables(layout: Layout) -> Iterator[Finding]:
    """Pointers to tables without C-bit: the CPU ignores that, whoever else reads them does not."""
    return defects(layout, Flaw.SHARED_TABLE)


def shared_code(layout: Layout) -> Iterator[Finding]:
    """What is executed is fetched as private memory whatever its C-bit says (APM volume 2, 15.34.5)."""
    for mapping in layout.mappings:
        if mapping.executable and not mapping.private:
            yield Finding(f"{layout.describe(mapping)} is executable and shared", (mapping,))


def exposed_tables(layout: Layout) -> Iterator[Finding]:
    """Tables in memory that is mapped as shared: the host can read and write what is put there."""
    tables = [
        Mapping(gpa, gpa, PAGE_BYTES, PAGE_BYTES, 0, writable=False, user=False, executable=False, private=True)
        for gpa in sorted(layout.reading.tables)
    ]
    shared = [mapping for mapping in layout.mappings if not mapping.private]
    for table, mapping in overlapping(layout, tables, shared):
        yield Finding(f"the table at GPA {table.gpa:#x} is in shared memory: {layout.describe(mapping)}", (mapping,))


DEVICES = Range(0xFEC0_0000, 4 << 30)
"""I/O APIC, HPET, local APIC and flash of a PC: no RAM on any chipset."""


def private_devices(layout: Layout) -> Iterator[Finding]:
    """A guest's accesses to devices with the C-bit reach nothing that can answer (GHCB specification, MMIO)."""
    if layout.plan is not None and not layout.plan.by_gpa:
        return
    for mapping in layout.mappings:
        if mapping.private and not mapping.executable and mapping.gpa < DEVICES.end and DEVICES.start < mapping.gpa_end:
            yield Finding(f"{layout.describe(mapping)} reaches devices or flash at {DEVICES}, as private", (mapping,))


class _Placed(NamedTuple):
    """A mapping where it reaches memory, sorted by that."""

    kind: str
    start: int
    end: int
    side: int
    mapping: Mapping


def overlapping(
    layout: Layout, firsts: Iterable[Mapping], seconds: Iterable[Mapping]
) -> Iterator[tuple[Mapping, Mapping]]:
    """Pairs of one of `firsts` and one of `seconds` that reach the same memory, whatever its GPA.

    A sweep through memory; the work is that of the pairs that are found.
    """
    open_sides: tuple[list[_Placed], list[_Placed]] = ([], [])
    for item in sorted([*_placed(layout, firsts, 0), *_placed(layout, seconds, 1)]):
        others = open_sides[1 - item.side]
        others[:] = [other for other in others if other.kind == item.kind and other.end > item.start]
        for other in others:
            yield (item.mapping, other.mapping) if item.side == 0 else (other.mapping, item.mapping)
        open_sides[item.side].append(item)


def _placed(layout: Layout, mappings: Iterable[Mapping], side: int) -> Iterator[_Placed]:
    for mapping in mappings:
        for part, backing in layout.backed(mapping):
            kind, start = ("GPA", part.gpa) if backing is None else backing.memory
            yield _Placed(kind, start, start + part.reach, side, part)
