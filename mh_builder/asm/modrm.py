"""Encodes memory operands of vector instructions: ModRM, SIB and displacement, for 64-bit code.

Source: AMD64 APM volume 3, section 1.4 and table 1-12; the unit of a short displacement is EVEX's, Intel SDM volume 2,
section 2.7.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mh_builder.asm import expression as ex
from mh_builder.asm import registers
from mh_builder.asm.diagnostics import StatementError
from mh_builder.asm.fragments import Field, FieldKind, signed

if TYPE_CHECKING:
    from mh_builder.asm.operands import Memory

GENERAL = {name: code for code, name in enumerate(("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"))}
GENERAL |= {f"r{code}": code for code in range(8, 16)}
"""The 64-bit general registers by their number."""


def memory_operand(memory: Memory, reg: int, tail: int, unit: int = 1) -> tuple[int, bytes, tuple[Field, ...]]:
    """Encode ModRM, SIB and displacement; give the extension bits, the bytes, and the fields among them.

    `reg` is ModRM.reg, `tail` the bytes of the instruction behind, `unit` the bytes of a short displacement's unit.
    The extension bits are bit 3 of the index and of the base, in bits 1 and 0. Raises `StatementError`.
    """
    if memory.segment:
        raise StatementError(memory.column, "a vector instruction takes no segment register here")
    if {memory.base, memory.index} & registers.DOUBLE:
        raise StatementError(memory.column, "a vector instruction takes 64-bit addresses here")
    low, high = signed(4)
    value = memory.displacement
    if isinstance(value, ex.Number) and not low <= value.value <= high:
        raise StatementError(memory.column, f"displacement {value.value:#x} does not fit in 32 bits")
    if memory.base == "rip":
        modrm, kind = bytes([reg << 3 | 5]), FieldKind.RELATIVE
        if isinstance(value, ex.Number):
            kind = FieldKind.NUMBER
        return 0, modrm + bytes(4), (Field(1, 4, kind, value, memory.column, low, high, tail),)
    base = GENERAL[memory.base] if memory.base else 5
    index = GENERAL[memory.index] if memory.index else 4
    width = _displacement_width(memory, base, unit)
    mode = {0: 0x00, 1: 0x40, 4: 0x80}[width] if memory.base else 0x00
    if memory.index or base & 7 == 4 or not memory.base:
        scale = memory.scale.bit_length() - 1
        modrm = bytes([mode | reg << 3 | 4, scale << 6 | (index & 7) << 3 | base & 7])
    else:
        modrm = bytes([mode | reg << 3 | base & 7])
    rex = (index >> 3) << 1 | base >> 3
    fields: tuple[Field, ...] = ()
    if width:
        if width == 1 and isinstance(value, ex.Number):
            value = ex.Number(value.value // unit, value.column)
        fields = (Field(len(modrm), width, FieldKind.NUMBER, value, memory.column, *signed(width), tail),)
    return rex, modrm + bytes(width), fields


def _displacement_width(memory: Memory, base: int, unit: int) -> int:
    value = memory.displacement
    if not memory.base or not isinstance(value, ex.Number):
        return 4
    if value.value == 0 and base & 7 != 5:
        return 0
    return 1 if value.value % unit == 0 and -128 <= value.value // unit <= 127 else 4
