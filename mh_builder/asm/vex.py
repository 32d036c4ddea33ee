"""Encodes the VEX instructions of the wide kernels: keystone has no VAES and VPCLMULQDQ on ymm registers.

64-bit code only. Encodings: AMD64 APM volume 3, section 1.2 (VEX), volumes 4 and 5 (opcodes); volume 3, section 1.4
and table 1-12 for ModRM and SIB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from mh_builder.asm import expression as ex
from mh_builder.asm import registers
from mh_builder.asm.diagnostics import StatementError
from mh_builder.asm.fragments import Bytes, Field, FieldKind, signed
from mh_builder.asm.operands import Immediate, Memory, Operand, Register

if TYPE_CHECKING:
    from mh_builder.asm.diagnostics import Line

_PREFIXES = {0x00: 0, 0x66: 1, 0xF3: 2, 0xF2: 3}
_XMM, _YMM, _BOTH = (128,), (256,), (128, 256)


class _Form(NamedTuple):
    """One encoding. `operands` has a letter for each, in the order of the source.

    r: ModRM.reg; v: VEX.vvvv; m: register or memory; M: memory only; R: register in ModRM.rm; i: 8-bit number;
    G: 64-bit general register in ModRM.rm, which sets VEX.W.
    """

    operands: str
    prefix: int
    map: int
    opcode: int
    widths: tuple[int, ...] = _BOTH
    """Allowed for VEX.L: the width of the first register, in bits."""
    extension: int = 0
    """ModRM.reg where no operand has it."""
    narrow: str = ""
    """The letters of operands that have 128 bits in any case."""


def _integer(opcode: int, map_: int = 1) -> tuple[_Form, ...]:
    return (_Form("rvm", 0x66, map_, opcode),)


def _move(prefix: int) -> tuple[_Form, ...]:
    return _Form("rm", prefix, 1, 0x6F), _Form("mr", prefix, 1, 0x7F)


def _shift(opcode: int, extension: int) -> tuple[_Form, ...]:
    return (_Form("vRi", 0x66, 1, opcode, extension=extension),)


TABLE: dict[str, tuple[_Form, ...]] = {
    "vaesenc": _integer(0xDC, 2),
    "vaesenclast": _integer(0xDD, 2),
    "vpclmulqdq": (_Form("rvmi", 0x66, 3, 0x44),),
    "vpxor": _integer(0xEF),
    "vpor": _integer(0xEB),
    "vpand": _integer(0xDB),
    "vpandn": _integer(0xDF),
    "vpaddd": _integer(0xFE),
    "vpaddq": _integer(0xD4),
    "vpshufb": _integer(0x00, 2),
    "vpunpcklqdq": _integer(0x6C),
    "vpunpckhqdq": _integer(0x6D),
    "vpcmpeqd": _integer(0x76),
    "vpshufd": (_Form("rmi", 0x66, 1, 0x70),),
    "vpalignr": (_Form("rvmi", 0x66, 3, 0x0F),),
    "vpblendd": (_Form("rvmi", 0x66, 3, 0x02),),
    "vpslld": _shift(0x72, 6),
    "vpsrld": _shift(0x72, 2),
    "vpsllq": _shift(0x73, 6),
    "vpsrlq": _shift(0x73, 2),
    "vpslldq": _shift(0x73, 7),
    "vpsrldq": _shift(0x73, 3),
    "vmovdqa": _move(0x66),
    "vmovdqu": _move(0xF3),
    "vmovq": (_Form("rG", 0x66, 1, 0x6E, _XMM),),
    "vpinsrq": (_Form("rvGi", 0x66, 3, 0x22, _XMM),),
    "vbroadcasti128": (_Form("rM", 0x66, 2, 0x5A, _YMM, narrow="M"),),
    "vinserti128": (_Form("rvmi", 0x66, 3, 0x38, _YMM, narrow="m"),),
    "vextracti128": (_Form("mri", 0x66, 3, 0x39, _YMM, narrow="m"),),
    "vperm2i128": (_Form("rvmi", 0x66, 3, 0x46, _YMM),),
    "vzeroupper": (_Form("", 0, 1, 0x77, _XMM),),
    "vzeroall": (_Form("", 0, 1, 0x77, _YMM),),
}
"""Every VEX instruction of the dialect."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """The operands by the field of the instruction that holds them."""

    length: int
    reg: int
    vvvv: int
    rm: Register | Memory | None
    immediate: Immediate | None


def encode(line: Line, mnemonic: str, column: int, operands: tuple[Operand, ...]) -> Bytes | None:
    """Encode an instruction of the table, or give None for any other. Raises `StatementError`."""
    if mnemonic not in TABLE:
        return None
    for form in TABLE[mnemonic]:
        parts = _match(form, operands)
        if parts:
            return _bytes(line, *_shortest(form, parts))
    raise StatementError(column, f"'{mnemonic}' does not take these operands; its forms are: {_shown(mnemonic)}")


_WORDS = {
    "r": "{0}",
    "v": "{0}",
    "R": "{0}",
    "m": "{0} or memory",
    "M": "memory",
    "G": "64-bit register",
    "i": "number",
}


def _shown(mnemonic: str) -> str:
    shown = []
    for form in TABLE[mnemonic]:
        wide = " or ".join("xmm" if width == 128 else "ymm" for width in form.widths)
        items = (_WORDS[letter].format("xmm" if letter in form.narrow else wide) for letter in form.operands)
        shown.append(", ".join(items) or "none")
    return "; ".join(shown)


def _match(form: _Form, operands: tuple[Operand, ...]) -> _Parts | None:
    """Assign the operands to fields, or give None where they do not fit."""
    if len(operands) != len(form.operands):
        return None
    if not operands:
        return _Parts(form.widths[0], form.extension, 0, None, None)
    length = _length(form, operands)
    if length is None:
        return None
    reg, vvvv = form.extension, 0
    rm: Register | Memory | None = None
    immediate: Immediate | None = None
    for letter, operand in zip(form.operands, operands, strict=True):
        width = 128 if letter in form.narrow else length
        match letter, operand:
            case "r", Register(name):
                reg = _number(name)
            case "v", Register(name):
                vvvv = _number(name)
            case "m" | "R" | "G", Register(name) if _fits(letter, name, width):
                rm = operand
            case "m" | "M", Memory(size) if size in {0, width}:
                rm = operand
            case "i", Immediate():
                immediate = operand
            case _:
                return None
    return _Parts(length, reg, vvvv, rm, immediate)


def _length(form: _Form, operands: tuple[Operand, ...]) -> int | None:
    """Give the bits of the vector registers, if they agree and the form allows them."""
    lengths = {
        registers.BITS[operand.name]
        for letter, operand in zip(form.operands, operands, strict=True)
        if isinstance(operand, Register) and letter not in form.narrow + "G"
    }
    return lengths.pop() if len(lengths) == 1 and lengths <= set(form.widths) else None


def _fits(letter: str, name: str, width: int) -> bool:
    return name in _CODES if letter == "G" else registers.BITS[name] == width and name in registers.VECTOR


def _number(name: str) -> int:
    return _CODES[name] if name in _CODES else int(name[3:])


def _shortest(form: _Form, parts: _Parts) -> tuple[_Form, _Parts]:
    """Store where a load between registers is longer, as GNU `as` does: bit 3 of ModRM.rm needs the long prefix."""
    if form.operands != "rm" or not isinstance(parts.rm, Register) or _number(parts.rm.name) < 8 or parts.reg >= 8:
        return form, parts
    exchanged = Register(f"{parts.rm.name[:3]}{parts.reg}", parts.rm.column)
    return form._replace(opcode=0x7F), replace(parts, reg=_number(parts.rm.name), rm=exchanged)


def _bytes(line: Line, form: _Form, parts: _Parts) -> Bytes:
    tail = 0 if parts.immediate is None else 1
    rex, modrm = 0, b""
    fields: tuple[Field, ...] = ()
    match parts.rm:
        case Register(name):
            number = _number(name)
            rex = number >> 3
            modrm = bytes([0xC0 | (parts.reg & 7) << 3 | number & 7])
        case Memory():
            rex, modrm, fields = _memory(parts.rm, parts.reg & 7, tail)
    head = _vex(form, parts, rex) + bytes([form.opcode])
    moved = tuple(replace(field, offset=field.offset + len(head)) for field in fields)
    data = head + modrm
    if parts.immediate is not None:
        value = parts.immediate
        moved += (Field(len(data), 1, FieldKind.NUMBER, value.value, value.column, 0, 0xFF),)
        data += b"\0"
    return Bytes(line, data, moved)


def _vex(form: _Form, parts: _Parts, rex: int) -> bytes:
    """Make the prefix; `rex` has bit 3 of the index and of the base or register in bits 1 and 0."""
    wide = "G" in form.operands
    low = wide << 7 | (~parts.vvvv & 0xF) << 3 | (parts.length == 256) << 2 | _PREFIXES[form.prefix]
    r = ~parts.reg >> 3 & 1
    if form.map == 1 and not rex and not wide:
        return bytes([0xC5, r << 7 | low])
    return bytes([0xC4, r << 7 | (~rex & 3) << 5 | form.map, low])


def _memory(memory: Memory, reg: int, tail: int) -> tuple[int, bytes, tuple[Field, ...]]:
    """Encode ModRM, SIB and displacement; give the extension bits, the bytes, and the fields among them."""
    if memory.segment:
        raise StatementError(memory.column, "a VEX instruction takes no segment register here")
    if {memory.base, memory.index} & registers.DOUBLE:
        raise StatementError(memory.column, "a VEX instruction takes 64-bit addresses here")
    low, high = signed(4)
    value = memory.displacement
    if isinstance(value, ex.Number) and not low <= value.value <= high:
        raise StatementError(memory.column, f"displacement {value.value:#x} does not fit in 32 bits")
    if memory.base == "rip":
        modrm, kind = bytes([reg << 3 | 5]), FieldKind.RELATIVE
        if isinstance(value, ex.Number):
            kind = FieldKind.NUMBER
        return 0, modrm + bytes(4), (Field(1, 4, kind, value, memory.column, low, high, tail),)
    base = _CODES[memory.base] if memory.base else 5
    index = _CODES[memory.index] if memory.index else 4
    width = _displacement_width(memory, base)
    mode = {0: 0x00, 1: 0x40, 4: 0x80}[width] if memory.base else 0x00
    if memory.index or base & 7 == 4 or not memory.base:
        scale = memory.scale.bit_length() - 1
        modrm = bytes([mode | reg << 3 | 4, scale << 6 | (index & 7) << 3 | base & 7])
    else:
        modrm = bytes([mode | reg << 3 | base & 7])
    rex = (index >> 3) << 1 | base >> 3
    fields: tuple[Field, ...] = ()
    if width:
        bounds = signed(width)
        fields = (Field(len(modrm), width, FieldKind.NUMBER, value, memory.column, *bounds, tail),)
    return rex, modrm + bytes(width), fields


def _displacement_width(memory: Memory, base: int) -> int:
    value = memory.displacement
    if not memory.base or not isinstance(value, ex.Number):
        return 4
    if value.value == 0 and base & 7 != 5:
        return 0
    return 1 if -128 <= value.value <= 127 else 4


_CODES = {name: code for code, name in enumerate(("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"))}
_CODES |= {f"r{code}": code for code in range(8, 16)}
