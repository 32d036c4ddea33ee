"""Turns an instruction statement into bytes, a branch, or requests to the encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mh_builder.asm import evex, guard, opcodes, registers, vex
from mh_builder.asm import expression as ex
from mh_builder.asm.diagnostics import StatementError
from mh_builder.asm.encoder import Request
from mh_builder.asm.fragments import Branch, Bytes, Field, FieldKind, signed, signed_or_unsigned
from mh_builder.asm.operands import SIZES, Immediate, Lookup, Memory, Offset, Operand, Register, parse_operands

if TYPE_CHECKING:
    from mh_builder.asm.diagnostics import Line
    from mh_builder.asm.statement import Statement

MAX_TEXT = 200
_SIZE_WORDS = {bits: word for word, bits in SIZES.items()}
_PLACEHOLDERS = {1: 0x55, 2: 0x5566, 4: 0x55667788, 8: 0x1122334455667788}
_DISPLACEMENTS = {2: 0x1122, 4: 0x11223344}


@dataclass(frozen=True, slots=True)
class Hole:
    """A placeholder in the encoder's bytes that takes a value known only after layout."""

    in_memory: bool
    width: int
    kind: FieldKind
    value: ex.Expression
    column: int

    @property
    def placeholder(self) -> int:
        """The value the encoder saw."""
        return (_DISPLACEMENTS if self.in_memory else _PLACEHOLDERS)[self.width]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to encode an instruction; all operands are numbers, those of holes are placeholders."""

    request: Request
    operands: tuple[Operand, ...]
    holes: tuple[Hole, ...]


@dataclass(frozen=True, slots=True)
class Pending:
    """An instruction that waits for the encoder: the first candidate that it can encode is taken."""

    line: Line
    column: int
    mode: int
    mnemonic: str
    prefix: bytes
    candidates: tuple[Candidate, ...]


def parse_instruction(statement: Statement, cursor: ex.Cursor, mode: int, lookup: Lookup) -> Bytes | Branch | Pending:
    """Read an instruction whose operands `cursor` gives; raises `StatementError`."""
    mnemonic, column, prefixes = statement.head, statement.column, []
    while mnemonic in opcodes.PREFIXES:
        prefixes.append(mnemonic)
        token = cursor.take()
        if token.kind != "name" or len(prefixes) > 1:
            raise StatementError(token.column, f"prefix '{mnemonic}' takes one instruction")
        mnemonic, column = token.text, token.column
    guard.check_mnemonic(mnemonic, column, mode)
    operands = parse_operands(cursor, lookup)
    guard.check_operands(mnemonic, column, operands, mode)
    prefix = _prefix(prefixes, mnemonic, operands, mode, statement.column)
    parsed = _Instruction(statement.line, column, mode, mnemonic, prefix, operands)
    for encode in (_simple, _special, _branch, _vex):
        result = encode(parsed)
        if result is not None:
            return result
    return _pending(parsed)


@dataclass(frozen=True, slots=True)
class _Instruction:
    line: Line
    column: int
    mode: int
    mnemonic: str
    prefix: bytes
    operands: tuple[Operand, ...]


def _prefix(prefixes: list[str], mnemonic: str, operands: tuple[Operand, ...], mode: int, column: int) -> bytes:
    if not prefixes:
        return b""
    code, allowed = opcodes.PREFIXES[prefixes[0]]
    fits = mnemonic in allowed and (prefixes[0] != "data32" or mode == 16)
    if prefixes[0] == "lock":
        fits = fits and bool(operands) and isinstance(operands[0], Memory)
    elif mnemonic in opcodes.STRING_INSTRUCTIONS:
        # `movsd xmm0, xmm1` is no string instruction.
        fits = fits and not operands
    if not fits:
        raise StatementError(column, f"'{prefixes[0]}' cannot stand before this '{mnemonic}'")
    return code


def _simple(parsed: _Instruction) -> Bytes | None:
    code = opcodes.SIMPLE[parsed.mode].get(parsed.mnemonic)
    if code is None or parsed.operands:
        return None
    return Bytes(parsed.line, opcodes.prefixed(parsed.prefix, code))


def _special(parsed: _Instruction) -> Bytes | None:
    match parsed.mnemonic, parsed.operands:
        case "ret" | "retf", (Immediate() as count,):
            return _with_fields(parsed, opcodes.RETURNS_WITH_COUNT[parsed.mnemonic], ((count, 2, (0, 0xFFFF)),))
        case "int", (Immediate(ex.Number(3)),):
            return _with_fields(parsed, b"\xcc", ())
        case "int", (Immediate() as vector,):
            return _with_fields(parsed, b"\xcd", ((vector, 1, (0, 0xFF)),))
        case "push", (Immediate() as value,):
            return _push(parsed, value)
        case "enter", (Immediate() as size, Immediate() as level):
            return _with_fields(parsed, b"\xc8", ((size, 2, (0, 0xFFFF)), (level, 1, (0, 0xFF))))
        case "jmpf", (Immediate() as selector, Immediate() as target):
            return _far_jump(parsed, selector, target)
        case "jmpf", _:
            raise StatementError(parsed.column, "write 'jmpf SELECTOR, ADDRESS'")
        case _:
            return None


_Spec = tuple[Immediate, int, tuple[int, int]]


def _with_fields(parsed: _Instruction, opcode: bytes, specs: tuple[_Spec, ...]) -> Bytes:
    offset = len(parsed.prefix + opcode)
    fields = []
    for value, width, (low, high) in specs:
        fields.append(Field(offset, width, FieldKind.NUMBER, value.value, value.column, low, high))
        offset += width
    data = (parsed.prefix + opcode).ljust(offset, b"\0")
    return Bytes(parsed.line, data, tuple(fields))


def _push(parsed: _Instruction, immediate: Immediate) -> Bytes:
    width = 2 if parsed.mode == 16 else 4
    bounds = signed(4) if parsed.mode == 64 else signed_or_unsigned(width)
    number = immediate.value.value if isinstance(immediate.value, ex.Number) else None
    if number is not None and bounds[0] <= number <= bounds[1]:
        bits = 8 * width
        value = (number + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
        if -128 <= value <= 127:
            return Bytes(parsed.line, b"\x6a" + value.to_bytes(1, "little", signed=True))
    return _with_fields(parsed, b"\x68", ((immediate, width, bounds),))


def _far_jump(parsed: _Instruction, selector: Immediate, target: Immediate) -> Bytes:
    if parsed.mode == 64:
        raise StatementError(parsed.column, "there is no 'jmpf' to an immediate address in 64-bit code")
    opcode = b"\xea" if parsed.mode == 32 else b"\x66\xea"
    start = len(opcode)
    fields = (
        Field(start, 4, FieldKind.ABSOLUTE, target.value, target.column, 0, 0xFFFFFFFF),
        Field(start + 4, 2, FieldKind.NUMBER, selector.value, selector.column, 0, 0xFFFF),
    )
    return Bytes(parsed.line, opcode + bytes(6), fields)


def _branch(parsed: _Instruction) -> Branch | None:
    if len(parsed.operands) != 1 or not isinstance(parsed.operands[0], Immediate):
        return None
    forms = opcodes.branch(parsed.mnemonic, parsed.mode)
    if forms is None:
        return None
    target = parsed.operands[0]
    if isinstance(target.value, ex.Number):
        raise StatementError(target.column, f"'{parsed.mnemonic}' takes a label, not a number")
    short, near = forms
    width = 2 if parsed.mode == 16 else 4
    return Branch(parsed.line, target.value, target.column, short, near, width, is_near=not short)


def _vex(parsed: _Instruction) -> Bytes | None:
    if parsed.mnemonic in evex.TABLE and (parsed.mnemonic not in vex.TABLE or evex.is_needed(parsed.operands)):
        return evex.encode(parsed.line, parsed.mnemonic, parsed.column, parsed.operands)
    return vex.encode(parsed.line, parsed.mnemonic, parsed.column, parsed.operands)


# ---- what keystone encodes ----


def _pending(parsed: _Instruction) -> Pending:
    candidates = tuple(_candidate(parsed, width) for width in _immediate_widths(parsed))
    for candidate in candidates:
        if len(candidate.request.text) > MAX_TEXT:
            raise StatementError(parsed.column, "instruction is too long")
    return Pending(parsed.line, parsed.column, parsed.mode, parsed.mnemonic, parsed.prefix, candidates)


def _immediate_widths(parsed: _Instruction) -> tuple[int, ...]:
    """Widths to try for an immediate that is known after layout: the widest that can be encoded serves any value."""
    waiting = [
        item for item in parsed.operands if isinstance(item, Immediate) and not isinstance(item.value, ex.Number)
    ]
    if len(waiting) > 1:
        raise StatementError(waiting[1].column, "only one immediate may depend on the layout")
    return (4, 2, 1) if waiting else (0,)


def _candidate(parsed: _Instruction, width: int) -> Candidate:
    operands: list[Operand] = []
    holes: list[Hole] = []
    for operand in parsed.operands:
        numeric, hole = _NUMERIC[type(operand)](operand, parsed, width)
        operands.append(numeric)
        if hole:
            holes.append(hole)
    text = _render(parsed, operands)
    return Candidate(Request(parsed.mode, text, _rewrites(parsed)), tuple(operands), tuple(holes))


def _numeric_register(operand: Register, _parsed: _Instruction, _width: int) -> tuple[Operand, Hole | None]:
    return operand, None


def _numeric_immediate(operand: Immediate, _parsed: _Instruction, width: int) -> tuple[Operand, Hole | None]:
    if isinstance(operand.value, ex.Number):
        if not -(1 << 63) <= operand.value.value < 1 << 64:
            raise StatementError(operand.column, "number does not fit in 64 bits")
        return operand, None
    hole = Hole(in_memory=False, width=width, kind=FieldKind.NUMBER, value=operand.value, column=operand.column)
    return replace(operand, value=ex.Number(hole.placeholder, operand.column)), hole


def _numeric_offset(operand: Offset, parsed: _Instruction, _width: int) -> tuple[Operand, Hole | None]:
    width = parsed.mode // 8
    first = parsed.operands[0]
    fits = (
        parsed.mnemonic in {"mov", "movabs"}
        and len(parsed.operands) == 2
        and isinstance(first, Register)
        and first.name in {64: registers.QUAD, 32: registers.DOUBLE}.get(parsed.mode, frozenset())
    )
    if not fits:
        raise StatementError(
            operand.column, "'offset' is for 'mov REGISTER, offset SYMBOL' with a register as wide as addresses"
        )
    hole = Hole(in_memory=False, width=width, kind=FieldKind.ADDRESS, value=operand.value, column=operand.column)
    return Immediate(ex.Number(hole.placeholder, operand.column), operand.column), hole


def _numeric_memory(operand: Memory, parsed: _Instruction, _width: int) -> tuple[Operand, Hole | None]:
    bits = guard.address_bits(operand, parsed.mode)
    value = operand.displacement
    if isinstance(value, ex.Number):
        low, high = signed(4) if bits == 64 else signed_or_unsigned(bits // 8)
        if not low <= value.value <= high:
            raise StatementError(operand.column, f"displacement {value.value:#x} does not fit in {min(bits, 32)} bits")
        wrapped = value.value - (1 << bits) if value.value > signed(bits // 8)[1] else value.value
        return replace(operand, displacement=ex.Number(wrapped, value.column)), None
    kind = FieldKind.RELATIVE if operand.base == "rip" else FieldKind.NUMBER
    hole = Hole(in_memory=True, width=min(bits // 8, 4), kind=kind, value=value, column=operand.column)
    return replace(operand, displacement=ex.Number(hole.placeholder, value.column)), hole


_Numeric = Callable[..., tuple[Operand, Hole | None]]
_NUMERIC: dict[type[Operand], _Numeric] = {
    Register: _numeric_register,
    Immediate: _numeric_immediate,
    Offset: _numeric_offset,
    Memory: _numeric_memory,
}


def is_absolute(operand: Operand, mode: int) -> bool:
    """Tell whether keystone would make an address relative to rip of what is a plain number."""
    return mode == 64 and isinstance(operand, Memory) and not operand.base and not operand.index


def _is_segment(operand: Operand) -> bool:
    return isinstance(operand, Register) and operand.name in registers.SEGMENT


def _rewrites(parsed: _Instruction) -> tuple[str, ...]:
    operands = parsed.operands
    is_table = parsed.mnemonic in {"lgdt", "lidt", "sgdt", "sidt"} and parsed.mode != 16
    # Not `mov ax, cs`: a segment register goes to a general one in that one's width.
    is_segment = parsed.mnemonic in {"mov", "push", "pop"} and bool(operands)
    is_segment = is_segment and (
        _is_segment(operands[0]) or (isinstance(operands[0], Memory) and _is_segment(operands[-1]))
    )
    wanted = {
        "absolute": any(is_absolute(operand, parsed.mode) for operand in operands),
        "long-nop": parsed.mnemonic == "nop",
        "no-operand-size": is_table or is_segment,
    }
    return tuple(name for name, holds in wanted.items() if holds)


def _render(parsed: _Instruction, operands: list[Operand]) -> str:
    mnemonic = parsed.mnemonic
    if any(isinstance(operand, Offset) for operand in parsed.operands) and parsed.mode == 64:
        mnemonic = "movabs"
    if mnemonic in {"jmp", "call"} and operands and isinstance(operands[0], Memory) and operands[0].size == 48:
        if parsed.mode == 16:
            raise StatementError(parsed.column, "far branches through memory are for 32-bit and 64-bit code")
        mnemonic = f"l{mnemonic}"
        operands = [replace(operands[0], size=0)]
    if not operands:
        return mnemonic
    return f"{mnemonic} " + ", ".join(_text(operand, parsed.mode) for operand in operands)


def _text(operand: Operand, mode: int) -> str:
    match operand:
        case Register(name):
            return name
        case Immediate(ex.Number(value)):
            return str(value)
        case Memory(size, segment, base, index, scale, ex.Number(value)):
            words = f"{_SIZE_WORDS[size]} ptr " if size else ""
            if is_absolute(operand, mode):
                base = "rip"
            registers_ = " + ".join(part for part in (base, f"{index}*{scale}" if index else "") if part)
            if not registers_:
                address = str(value)
            else:
                address = registers_ + (f" {'-' if value < 0 else '+'} {abs(value)}" if value else "")
            return f"{words}{segment}{':' if segment else ''}[{address}]"
        case _:
            raise AssertionError(operand)
