"""The forms of a vector instruction: which of its operands goes into which field, whatever the prefix is.

Source: AMD64 APM volume 3, section 1.2 (VEX); Intel SDM volume 2, section 2.7 (EVEX).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from mh_builder.asm import registers
from mh_builder.asm.fragments import Bytes, Field, FieldKind
from mh_builder.asm.modrm import GENERAL, memory_operand
from mh_builder.asm.operands import Immediate, Memory, Operand, Register

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mh_builder.asm.diagnostics import Line

PREFIXES = {0x00: 0, 0x66: 1, 0xF3: 2, 0xF2: 3}
"""Legacy prefix -> the field that stands for it."""

_BANKS = {128: "xmm", 256: "ymm", 512: "zmm"}


class Form(NamedTuple):
    """One encoding. `operands` has a letter for each, in the order of the source.

    r: ModRM.reg; v: the prefix's vvvv; m: register or memory; M: memory only; R: register in ModRM.rm; i: 8-bit number;
    G: 64-bit general register in ModRM.rm.
    """

    operands: str
    prefix: int
    map: int
    opcode: int
    widths: tuple[int, ...]
    """Allowed for the prefix's length: the width of the first register, in bits."""
    w: int = 0
    """The prefix's W."""
    extension: int = 0
    """ModRM.reg where no operand has it."""
    narrow: str = ""
    """The letters of operands that have `narrow_bits` in any case."""
    narrow_bits: int = 128


@dataclass(frozen=True, slots=True)
class Parts:
    """The operands by the field of the instruction that holds them."""

    length: int
    reg: int
    vvvv: int
    rm: Register | Memory | None
    immediate: Immediate | None


def match(form: Form, operands: tuple[Operand, ...]) -> Parts | None:
    """Assign the operands to fields, or give None where they do not fit."""
    if len(operands) != len(form.operands):
        return None
    if not operands:
        return Parts(form.widths[0], form.extension, 0, None, None)
    length = _length(form, operands)
    if length is None:
        return None
    reg, vvvv = form.extension, 0
    rm: Register | Memory | None = None
    immediate: Immediate | None = None
    for letter, operand in zip(form.operands, operands, strict=True):
        width = form.narrow_bits if letter in form.narrow else length
        match letter, operand:
            case "r", Register(name):
                reg = number(name)
            case "v", Register(name):
                vvvv = number(name)
            case "m" | "R" | "G", Register(name) if _fits(letter, name, width):
                rm = operand
            case "m" | "M", Memory(size) if size in {0, width}:
                rm = operand
            case "i", Immediate():
                immediate = operand
            case _:
                return None
    return Parts(length, reg, vvvv, rm, immediate)


_WORDS = {
    "r": "{0}",
    "v": "{0}",
    "R": "{0}",
    "m": "{0} or memory",
    "M": "memory",
    "G": "64-bit register",
    "i": "number",
}


def shown(forms: Sequence[Form]) -> str:
    """The operands that the forms take, for messages."""
    found = []
    for form in forms:
        wide = " or ".join(_BANKS[width] for width in form.widths)
        narrow = _BANKS[form.narrow_bits]
        items = (_WORDS[letter].format(narrow if letter in form.narrow else wide) for letter in form.operands)
        found.append(", ".join(items) or "none")
    return "; ".join(found)


def number(name: str) -> int:
    """The number of a general or vector register."""
    return GENERAL[name] if name in GENERAL else int(name[3:])


def operand_bytes(parts: Parts, unit: int = 1) -> tuple[int, bytes, tuple[Field, ...]]:
    """What the prefix has of the operand in ModRM.rm; ModRM, SIB and displacement; the fields among these.

    The first is, of a register, its bits 4 and 3, and of memory bit 3 of the index and of the base. `unit` is what a
    short displacement counts in, in bytes. Raises `StatementError`.
    """
    match parts.rm:
        case Register(name):
            register = number(name)
            return register >> 3, bytes([0xC0 | (parts.reg & 7) << 3 | register & 7]), ()
        case Memory():
            return memory_operand(parts.rm, parts.reg & 7, 0 if parts.immediate is None else 1, unit)
        case None:
            return 0, b"", ()


def instruction(line: Line, head: bytes, rest: bytes, fields: tuple[Field, ...], immediate: Immediate | None) -> Bytes:
    """Put together: prefix and opcode, then what `operand_bytes` gave, then the number."""
    moved = tuple(replace(field, offset=field.offset + len(head)) for field in fields)
    data = head + rest
    if immediate is not None:
        moved += (Field(len(data), 1, FieldKind.NUMBER, immediate.value, immediate.column, 0, 0xFF),)
        data += b"\0"
    return Bytes(line, data, moved)


def _length(form: Form, operands: tuple[Operand, ...]) -> int | None:
    """Give the bits of the vector registers, if they agree and the form allows them."""
    lengths = {
        registers.BITS[operand.name]
        for letter, operand in zip(form.operands, operands, strict=True)
        if isinstance(operand, Register) and letter not in form.narrow + "G"
    }
    return lengths.pop() if len(lengths) == 1 and lengths <= set(form.widths) else None


def _fits(letter: str, name: str, width: int) -> bool:
    return name in GENERAL if letter == "G" else registers.BITS[name] == width and name in registers.VECTOR
