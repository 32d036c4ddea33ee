"""What a picture of one layout shows: virtual addresses, mirror GPA, main GPA, DRAM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mh_abi.errors import MigrationHelperError
from mh_builder.paging import GIB
from mh_builder.report.chart import (
    BREAK_HEIGHT,
    Band,
    Chain,
    Column,
    Detail,
    Gap,
    Look,
    Picture,
    Shape,
    height,
    rounded,
    stack,
    unmapped,
    unmapped_virtual,
)
from mh_builder.report.layout import VMSAS, Backing, Layout, Plan, Region
from mh_builder.schemes.space import HOME_LIMIT, PCI_HOLE, Range

PCI_HOLE_END = 4 * GIB
"""q35 continues RAM here; below, from `HOME_LIMIT` on, it has devices (hw/i386/pc_q35.c)."""


class NoPictureError(MigrationHelperError, ValueError):
    """A layout of which nothing is known but its page tables."""


def picture(layout: Layout) -> Picture:
    """Place everything, for a guest whose RAM ends where the layout does. Raises `NoPictureError` without a plan."""
    plan = layout.plan
    if plan is None:
        raise NoPictureError(f"{layout.name}: only an image of ours says what lies behind its guest-physical space")
    chains = tuple(chain for region in layout.regions for chain in _chains(region))
    geometry = layout.geometry
    c_bit = "no C-bit" if geometry.c_bit is None else f"C-bit {geometry.c_bit}"
    columns = (
        ("virtual", f"{geometry.levels}-level tables of the helper", Detail.PAGES),
        ("mirror GPA", f"{geometry.physical_bits} bits, {c_bit}", Detail.SIZE),
        ("main GPA", "what the guest's own OS sees", Detail.NOTHING),
        ("DRAM", "by ram_addr", Detail.NOTHING),
    )
    return Picture(
        layout.name,
        chains,
        tuple(Column(*column, tuple(_bands(number, chains, layout, plan))) for number, column in enumerate(columns)),
    )


def _chains(region: Region) -> Iterator[Chain]:
    mapping = region.mapping
    for part in _completed(region.backing):
        cut = (
            mapping
            if mapping.period
            else mapping._replace(va=mapping.va + part.gpa - mapping.gpa, gpa=part.gpa, size=part.size)
        )
        places = (cut.va, cut.gpa, part.main_gpa, part.ram_addr)
        chain = Chain(Region(region.purpose, cut, part), places, part.size, look_of(cut.private))
        is_empty = places[2:] == (None, None) and not _is_mirrors(chain)
        yield chain._replace(look=Look.EMPTY) if is_empty else chain


def look_of(private: bool) -> Look:  # noqa: FBT001 - the view
    """How memory of that view is drawn."""
    return Look.PRIVATE if private else Look.SHARED


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


def _bands(column: int, chains: Sequence[Chain], layout: Layout, plan: Plan) -> Iterator[Band]:
    """The bands of a column; those of DRAM end with what only the mirror has."""
    default = unmapped_virtual(layout.geometry.levels) if column == 0 else unmapped
    bands = list(stack(column, chains, _gaps(column, plan, default)))
    yield from bands
    if column == 3:
        yield from _mirror_only(chains, bands[-1].top + bands[-1].height if bands else 0.0)


def _mirror_only(chains: Sequence[Chain], top: float) -> Iterator[Band]:
    """Memory that has neither main GPA nor `ram_addr`: pages that only the mirror maps."""
    numbers = [number for number, chain in enumerate(chains) if _is_mirrors(chain)]
    if numbers:
        yield Band(0, 0, top, BREAK_HEIGHT, None, "only the mirror's:", Shape.NOTE)
        top += BREAK_HEIGHT
    for number in numbers:
        chain = chains[number]
        tall = height(chain.size)
        yield Band(0, chain.size, top, tall, number, chain.region.purpose, Shape.BAR)
        top += tall


def _is_mirrors(chain: Chain) -> bool:
    purpose = chain.region.purpose
    is_known = chain.region.backing is not None and (purpose.startswith(".") or purpose == VMSAS)
    return is_known and chain.places[2:] == (None, None)


def _gaps(column: int, plan: Plan, default: Gap) -> Gap:
    """As `default`, with names for what an image leaves out."""

    def gap(start: int, end: int, top: float) -> Band:
        band = default(start, end, top)
        if band.shape is Shape.GUARD:
            return band
        if column == 2 and (start, end) == (HOME_LIMIT, PCI_HOLE_END):
            return band._replace(words=f"{rounded(band.size)} PCI hole")
        if hole := _protected(column, start, plan):
            return band._replace(words=f"{rounded(band.size)} {'PCI hole' if hole == PCI_HOLE else 'hole: helper'}")
        return band

    return gap


def _protected(column: int, address: int, plan: Plan) -> Range | None:
    """Which of the request addresses that the helper refuses lie there."""
    named = address - (plan.window_va, plan.window, 0, 0)[column]
    return next((part for part in plan.protected if part.start <= named < part.end), None)
