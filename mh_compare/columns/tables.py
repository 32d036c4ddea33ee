"""Page tables: how large, how they grow, how many translations RAM takes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from mh_builder.helper import build_helper
from mh_builder.paging import GIB, MIB, TIB
from mh_builder.report.layout import RAM
from mh_builder.report.mapping import Mapping
from mh_builder.schemes.space import DEFAULT_RAM_LIMIT, human
from mh_compare.columns.column import Column, Value
from mh_compare.subject import Subject

_SIZES = (GIB, 64 * GIB, TIB, 4 * TIB)
_BUILD = "build.py build --scheme {scheme} --part {part}{flags}"


def table_pages(subject: Subject) -> Value:
    """Pages that page tables take in the image as it is built without options."""
    tables = len(subject.layout.reading.tables)
    return Value(str(tables), tables)


def growth(subject: Subject, ram: int) -> Value:
    """Bytes of page tables of an image for `ram` bytes of guest RAM."""
    size = build_helper(subject.scheme, replace(subject.options, ram_limit=ram)).table_bytes
    return Value(human(size), size)


def small_pages(subject: Subject) -> Value:
    """Bytes of page tables for 64 GiB of RAM where the CPU has no 1 GiB pages."""
    size = build_helper(subject.scheme, replace(subject.options, ram_limit=64 * GIB, largest_page=2 * MIB)).table_bytes
    return Value(human(size), size)


def ram_leaves(subject: Subject) -> Value:
    """Leaves of the walk that map an average GiB of RAM."""
    leaves = sum(_leaves(mapping) for mapping in _ram(subject))
    ram = sum(mapping.size for mapping in _ram(subject))
    return Value(f"{leaves * GIB / ram:.3g}", leaves * GIB / ram)


def worst_leaves(subject: Subject) -> Value:
    """Leaves of the walk that map the GiB of RAM with the most of them: the one with the hole for the helper."""
    counts: dict[int, int] = {}
    for mapping in _ram(subject):
        for va in range(mapping.va, mapping.end, mapping.page_bytes):
            counts[va // GIB] = counts.get(va // GIB, 0) + 1
    return Value(str(max(counts.values())), max(counts.values()))


def helper_leaves(subject: Subject) -> Value:
    """Leaves of the walk that map the helper itself and its ring."""
    leaves = sum(_leaves(region.mapping) for region in subject.layout.regions if region.purpose != RAM)
    return Value(str(leaves), leaves)


def _ram(subject: Subject) -> list[Mapping]:
    return [region.mapping for region in subject.layout.regions if region.purpose == RAM]


def _leaves(mapping: Mapping) -> int:
    return mapping.size // mapping.page_bytes


COLUMNS: tuple[Column[Subject], ...] = (
    Column("table-pages", "page tables for 64 GiB of RAM, in pages", "pages", table_pages),
    *(
        Column(
            f"tables-{human(size).replace(' ', '').lower()}",
            f"page tables for {human(size)} of RAM",
            "bytes",
            partial(growth, ram=size),
            f"{_BUILD} --ram-limit {size:#x} --json",
        )
        for size in _SIZES
    ),
    Column(
        "tables-64gib-2mib",
        "page tables for 64 GiB of RAM without 1 GiB pages",
        "bytes",
        small_pages,
        f"{_BUILD} --ram-limit 64G --largest-page 2M --json",
    ),
    Column("tlb-ram", f"translations for a GiB of RAM, averaged over {human(DEFAULT_RAM_LIMIT)}", "leaves", ram_leaves),
    Column("tlb-hole", "translations for the GiB with the helper's hole", "leaves", worst_leaves),
    Column("tlb-helper", "translations for the helper and its ring", "leaves", helper_leaves),
)
