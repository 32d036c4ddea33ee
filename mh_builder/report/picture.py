"""What a picture of a layout shows: one chain of places for each mapping, and where each place is drawn.

Heights grow with the logarithm of sizes: a page takes 13 units, every doubling 1.5 more. Gaps are breaks of one
height, whatever their size, except a single page, which is to scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mh_abi.errors import MigrationHelperError
from mh_builder.paging import GIB, PAGE_BYTES, level_shift
from mh_builder.report.layout import VMSAS, Backing, Layout, Plan, Region
from mh_builder.schemes.space import HOME_LIMIT, PCI_HOLE, Range, human

PCI_HOLE_END = 4 * GIB
"""q35 continues RAM here; below, from `HOME_LIMIT` on, it has devices (hw/i386/pc_q35.c)."""

_PAGE_HEIGHT, _DOUBLING_HEIGHT, _BREAK_HEIGHT = 13.0, 1.5, 26.0


class Chain(NamedTuple):
    """One mapping with one purpose, and its address in each column; None: it has none there."""

    region: Region
    places: tuple[int | None, ...]
    size: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing lies behind it: addresses that requests may name, at which a q35 has no RAM."""
        return self.places[2:] == (None, None) and not _is_mirrors(self)


class Shape(Enum):
    """As what a band is drawn."""

    BAR = "bar"
    BREAK = "break"
    """Nothing, of any size."""
    GUARD = "guard"
    """A page that is not mapped, to scale."""
    NOTE = "note"
    """A heading for what follows."""


