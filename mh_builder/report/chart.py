"""What any picture of address spaces consists of: chains of places, and the columns in which each place is drawn.

Heights grow with the logarithm of sizes: a page takes 13 units, every doubling 1.5 more. Gaps are breaks of one
height, whatever their size, except a single page, which is to scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mh_builder.paging import PAGE_BYTES, level_shift
from mh_builder.report.layout import Region
from mh_builder.schemes.space import human

PAGE_HEIGHT, _DOUBLING_HEIGHT, BREAK_HEIGHT = 13.0, 1.5, 26.0


class Look(Enum):
    """As what a chain is drawn."""

    PRIVATE = "private"
    SHARED = "shared"
    PLAIN = "plain"
    """Mapped, where there is no C-bit."""
    EMPTY = "empty"
    """Addresses that requests may name, and nothing behind them."""


class Chain(NamedTuple):
    """One mapping with one purpose, and its address in each column; None: it has none there."""

    region: Region
    places: tuple[int | None, ...]
    size: int
    look: Look
    changed: str = ""
    """What is different in another layout; empty where nothing is, or where there is no other."""


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


class Detail(Enum):
    """What a bar says beside the name, where there is room."""

    PAGES = "pages"
    """Rights, and of RAM the size of pages."""
    RIGHTS = "rights"
    SIZE = "size"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Column:
    """One address space of the picture, by address."""

    title: str
    note: str
    detail: Detail
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
    """Columns side by side, and the chains through them."""

    name: str
    chains: tuple[Chain, ...]
    columns: tuple[Column, ...]


Gap = Callable[[int, int, float], Band]
"""What is drawn from an address to another, at some height."""


def stack(column: int, chains: Sequence[Chain], gap: Gap) -> Iterator[Band]:
    """The bands of a column, from address 0."""
    placed = sorted(
        (place, number) for number, chain in enumerate(chains) if (place := chain.places[column]) is not None
    )
    top, position = 0.0, 0
    for start, number in placed:
        chain = chains[number]
        if start > position:
            band = gap(position, start, top)
            yield band
            top += band.height
        # What two mappings reach is drawn once.
        if start + chain.size > position:
            tall = height(chain.size)
            yield Band(start, chain.size, top, tall, number, chain.region.purpose, Shape.BAR)
            top += tall
            position = start + chain.size


def unmapped(start: int, end: int, top: float) -> Band:
    """Nothing; a single page of it is a guard."""
    size = end - start
    if size == PAGE_BYTES:
        return Band(start, size, top, PAGE_HEIGHT, None, "guard", Shape.GUARD)
    return Band(start, size, top, BREAK_HEIGHT, None, f"{rounded(size)} not mapped", Shape.BREAK)


def unmapped_virtual(levels: int) -> Gap:
    """As `unmapped`, where the middle of the address space cannot be mapped."""
    middle = 1 << level_shift(levels + 1) - 1

    def gap(start: int, end: int, top: float) -> Band:
        band = unmapped(start, end, top)
        return band._replace(words="not canonical") if start < middle < end else band

    return gap


def rounded(size: int) -> str:
    """`size` in bytes to three digits, or as many as stand before the point: 6.18 MiB, 1020 GiB."""
    number, _, unit = human(size).partition(" ")
    return f"{float(number):.{3 if float(number) < 1000 else 4}g} {unit}"


def height(size: int) -> float:
    """Units for so many bytes."""
    return PAGE_HEIGHT + _DOUBLING_HEIGHT * max(0, (size // PAGE_BYTES).bit_length() - 1)
