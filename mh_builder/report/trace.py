"""One address through the tables, step by step; and back, from memory to every virtual address that reaches it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mh_abi.errors import MigrationHelperError
from mh_builder.paging import (
    AVAILABLE,
    LARGE,
    LEAF_BYTES,
    NO_EXECUTE,
    PAE_LEVELS,
    PRESENT,
    USER,
    WRITABLE,
    Geometry,
    Hole,
    Leaf,
    is_canonical,
    table_index,
    walk,
)
from mh_builder.report.layout import Backing, Layout
from mh_builder.report.mapping import Mapping
from mh_builder.report.physical import DumpError, MemoryGapError

TABLES = {5: "PML5", 4: "PML4", 3: "PDPT", 2: "PD", 1: "PT"}
"""Level -> name of the table (APM volume 2, 5.3)."""

_BITS = {0: "P", 1: "RW", 2: "US", 3: "PWT", 4: "PCD", 5: "A", 6: "D", 8: "G", 63: "NX"}
"""Bit -> its name where it means the same at every level."""
_SOFTWARE = tuple(bit for bit in range(64) if AVAILABLE >> bit & 1)
_KEY_SHIFT, _KEY_BITS = 59, 0xF


_RIGHTS = {"write": (WRITABLE, WRITABLE), "user mode": (USER, USER), "execute": (NO_EXECUTE, 0)}
"""Right -> the bit that is about it, and what that has to be at every level."""


class Step(NamedTuple):
    """One entry on the way: `gpa` is where it lies."""

    level: int
    number: int
    """Index of the entry in its table."""
    gpa: int
    entry: int
    bits: tuple[str, ...]

    @property
    def table(self) -> str:
        """Name of the table."""
        return TABLES[self.level]


class Route(NamedTuple):
    """Where `va` goes; `leaf` is None where it ends nowhere, and then `why` says the reason."""

    va: int
    steps: tuple[Step, ...]
    leaf: Leaf | None
    backing: Backing | None
    why: str


def denied(steps: Sequence[Step], geometry: Geometry) -> dict[str, tuple[str, ...]]:
    """Right -> the tables whose entries take it; what no entry takes is allowed."""
    return {
        right: tuple(step.table for step in steps if (step.entry | geometry.granted_at(step.level)) & bit != wanted)
        for right, (bit, wanted) in _RIGHTS.items()
    }


class BadAddressError(MigrationHelperError, ValueError):
    """A virtual address that no table can map."""


def route(layout: Layout, va: int) -> Route:
    """Follow `va`. Raises `BadAddressError` where it is not canonical."""
    geometry = layout.geometry
    if not 0 <= va < 1 << 64 or not is_canonical(va, geometry.levels):
        wrong = "not below 4 GiB" if geometry.levels == PAE_LEVELS else f"not canonical with {geometry.levels} levels"
        raise BadAddressError(f"virtual address {va:#x} is {wrong}")
    seen: list[tuple[int, int, int]] = []
    level = iter(range(geometry.levels, 0, -1))

    def read_entry(gpa: int) -> int:
        entry = layout.memory.read_entry(gpa)
        seen.append((next(level), gpa, entry))
        return entry

    try:
        found: Leaf | Hole | None = walk(read_entry, layout.reading.cr3, va, geometry)
        why = ""
    except MemoryGapError as gap:
        found, why = None, f"{TABLES[next(level)]} entry at {gap}"
    steps = tuple(Step(n, table_index(va, n), gpa, entry, bit_names(entry, n, geometry)) for n, gpa, entry in seen)
    if isinstance(found, Leaf):
        return Route(va, steps, found, _backing(layout, found.gpa), "")
    if found is not None:
        why = f"{steps[-1].table} entry is {'reserved' if found.reserved else 'not present'}"
    return Route(va, steps, None, None, why)


def bit_names(entry: int, level: int, geometry: Geometry) -> tuple[str, ...]:
    """The bits that are set in an entry of `level`, by name, without its address."""
    names = [name for bit, name in _BITS.items() if entry >> bit & 1]
    is_leaf = level == 1 or bool(entry & LARGE)
    if entry & LARGE:
        names.append("PAT" if level == 1 else "PS")
    if level > 1 and is_leaf and entry & 1 << 12:
        names.append("PAT")
    if entry & geometry.c_mask:
        names.append("C")
    names.extend(f"AVL{bit}" for bit in _SOFTWARE if (entry & ~geometry.reserved_mask) >> bit & 1)
    if geometry.levels != PAE_LEVELS and is_leaf and entry >> _KEY_SHIFT & _KEY_BITS:
        names.append(f"MPK={entry >> _KEY_SHIFT & _KEY_BITS}")
    if not entry & PRESENT:
        return ()
    reserved = entry & geometry.reserved_at(level) & ~(LARGE | NO_EXECUTE)
    if level in LEAF_BYTES and level > 1 and is_leaf:
        reserved |= entry & geometry.address_mask & LEAF_BYTES[level] - 1 & ~(1 << 12)
    names.extend(f"reserved{bit}" for bit in range(64) if reserved >> bit & 1)
    return tuple(names)


class Reached(NamedTuple):
    """`va` reaches the memory that was asked for, through `mapping`."""

    va: int
    mapping: Mapping


MAX_REACHED = 4096
"""Virtual addresses that are listed: one page may be mapped more than 10^10 times."""


def reaching_gpa(layout: Layout, gpa: int) -> list[Reached]:
    """Every virtual address that reaches guest-physical `gpa`, up to `MAX_REACHED`. Raises `DumpError` for no GPA."""
    if not 0 <= gpa < 1 << layout.geometry.physical_bits:
        raise DumpError(f"GPA {gpa:#x} is not below {1 << layout.geometry.physical_bits:#x}")
    return _limited(Reached(va, mapping) for mapping in layout.reading.mappings for va in mapping.addresses_of(gpa))


def reaching_memory(layout: Layout, kind: str, address: int) -> list[Reached]:
    """Every virtual address that reaches `address` of `kind` (`ram_addr`, `main GPA`), up to `MAX_REACHED`.

    Raises `DumpError` where nothing is known of what lies behind the guest-physical space.
    """
    if layout.plan is None:
        raise DumpError(f"{kind} {address:#x}: only an image of ours says what lies behind its guest-physical space")
    places = []
    for part in layout.backings:
        start = part.ram_addr if kind == "ram_addr" else part.main_gpa
        if start is not None and start <= address < start + part.size:
            places.append(part.gpa + address - start)
    return _limited(
        Reached(va, mapping)
        for gpa in sorted(set(places))
        for mapping in layout.reading.mappings
        for va in mapping.addresses_of(gpa)
    )


def _limited(found: Iterator[Reached]) -> list[Reached]:
    return [item for _, item in zip(range(MAX_REACHED), found, strict=False)]


def _backing(layout: Layout, gpa: int) -> Backing | None:
    return next((part.part(gpa, gpa + 1) for part in layout.backings if part.gpa <= gpa < part.end), None)
