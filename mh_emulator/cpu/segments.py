"""Segment registers in a saved context of unicorn, and the summary of the mode that QEMU derives from them.

Source: QEMU, target/i386/cpu.h (SegmentCache, HF_*) and target/i386/cpu.c (x86_update_hflags).
"""

from __future__ import annotations

import ctypes
import struct
from typing import NamedTuple

from mh_emulator.cpu.registers import CR0_PE, EFER_LMA, RFLAGS_VM, SEGMENT_NAMES, Hidden, Registers, Segments

SEGMENT_BYTES = 24
_SEGMENT = struct.Struct("<I4xQII")
_ALL_BYTES = SEGMENT_BYTES * len(SEGMENT_NAMES)

_HF_INHIBIT_IRQ = 1 << 3
_HF_CPL, _HF_CS32, _HF_SS32, _HF_ADDSEG, _HF_CS64 = 3, 1 << 4, 1 << 5, 1 << 6, 1 << 15
_HF_OURS = _HF_CPL | _HF_CS32 | _HF_SS32 | _HF_ADDSEG | _HF_CS64
_LONG, _BIG = 1 << 9, 1 << 10
"""L and D or B of `Hidden.attributes`."""


class Read(NamedTuple):
    """Selectors and bases by name, and the rest."""

    selectors: dict[str, int]
    bases: dict[str, int]
    hidden: Segments


def read(address: int) -> Read:
    """What lies at `address` of this process: QEMU's array of segments."""
    found = dict(zip(SEGMENT_NAMES, _SEGMENT.iter_unpack(ctypes.string_at(address, _ALL_BYTES)), strict=True))
    return Read(
        {name: selector for name, (selector, _, _, _) in found.items()},
        {f"{name}_base": base for name, (_, base, _, _) in found.items()},
        Segments(*(Hidden(limit, from_descriptor(flags)) for _, _, limit, flags in found.values())),
    )


def write(address: int, registers: Registers) -> None:
    """Put the segments of `registers` into that array."""
    data = b"".join(
        _SEGMENT.pack(getattr(registers, name), getattr(registers, f"{name}_base"), limit, to_descriptor(attributes))
        for name, (limit, attributes) in zip(SEGMENT_NAMES, registers.hidden, strict=True)
    )
    ctypes.memmove(address, data, _ALL_BYTES)


def summary(before: int, registers: Registers) -> int:
    """QEMU's hflags, as far as segments decide them; all else is as `before`."""
    cs, ss = registers.hidden.cs.attributes, registers.hidden.ss.attributes
    flags = registers.privilege
    if registers.efer & EFER_LMA and cs & _LONG:
        return before & ~_HF_OURS | flags | _HF_CS32 | _HF_SS32 | _HF_CS64
    flags |= (_HF_CS32 if cs & _BIG else 0) | (_HF_SS32 if ss & _BIG else 0)
    is_flat = not (registers.ds_base or registers.es_base or registers.ss_base)
    if not (registers.cr0 & CR0_PE and flags & _HF_CS32 and is_flat) or registers.rflags & RFLAGS_VM:
        flags |= _HF_ADDSEG
    return before & ~_HF_OURS | flags


def is_64_bit(hflags: int) -> bool:
    """Whether instructions are those of 64-bit mode."""
    return bool(hflags & _HF_CS64)


def is_in_shadow(hflags: int) -> bool:
    """Whether interrupts wait for the end of one more instruction."""
    return bool(hflags & _HF_INHIBIT_IRQ)


def without_shadow(hflags: int) -> int:
    """Behind that instruction."""
    return hflags & ~_HF_INHIBIT_IRQ


def from_descriptor(flags: int) -> int:
    """Bits 55:52 and 47:40 of a descriptor, given as its upper half, as one 12-bit number."""
    return flags >> 8 & 0xFF | flags >> 12 & 0xF00


def to_descriptor(attributes: int) -> int:
    """The inverse; all other bits are zero."""
    return (attributes & 0xFF) << 8 | (attributes & 0xF00) << 12
