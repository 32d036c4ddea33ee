"""Locked instructions, one at a time: what engines that run at once do not do atomically.

LOCK CMPXCHG and LOCK XCHG with 32 or 64 bits, which is all that the helper has. XCHG with memory is atomic without
the prefix too, but only the prefix is looked for. Source: AMD64 APM volume 3, CMPXCHG and XCHG.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple, TypeAlias

import capstone
from capstone import x86_const

from mh_emulator.cpu.hooks import Foreign

CF, PF, AF, ZF, SF, OF = 1 << 0, 1 << 2, 1 << 4, 1 << 6, 1 << 7, 1 << 11
_RIP = "rip"
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


@dataclass(frozen=True, slots=True)
class _Form:
    """What the bytes of one say, before registers are read; names are those of 64 bits, "" for none."""

    is_exchange: bool
    base: str
    index: str
    scale: int
    displacement: int
    size: int
    source: str
    length: int


def decode(code: bytes, rip: int, read: Callable[[str], int]) -> Locked:
    """What the instruction does; `read` gives general-purpose registers by their 64-bit names."""
    form = _parse(code)
    if isinstance(form, str):
        raise NotEmulatedError(f"{rip:#x}: '{form}' while several vCPUs run")

    def value(name: str) -> int:
        if not name:
            return 0
        return rip + form.length if name == _RIP else read(name)

    address = (value(form.base) + value(form.index) * form.scale + form.displacement) % (1 << 64)
    if form.is_exchange:
        return Exchange(address, form.size, form.source, form.length)
    return CompareExchange(address, form.size, read(form.source) % (1 << 8 * form.size), form.length)


@lru_cache(maxsize=256)
def _parse(code: bytes) -> _Form | str:
    """The form, or what stands there where it is none of these instructions."""
    found = next(_decoder().disasm(code, 0, 1), None)
    if found is None or not _is_covered(found):
        return code.hex(" ") if found is None else f"{found.mnemonic} {found.op_str}"
    place, source = found.operands

    def name(number: int) -> str:
        return "" if number == x86_const.X86_REG_INVALID else _full_name(str(found.reg_name(number)))

    return _Form(
        is_exchange=found.id == x86_const.X86_INS_XCHG,
        base=name(place.mem.base),
        index=name(place.mem.index),
        scale=place.mem.scale,
        displacement=place.mem.disp,
        size=int(place.size),
        source=name(source.reg),
        length=int(found.size),
    )


@cache
def _decoder() -> Foreign:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    return decoder


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
