"""Descriptors of code segments, as the delivery of events looks at them.

Source: AMD64 APM volume 2, sections 4.7 (legacy descriptors), 4.8 (long mode) and 4.9 (checks).
"""

from __future__ import annotations

from dataclasses import dataclass

from mh_emulator.cpu.mmu import VECTOR_GP, VECTOR_NP, GuestFault, Mmu, Mode
from mh_emulator.cpu.registers import Hidden, Registers, Table
from mh_emulator.cpu.segments import from_descriptor

_CODE, _CONFORMING, _PRESENT = 0x018, 0x004, 0x080
LONG, BIG, _GRANULAR = 0x200, 0x400, 0x800
_PAGE_SHIFT = 12


@dataclass(frozen=True, slots=True)
class Descriptor:
    """That of `selector`."""

    selector: int
    base: int
    hidden: Hidden

    @property
    def dpl(self) -> int:
        """Privilege level."""
        return self.hidden.attributes >> 5 & 3

    def enter(self, level: int, error: int, sizes: int) -> int:
        """The level at which code in it runs, coming from `level`; `sizes` is what L and D have to be.

        Raises `GuestFault` with that error code.
        """
        attributes = self.hidden.attributes
        if attributes & _CODE != _CODE or attributes & (LONG | BIG) != sizes or self.dpl > level:
            raise GuestFault(VECTOR_GP, error)
        if not attributes & _PRESENT:
            raise GuestFault(VECTOR_NP, error)
        return level if attributes & _CONFORMING else self.dpl


def read_descriptor(selector: int, registers: Registers, mmu: Mmu, mode: Mode, external: int) -> Descriptor:
    """The descriptor in GDT or LDT. Raises `GuestFault`; `external` is EXT of its error code."""
    if not selector & ~3:
        raise GuestFault(VECTOR_GP, external)
    in_ldt = selector & 4
    table = Table(registers.ldtr.base, registers.ldtr.limit) if in_ldt else registers.gdtr
    if (selector | 7) > table.limit:
        raise GuestFault(VECTOR_GP, selector & ~3 | external)
    entry = int.from_bytes(mmu.read(table.base + (selector & ~7), 8, mode), "little")
    attributes = from_descriptor(entry >> 32)
    limit = entry & 0xFFFF | entry >> 32 & 0xF_0000
    if attributes & _GRANULAR:
        limit = limit << _PAGE_SHIFT | (1 << _PAGE_SHIFT) - 1
    base = entry >> 16 & 0xFF_FFFF | entry >> 32 & 0xFF00_0000
    return Descriptor(selector, base, Hidden(limit, attributes))
