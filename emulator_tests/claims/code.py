"""The linked blobs, decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import capstone
from capstone import x86

from emulator_tests.coverage.blobs import Instruction, blob, is_32_bit
from mh_builder.symbols import merge


@cache
def _decoder(mode: int) -> Any:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, mode)
    decoder.detail = True
    return decoder


@cache
def decoded(name: str) -> Mapping[int, tuple[Instruction, Any]]:
    """Of a blob, every instruction by its offset, with what capstone makes of it."""
    one, found = blob(name), {}
    for instruction in one.instructions:
        mode = capstone.CS_MODE_32 if is_32_bit(instruction.line) else capstone.CS_MODE_64
        code = one.text[instruction.offset : instruction.offset + instruction.size]
        (found_here,) = _decoder(mode).disasm(code, instruction.offset)
        found[instruction.offset] = instruction, found_here
    return found


@cache
def symbols(name: str) -> dict[str, int]:
    """The global symbols of a blob's code, by offset."""
    objects = blob(name).objects
    starts = merge(objects, ".text").starts
    return {
        symbol.name: starts[unit.name] + symbol.value
        for unit in objects
        for symbol in unit.symbols
        if symbol.section == ".text" and symbol.is_global
    }


def function_at(name: str, offset: int) -> str:
    """The last global symbol before an instruction."""
    return max((at, symbol) for symbol, at in symbols(name).items() if at <= offset)[1]


def handlers(name: str) -> list[int]:
    """Where the helper's operations begin, as its table has them: the targets of its one jump through memory."""
    known = symbols(name)
    return sorted(
        {
            known[relocation.symbol]
            for unit in blob(name).objects
            for section in unit.sections
            if unit.name == "payload/dispatch.s" and section.name == ".rodata"
            for relocation in section.relocations
        }
    )


def written(insn: Any) -> Iterator[Any]:
    """The operands in memory that an instruction writes."""
    return (
        operand for operand in insn.operands if operand.type == x86.X86_OP_MEM and operand.access & capstone.CS_AC_WRITE
    )
