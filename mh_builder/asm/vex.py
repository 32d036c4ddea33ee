"""Encodes the VEX instructions of the wide kernels: keystone has no VAES and VPCLMULQDQ on ymm registers.

64-bit code only. Encodings: AMD64 APM volume 3, section 1.2 (VEX), volumes 4 and 5 (opcodes); volume 3, section 1.4
and table 1-12 for ModRM and SIB.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mh_builder.asm.diagnostics import StatementError
from mh_builder.asm.forms import PREFIXES, Form, Parts, instruction, match, number, operand_bytes, shown
from mh_builder.asm.operands import Register

if TYPE_CHECKING:
    from mh_builder.asm.diagnostics import Line
    from mh_builder.asm.fragments import Bytes
    from mh_builder.asm.operands import Operand

_XMM, _YMM, _BOTH = (128,), (256,), (128, 256)


def _integer(opcode: int, map_: int = 1) -> tuple[Form, ...]:
    return (Form("rvm", 0x66, map_, opcode, _BOTH),)


def _move(prefix: int) -> tuple[Form, ...]:
    return Form("rm", prefix, 1, 0x6F, _BOTH), Form("mr", prefix, 1, 0x7F, _BOTH)


def _shift(opcode: int, extension: int) -> tuple[Form, ...]:
    return (Form("vRi", 0x66, 1, opcode, _BOTH, extension=extension),)


TABLE: dict[str, tuple[Form, ...]] = {
    "vaesenc": _integer(0xDC, 2),
    "vaesenclast": _integer(0xDD, 2),
    "vpclmulqdq": (Form("rvmi", 0x66, 3, 0x44, _BOTH),),
    "vpxor": _integer(0xEF),
    "vpor": _integer(0xEB),
    "vpand": _integer(0xDB),
    "vpandn": _integer(0xDF),
    "vpaddd": _integer(0xFE),
    "vpaddq": _integer(0xD4),
    "vpsubq": _integer(0xFB),
    "vpshufb": _integer(0x00, 2),
    "vpunpcklqdq": _integer(0x6C),
    "vpunpckhqdq": _integer(0x6D),
    "vpcmpeqd": _integer(0x76),
    "vpshufd": (Form("rmi", 0x66, 1, 0x70, _BOTH),),
    "vpalignr": (Form("rvmi", 0x66, 3, 0x0F, _BOTH),),
    "vpblendd": (Form("rvmi", 0x66, 3, 0x02, _BOTH),),
    "vpslld": _shift(0x72, 6),
    "vpsrld": _shift(0x72, 2),
    "vpsllq": _shift(0x73, 6),
    "vpsrlq": _shift(0x73, 2),
    "vpslldq": _shift(0x73, 7),
    "vpsrldq": _shift(0x73, 3),
    "vmovdqa": _move(0x66),
    "vmovdqu": _move(0xF3),
    "vmovq": (Form("rG", 0x66, 1, 0x6E, _XMM, w=1),),
    "vpinsrq": (Form("rvGi", 0x66, 3, 0x22, _XMM, w=1),),
    "vbroadcasti128": (Form("rM", 0x66, 2, 0x5A, _YMM, narrow="M"),),
    "vinserti128": (Form("rvmi", 0x66, 3, 0x38, _YMM, narrow="m"),),
    "vextracti128": (Form("mri", 0x66, 3, 0x39, _YMM, narrow="m"),),
    "vperm2i128": (Form("rvmi", 0x66, 3, 0x46, _YMM),),
    "vzeroupper": (Form("", 0, 1, 0x77, _XMM),),
    "vzeroall": (Form("", 0, 1, 0x77, _YMM),),
}
"""Every VEX instruction of the dialect."""


def encode(line: Line, mnemonic: str, column: int, operands: tuple[Operand, ...]) -> Bytes | None:
    """Encode an instruction of the table, or give None for any other. Raises `StatementError`."""
    if mnemonic not in TABLE:
        return None
    for form in TABLE[mnemonic]:
        parts = match(form, operands)
        if parts:
            return _bytes(line, *_shortest(form, parts))
    raise StatementError(column, f"'{mnemonic}' does not take these operands; its forms are: {shown(TABLE[mnemonic])}")


def _bytes(line: Line, form: Form, parts: Parts) -> Bytes:
    extension, rest, fields = operand_bytes(parts)
    head = _prefix(form, parts, extension) + bytes([form.opcode])
    return instruction(line, head, rest, fields, parts.immediate)


def _shortest(form: Form, parts: Parts) -> tuple[Form, Parts]:
    """Store where a load between registers is longer, as GNU `as` does: bit 3 of ModRM.rm needs the long prefix."""
    if form.operands != "rm" or not isinstance(parts.rm, Register) or number(parts.rm.name) < 8 or parts.reg >= 8:
        return form, parts
    exchanged = Register(f"{parts.rm.name[:3]}{parts.reg}", parts.rm.column)
    return form._replace(opcode=0x7F), replace(parts, reg=number(parts.rm.name), rm=exchanged)


def _prefix(form: Form, parts: Parts, extension: int) -> bytes:
    low = form.w << 7 | (~parts.vvvv & 0xF) << 3 | (parts.length == 256) << 2 | PREFIXES[form.prefix]
    r = ~parts.reg >> 3 & 1
    if form.map == 1 and not extension and not form.w:
        return bytes([0xC5, r << 7 | low])
    return bytes([0xC4, r << 7 | (~extension & 3) << 5 | form.map, low])
