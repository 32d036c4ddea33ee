"""A finished image: frozen after link."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cached_property

from mh_builder.paging import PAGE_BYTES
from mh_builder.schemes.space import HELPER_VA, SHARED_OFFSET, AddressSpace


@dataclass(frozen=True, slots=True)
class Piece:
    """What one object contributes to a section; offset and size in bytes from the section's start."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class PlacedSection:
    """`size` bytes at `offset` from the image's base, page-aligned; `stored` of them are in the file."""

    name: str
    offset: int
    size: int
    _: KW_ONLY
    stored: int
    writable: bool
    executable: bool
    private: bool
    pieces: tuple[Piece, ...] = ()

    @property
    def va(self) -> int:
        """Virtual address at which the helper sees the section."""
        return HELPER_VA + self.offset + (0 if self.private else SHARED_OFFSET)

    @property
    def pages(self) -> int:
        """4 KiB pages that the section takes."""
        return -(-self.size // PAGE_BYTES)

    @property
    def rights(self) -> str:
        """As `ls` would write it: r-x, rw-, r--."""
        return f"r{'w' if self.writable else '-'}{'x' if self.executable else '-'}"


def vcpu_section(name: str, number: int) -> str:
    """What the section `name` of vCPU `number` is called: the first one has no suffix."""
    return f"{name}.{number}" if number else name


@dataclass(frozen=True, slots=True)
class PlacedSymbol:
    """A symbol of the finished image: a virtual address in `section`, or a number where `section` is None."""

    name: str
    value: int
    section: str | None
    is_global: bool
    origin: str
    """The object that defines it, or `linker`."""


MAX_RUN = 0xFFFF
"""Words that one relocation may name (struct mh_relocation)."""


@dataclass(frozen=True, slots=True)
class ImageRelocation:
    """`count` consecutive 64-bit words at `offset`, to be changed by a loader as `kinds` says (abi.h)."""

    offset: int
    count: int
    kinds: int

    @property
    def end(self) -> int:
        """Offset behind the last of them."""
        return self.offset + 8 * self.count


@dataclass(frozen=True)
class Image:
    """The helper with its page tables, for one address space, at its link base."""

    space: AddressSpace
    sections: tuple[PlacedSection, ...]
    symbols: tuple[PlacedSymbol, ...]
    relocations: tuple[ImageRelocation, ...]
    data: bytes
    """The flat binary: every stored section."""

    @cached_property
    def _by_name(self) -> dict[str, PlacedSection]:
        return {section.name: section for section in self.sections}

    def section(self, name: str) -> PlacedSection:
        """The section called `name`; `KeyError` without one."""
        return self._by_name[name]

    @property
    def table_bytes(self) -> int:
        """Bytes of page tables."""
        return self.section(".tables").size

    @property
    def memory_bytes(self) -> int:
        """Bytes that the helper occupies in memory, ring included."""
        return self.space.memory_bytes

    def symbol(self, name: str) -> PlacedSymbol:
        """The global symbol called `name`; `KeyError` without one."""
        for symbol in self.symbols:
            if symbol.name == name and symbol.is_global:
                return symbol
        raise KeyError(name)
