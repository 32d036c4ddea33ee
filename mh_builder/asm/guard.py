"""Refuses what must not reach the encoder: operands that it hangs on, dies of, or silently gets wrong."""

from __future__ import annotations

import re

from mh_builder.asm import evex, opcodes, registers, vex
from mh_builder.asm.diagnostics import StatementError
from mh_builder.asm.operands import Memory, Operand, Register

_MNEMONIC = re.compile(r"[a-z][a-z0-9]{1,15}")
_NOT_VEX = frozenset({"verr", "verw", "vmcall", "vmclear", "vmfunc", "vmlaunch", "vmload", "vmmcall", "vmptrld",
                      "vmptrst", "vmread", "vmresume", "vmrun", "vmsave", "vmwrite", "vmxoff", "vmxon"})  # fmt: skip

ADVICE = {
    "bzhi": "unicorn executes 'bzhi' wrongly",
    "ljmp": "write 'jmpf SELECTOR, ADDRESS', or 'jmp fword ptr […]'",
    "lcall": "write 'call fword ptr […]'",
    "icebp": "write 'int1'",
    "sysret": "write 'sysretq'",
    "lret": "write 'retf'",
    "lretq": "write 'retfq'",
    "retn": "write 'ret'",
}
_ADVICE_64 = {
    "iret": "'iret' returns to 16-bit code here; write 'iretq'",
    "pushf": "'pushf' pushes 16 bits here; write 'pushfq'",
    "popf": "'popf' pops 16 bits here; write 'popfq'",
    "into": "there is no 'into' in 64-bit code",
}
_ONLY_64 = frozenset({"swapgs", "vmrun", "vmload", "vmsave"})
_ADDRESS_16 = frozenset({("bx", ""), ("bp", ""), ("si", ""), ("di", ""), ("", "")} | {
    pair for b in ("bx", "bp") for i in ("si", "di") for pair in ((b, i), (i, b))})  # fmt: skip


def check_mnemonic(mnemonic: str, column: int, mode: int) -> None:
    """Refuse a mnemonic that is malformed or on the list; raises `StatementError`."""
    if not _MNEMONIC.fullmatch(mnemonic):
        raise StatementError(column, f"'{mnemonic[:40]}' is no instruction, directive or macro")
    if mnemonic.startswith("v") and mnemonic not in _NOT_VEX:
        _check_vex(mnemonic, column, mode)
    if mode != 64 and mnemonic in _ONLY_64:
        raise StatementError(column, f"'{mnemonic}' is for 64-bit code only")
    advice = ADVICE.get(mnemonic) or (_ADVICE_64.get(mnemonic) if mode == 64 else None)
    if advice:
        raise StatementError(column, advice)


def _check_vex(mnemonic: str, column: int, mode: int) -> None:
    if mnemonic not in vex.TABLE and mnemonic not in evex.TABLE:
        raise StatementError(column, f"'{mnemonic}' is none of the VEX and EVEX instructions that are encoded here")
    if mode != 64:
        raise StatementError(column, f"'{mnemonic}' is for 64-bit code only")


def check_operands(mnemonic: str, column: int, operands: tuple[Operand, ...], mode: int) -> None:
    """Refuse operands that the mode lacks, that exclude each other or that keystone dies of.

    Raises `StatementError`.
    """
    _check_form(mnemonic, column, operands, mode)
    _check_registers(mnemonic, operands, mode)


def _check_form(mnemonic: str, column: int, operands: tuple[Operand, ...], mode: int) -> None:
    is_vector = any(isinstance(operand, Register) and operand.name in registers.XMM for operand in operands)
    if operands and not is_vector and mnemonic in opcodes.STRING_INSTRUCTIONS | {"xlat", "xlatb"}:
        raise StatementError(column, f"'{mnemonic}' is written without operands")
    match mnemonic, operands:
        case "mov" | "pop", (Register("cs"), *_):
            raise StatementError(column, "'cs' is loaded by far jumps and returns only")
        case "jmp" | "call", (Memory(32),) if mode == 16:
            raise StatementError(column, f"'{mnemonic} dword ptr' is ambiguous in 16-bit code")


def _check_registers(mnemonic: str, operands: tuple[Operand, ...], mode: int) -> None:
    used: list[tuple[str, int]] = []
    for operand in operands:
        if isinstance(operand, Register):
            used.append((operand.name, operand.column))
            _check_vector(mnemonic, operand)
        elif isinstance(operand, Memory):
            _check_address(operand, mode)
            used += [(name, operand.column) for name in (operand.base, operand.index) if name]
    for name, column in used:
        if mode != 64 and name in registers.NEEDS_64 - {"rip"}:
            raise StatementError(column, f"'{name}' exists in 64-bit code only")
    high = [(name, column) for name, column in used if name in registers.HIGH_BYTE]
    wide = [name for name, _ in used if name in registers.NEEDS_REX]
    extended = [
        name for name in wide if name not in registers.QUAD or _is_extended(name) or _is_operand(name, operands)
    ]
    if high and extended:
        raise StatementError(high[0][1], f"'{high[0][0]}' cannot be used together with '{extended[0]}'")


def _check_vector(mnemonic: str, operand: Register) -> None:
    if operand.name in registers.EXTENDED and mnemonic not in evex.TABLE:
        raise StatementError(operand.column, f"'{mnemonic}' cannot take {operand.name}")
    if operand.name in registers.YMM and mnemonic not in vex.TABLE and mnemonic not in evex.TABLE:
        raise StatementError(operand.column, f"'{mnemonic}' takes no ymm register")


def _is_extended(name: str) -> bool:
    return name[1].isdigit()


def _is_operand(name: str, operands: tuple[Operand, ...]) -> bool:
    return any(isinstance(operand, Register) and operand.name == name for operand in operands)


def _check_address(memory: Memory, mode: int) -> None:
    base, index, column = memory.base, memory.index, memory.column
    if base == "rip":
        if mode != 64:
            raise StatementError(column, "'rip' addresses memory in 64-bit code only")
        if index:
            raise StatementError(column, "an address with 'rip' has no index register")
        return
    if "rip" in {base, index} or registers.POINTER & {base, index}:
        raise StatementError(column, f"'{base or index}' cannot address memory here")
    for name in (base, index):
        if name and name not in _address_registers(mode):
            raise StatementError(column, f"'{name}' cannot address memory in {mode}-bit code")
    if index in {"rsp", "esp"}:
        raise StatementError(column, f"'{index}' cannot be an index register")
    if base and index and registers.BITS[base] != registers.BITS[index]:
        raise StatementError(column, f"'{base}' and '{index}' have different widths")
    if registers.WORD & {base, index} and ((base, index) not in _ADDRESS_16 or memory.scale != 1):
        raise StatementError(column, "a 16-bit address is bx or bp, plus si or di, without a scale")


def _address_registers(mode: int) -> frozenset[str]:
    match mode:
        case 64:
            return registers.QUAD | registers.DOUBLE
        case 32:
            return registers.DOUBLE
        case _:
            return registers.DOUBLE | frozenset({"bx", "bp", "si", "di"})


def address_bits(memory: Memory, mode: int) -> int:
    """Width of an address in bits."""
    name = memory.base or memory.index
    return mode if not name or name == "rip" else registers.BITS[name]
