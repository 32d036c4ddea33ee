"""Locked instructions, one at a time: what engines that run at once do not do atomically.

LOCK CMPXCHG and LOCK XCHG with 32 or 64 bits, which is all that the helper has. XCHG with memory is atomic without
the prefix too, but only the prefix is looked for. Source: AMD64 APM volume 3, CMPXCHG and XCHG.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import capstone
from capstone import x86_const

from mh_emulator.cpu.engine import Foreign

CF, PF, AF, ZF, SF, OF = 1 << 0, 1 << 2, 1 << 4, 1 << 6, 1 << 7, 1 << 11
FLAGS = CF | PF | AF | ZF | SF | OF


class NotEmulatedError(Exception):
    """A locked instruction that CPUs of one machine may not execute while several run."""


class CompareExchange(NamedTuple):
    """LOCK CMPXCHG of `size` bytes at `address` with `replacement`; `length` is the instruction's."""

    address: int
    size: int
    replacement: int
    length: int


class Exchange(NamedTuple):
    """LOCK XCHG of `size` bytes at `address` with those of `register`, by its 64-bit name."""

    address: int
    size: int
    register: str
    length: int


Locked: TypeAlias = CompareExchange | Exchange


def decode(code: bytes, rip: int, read: Callable[[str], int]) -> Locked:
    """What the instruction does; `read` gives general-purpose registers by their 64-bit names."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    found = next(decoder.disasm(code, rip, 1), None)
    if found is None or not _is_covered(found):
        shown = code.hex(" ") if found is None else f"{found.mnemonic} {found.op_str}"
        raise NotEmulatedError(f"{rip:#x}: '{shown}' while several vCPUs run")
    place, source = found.operands

    def register(number: int) -> int:
        if number == x86_const.X86_REG_INVALID:
            return 0
        if number == x86_const.X86_REG_RIP:
            return rip + int(found.size)
        return read(_full_name(str(found.reg_name(number))))

    base, index = register(place.mem.base), register(place.mem.index)
    address = (base + index * place.mem.scale + place.mem.disp) % (1 << 64)
    size, length = int(place.size), int(found.size)
    if found.id == x86_const.X86_INS_XCHG:
        return Exchange(address, size, _full_name(str(found.reg_name(source.reg))), length)
    return CompareExchange(address, size, register(source.reg) % (1 << 8 * size), length)


def _is_covered(found: Foreign) -> bool:
    if found.id not in (x86_const.X86_INS_CMPXCHG, x86_const.X86_INS_XCHG):
        return False
    place = found.operands[0]
    return place.size in (4, 8) and place.mem.segment == x86_const.X86_REG_INVALID


def flags_of_comparison(first: int, second: int, size: int) -> int:
    """The flags of CMP `first`, `second`."""
    sign = 1 << 8 * size - 1
    result = (first - second) % (2 * sign)
    flags = CF if first < second else 0
    flags |= 0 if (result & 0xFF).bit_count() & 1 else PF
    flags |= (first ^ second ^ result) & AF
    flags |= 0 if result else ZF
    flags |= SF if result & sign else 0
    flags |= OF if (first ^ second) & (first ^ result) & sign else 0
    return flags


def _full_name(name: str) -> str:
    if name.startswith("e"):
        return f"r{name[1:]}"
    return name.removesuffix("d") if name[1:2].isdigit() else name
