"""Which byte an instruction wanted: unicorn tells only the page that an access missed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from capstone import CS_AC_READ, CS_AC_WRITE, CS_ARCH_X86, CS_MODE_64, Cs
from capstone.x86_const import X86_OP_MEM

from mh_builder.paging import PAGE_BYTES
from mh_emulator.cpu.hooks import Foreign
from mh_emulator.cpu.registers import Registers

LONGEST_INSTRUCTION = 15
_MASK = (1 << 64) - 1
_STACK_REGISTERS = frozenset({"rsp", "rbp"})
_STACK_SLOT = 8


class Operand(NamedTuple):
    """Memory that an instruction names or implies."""

    address: int
    size: int
    on_stack: bool
    """A non-canonical address is #SS instead of #GP."""
    is_read: bool
    is_written: bool


def missed(code: bytes, registers: Registers, page: int, *, by_write: bool) -> Operand | None:
    """Return the operand of the instruction `code` at RIP that a read or write missed in `page`, cut to that page."""
    for operand in _operands(code, registers):
        end = operand.address + operand.size
        is_meant = operand.is_written if by_write else operand.is_read
        if is_meant and operand.address < page + PAGE_BYTES and page < end:
            address = max(operand.address, page)
            return operand._replace(address=address, size=min(end, page + PAGE_BYTES) - address)
    return None


def _operands(code: bytes, registers: Registers) -> Iterator[Operand]:
    instruction = next(_decoder().disasm(code, registers.rip, 1), None)
    if instruction is None:
        return
    for operand in instruction.operands:
        if operand.type == X86_OP_MEM:
            yield _explicit(instruction, operand, registers)
    if instruction.mnemonic.startswith(("push", "call", "enter")):
        address = (registers.rsp - _STACK_SLOT) & _MASK
        yield Operand(address, _STACK_SLOT, on_stack=True, is_read=False, is_written=True)
    elif instruction.mnemonic.startswith(("pop", "ret", "iret")):
        # IRETQ pops five quadwords, the others one.
        count = 5 if instruction.mnemonic.startswith("iret") else 1
        yield Operand(registers.rsp, _STACK_SLOT * count, on_stack=True, is_read=True, is_written=False)
    elif instruction.mnemonic == "leave":
        yield Operand(registers.rbp, _STACK_SLOT, on_stack=True, is_read=True, is_written=False)


def _explicit(instruction: Foreign, operand: Foreign, registers: Registers) -> Operand:
    memory = operand.mem
    base, index, segment = (instruction.reg_name(n) if n else None for n in (memory.base, memory.index, memory.segment))
    address = memory.disp + memory.scale * _value(index, instruction, registers) + _value(base, instruction, registers)
    address &= _MASK if instruction.addr_size == 8 else 0xFFFF_FFFF
    if segment in ("fs", "gs"):
        address += getattr(registers, f"{segment}_base")
    on_stack = base in _STACK_REGISTERS and segment not in ("fs", "gs")
    is_read, is_written = bool(operand.access & CS_AC_READ), bool(operand.access & CS_AC_WRITE)
    return Operand(address & _MASK, operand.size, on_stack, is_read, is_written)


def _value(name: str | None, instruction: Foreign, registers: Registers) -> int:
    if name is None or name in ("riz", "eiz"):
        return 0
    if name == "rip":
        return int(registers.rip + instruction.size)
    if name.endswith("d") and name[1:-1].isdigit():
        return int(getattr(registers, name[:-1])) & 0xFFFF_FFFF
    if name.startswith("e"):
        return int(getattr(registers, f"r{name[1:]}")) & 0xFFFF_FFFF
    return int(getattr(registers, name))


@cache
def _decoder() -> Foreign:
    decoder = Cs(CS_ARCH_X86, CS_MODE_64)
    decoder.detail = True
    return decoder
