"""Encodes the EVEX instructions of the widest kernel: those on zmm registers, and on registers above number 15.

64-bit code only, without masks, rounding and broadcasts. What VEX has too gets EVEX only where an operand needs it, as
from GNU `as`. Encodings: Intel SDM volume 2, section 2.7 (the prefix), table 2-36 (units of short displacements),
and the instructions' own pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mh_builder.asm import registers
from mh_builder.asm.diagnostics import StatementError
from mh_builder.asm.forms import PREFIXES, Form, Parts, instruction, match, operand_bytes, shown
from mh_builder.asm.operands import Register

if TYPE_CHECKING:
    from mh_builder.asm.diagnostics import Line
    from mh_builder.asm.fragments import Bytes
    from mh_builder.asm.operands import Operand

_ALL, _WIDE, _ZMM = (128, 256, 512), (256, 512), (512,)


def _integer(opcode: int, map_: int = 1, w: int = 0) -> tuple[Form, ...]:
    return (Form("rvm", 0x66, map_, opcode, _ALL, w),)


def _move(prefix: int) -> tuple[Form, ...]:
    return Form("rm", prefix, 1, 0x6F, _ALL, 1), Form("mr", prefix, 1, 0x7F, _ALL, 1)


TABLE: dict[str, tuple[Form, ...]] = {
    "vaesenc": _integer(0xDC, 2),
    "vaesenclast": _integer(0xDD, 2),
    "vpclmulqdq": (Form("rvmi", 0x66, 3, 0x44, _ALL),),
    "vpaddd": _integer(0xFE),
    "vpaddq": _integer(0xD4, w=1),
    "vpsubq": _integer(0xFB, w=1),
    "vpshufb": _integer(0x00, 2),
    "vpshufd": (Form("rmi", 0x66, 1, 0x70, _ALL),),
    "vpxorq": _integer(0xEF, w=1),
    "vpternlogq": (Form("rvmi", 0x66, 3, 0x25, _ALL, 1),),
    "vmovdqa64": _move(0x66),
    "vmovdqu64": _move(0xF3),
    "vbroadcasti32x4": (Form("rM", 0x66, 2, 0x5A, _WIDE, narrow="M"),),
    "vshufi64x2": (Form("rvmi", 0x66, 3, 0x43, _WIDE, 1),),
    "vinserti64x4": (Form("rvmi", 0x66, 3, 0x3A, _ZMM, 1, narrow="m", narrow_bits=256),),
    "vinserti32x4": (Form("rvmi", 0x66, 3, 0x38, _WIDE, narrow="m"),),
    "vextracti64x4": (Form("mri", 0x66, 3, 0x3B, _ZMM, 1, narrow="m", narrow_bits=256),),
    "vextracti32x4": (Form("mri", 0x66, 3, 0x39, _WIDE, narrow="m"),),
}
"""Every EVEX instruction of the dialect."""

_LENGTHS = {128: 0, 256: 1, 512: 2}


def is_needed(operands: tuple[Operand, ...]) -> bool:
    """Whether an operand is a register that only EVEX has."""
    return any(isinstance(operand, Register) and operand.name in registers.EXTENDED for operand in operands)


def encode(line: Line, mnemonic: str, column: int, operands: tuple[Operand, ...]) -> Bytes:
    """Encode an instruction of the table. Raises `StatementError`."""
    for form in TABLE[mnemonic]:
        parts = match(form, operands)
        if parts:
            unit = (form.narrow_bits if "m" in form.narrow or "M" in form.narrow else parts.length) // 8
            extension, rest, fields = operand_bytes(parts, unit)
            head = _prefix(form, parts, extension) + bytes([form.opcode])
            return instruction(line, head, rest, fields, parts.immediate)
    raise StatementError(column, f"'{mnemonic}' does not take these operands; its forms are: {shown(TABLE[mnemonic])}")


def _prefix(form: Form, parts: Parts, extension: int) -> bytes:
    """The four bytes; bits that extend a register's number are inverted in them."""
    number, vvvv = ~parts.reg, ~parts.vvvv
    first = (number >> 3 & 1) << 7 | (~extension & 3) << 5 | (number >> 4 & 1) << 4 | form.map
    second = form.w << 7 | (vvvv & 0xF) << 3 | 1 << 2 | PREFIXES[form.prefix]
    third = _LENGTHS[parts.length] << 5 | (vvvv >> 4 & 1) << 3
    return bytes([0x62, first, second, third])
