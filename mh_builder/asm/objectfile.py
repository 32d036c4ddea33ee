"""What the assembler makes of one source file: sections, symbols and relocations."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

SECTION_NAMES = (".text", ".rodata", ".data", ".bss", ".vcpu")
"""The sections a source file may fill; instructions go to `.text` only."""

EMPTY_SECTIONS = (".bss", ".vcpu")
"""Those that hold no bytes; the linker makes `.vcpu` once for every vCPU."""


class RelocationKind(Enum):
    """How the linker computes a field from S (the symbol), A (the addend) and P (the field's own address)."""

    REL32 = "rel32"
    """32 bits, S + A - P; A accounts for the bytes between the field and the end of its instruction."""
    ABS32 = "abs32"
    """32 bits, S + A, which must fit unsigned."""
    ABS64 = "abs64"
    """64 bits, S + A."""
    GATE = "gate"
    """An IDT gate of 16 bytes: S + A in the three parts of its offset."""
    PRIVATE64 = "private64"
    """64 bits, S + A with the C-bit set."""


@dataclass(frozen=True, slots=True)
class Relocation:
    """A field at `offset` bytes into its section that waits for `symbol`; `place` is the source's "file:line"."""

    offset: int
    kind: RelocationKind
    symbol: str
    addend: int
    place: str


@dataclass(frozen=True, slots=True)
class Section:
    """Contents of one section; `size` and `align` are in bytes, `size` exceeds `len(data)` in empty sections only."""

    name: str
    data: bytes
    size: int
    align: int
    relocations: tuple[Relocation, ...]
    places: tuple[tuple[int, int, str], ...] = ()
    """(offset, bytes, the source's "file:line") of every statement that made bytes."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name; `value` is an offset into `section`, or the number itself where `section` is None."""

    name: str
    section: str | None
    value: int
    is_global: bool


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """One assembled file; `undefined` are the `.extern` names that its relocations use.

    `sections` holds the sections the source entered, in the order of `SECTION_NAMES`. Names of symbols are unique
    in the file; those that are not global (`.Lname`, and `1@2` for the second `1:`) mean nothing outside it.
    Other predefined symbols make no difference to it than those that are `asked` for.
    """

    name: str
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    undefined: tuple[str, ...]
    asked: frozenset[str]