class Band(NamedTuple):
    """What is drawn for a range of a column: `chain` is its number, None for what no mapping reaches."""

    start: int
    size: int
    top: float
    height: float
    chain: int | None
    words: str
    shape: Shape

    @property
    def end(self) -> int:
        """First address behind."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Column:
    """One address space of the picture, by address."""

    title: str
    note: str
    bands: tuple[Band, ...]

    def find(self, start: int, size: int) -> tuple[float, float] | None:
        """(top, height) of a range that lies within one band; None where nothing is drawn there."""
        for band in self.bands:
            if band.chain is not None and band.start <= start and start + size <= band.end:
                scale = band.height / band.size
                return band.top + (start - band.start) * scale, size * scale
        return None

    @property
    def height(self) -> float:
        """Units from the top."""
        return max((band.top + band.height for band in self.bands), default=0.0)


@dataclass(frozen=True, slots=True)
class Picture:
    """Four columns: virtual, mirror GPA, main GPA, DRAM."""

    layout: Layout
    plan: Plan
    chains: tuple[Chain, ...]
    columns: tuple[Column, ...]


class NoPictureError(MigrationHelperError, ValueError):
    """A layout of which nothing is known but its page tables."""


def picture(layout: Layout) -> Picture:
    """Place everything, for a guest whose RAM ends where the layout does. Raises `NoPictureError` without a plan."""
    if layout.plan is None:
        raise NoPictureError(f"{layout.name}: only an image of ours says what lies behind its guest-physical space")
    chains = tuple(chain for region in layout.regions for chain in _chains(region))
    geometry = layout.geometry
    c_bit = "no C-bit" if geometry.c_bit is None else f"C-bit {geometry.c_bit}"
    titles = (
        ("virtual", f"{geometry.levels}-level tables of the helper"),
        ("mirror GPA", f"{geometry.physical_bits} bits, {c_bit}"),
        ("main GPA", "what the guest's own OS sees"),
        ("DRAM", "by ram_addr"),
    )
    columns = tuple(
        Column(title, note, tuple(_stack(number, chains, layout))) for number, (title, note) in enumerate(titles)
    )
    return Picture(layout, layout.plan, chains, columns)


def _chains(region: Region) -> Iterator[Chain]:
    mapping = region.mapping
    for part in _completed(region.backing):
        cut = (
            mapping
            if mapping.period
            else mapping._replace(va=mapping.va + part.gpa - mapping.gpa, gpa=part.gpa, size=part.size)
        )
        places = (cut.va, cut.gpa, part.main_gpa, part.ram_addr)
        yield Chain(Region(region.purpose, cut, part), places, part.size)


def _completed(backing: Backing | None) -> Iterator[Backing]:
    """The backing with both addresses, where RAM is `HOME_LIMIT` bytes below the PCI hole and the rest above."""
    if backing is None:
        return
    if backing.main_gpa is None and backing.ram_addr is not None and backing.ram_addr >= HOME_LIMIT:
        yield backing._replace(main_gpa=backing.ram_addr - HOME_LIMIT + PCI_HOLE_END)
    elif backing.ram_addr is None and backing.main_gpa is not None:
        hole = min(max(0, PCI_HOLE_END - backing.main_gpa), backing.size)
        if hole:
            yield Backing(backing.gpa, hole, None, None)
        if hole < backing.size:
            above = backing.part(backing.gpa + hole, backing.end)
            yield above._replace(ram_addr=backing.main_gpa + hole - PCI_HOLE_END + HOME_LIMIT)
    else:
        yield backing


def _stack(column: int, chains: Sequence[Chain], layout: Layout) -> Iterator[Band]:
    """The bands of a column, from address 0."""
    placed = sorted(
        (place, number) for number, chain in enumerate(chains) if (place := chain.places[column]) is not None
    )
    top, position = 0.0, 0
    for start, number in placed:
        chain = chains[number]
        if start > position:
            gap = _gap(column, position, start, top, layout)
            yield gap
            top += gap.height
        # What two mappings reach is drawn once.
        if start + chain.size > position:
            height = _height(chain.size)
            yield Band(start, chain.size, top, height, number, chain.region.purpose, Shape.BAR)
            top += height
            position = start + chain.size
    if column == 3:
        yield from _mirror_only(chains, top)


def _mirror_only(chains: Sequence[Chain], top: float) -> Iterator[Band]:
    """Memory that has neither main GPA nor `ram_addr`: pages that only the mirror maps."""
    numbers = [number for number, chain in enumerate(chains) if _is_mirrors(chain)]
    if numbers:
        yield Band(0, 0, top, _BREAK_HEIGHT, None, "only the mirror's:", Shape.NOTE)
        top += _BREAK_HEIGHT
    for number in numbers:
        chain = chains[number]
        height = _height(chain.size)
        yield Band(0, chain.size, top, height, number, chain.region.purpose, Shape.BAR)
        top += height


def _is_mirrors(chain: Chain) -> bool:
    purpose = chain.region.purpose
    is_known = chain.region.backing is not None and (purpose.startswith(".") or purpose == VMSAS)
    return is_known and chain.places[2:] == (None, None)


def _gap(column: int, start: int, end: int, top: float, layout: Layout) -> Band:
    size = end - start
    if size == PAGE_BYTES:
        return Band(start, size, top, _PAGE_HEIGHT, None, "guard", Shape.GUARD)
    words = f"{rounded(size)} not mapped"
    if column == 0 and start < 1 << level_shift(layout.geometry.levels + 1) - 1 < end:
        return Band(start, size, top, _BREAK_HEIGHT, None, "not canonical", Shape.BREAK)
    if column == 2 and (start, end) == (HOME_LIMIT, PCI_HOLE_END):
        words = f"{rounded(size)} PCI hole"
    elif hole := _protected(column, start, layout):
        words = f"{rounded(size)} {'PCI hole' if hole == PCI_HOLE else 'hole: helper'}"
    return Band(start, size, top, _BREAK_HEIGHT, None, words, Shape.BREAK)


def _protected(column: int, address: int, layout: Layout) -> Range | None:
    """Which of the request addresses that the helper refuses lie there."""
    plan = layout.plan
    if plan is None:
        return None
    named = address - (plan.window_va, plan.window, 0, 0)[column]
    return next((part for part in plan.protected if part.start <= named < part.end), None)


def rounded(size: int) -> str:
    """`size` in bytes to three digits: 6.18 MiB."""
    number, _, unit = human(size).partition(" ")
    return f"{float(number):.3g} {unit}"


def _height(size: int) -> float:
    return _PAGE_HEIGHT + _DOUBLING_HEIGHT * max(0, (size // PAGE_BYTES).bit_length() - 1)
