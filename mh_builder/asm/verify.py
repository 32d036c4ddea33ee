"""Compares what capstone reads back with what the source said."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mh_builder.asm import expression as ex
from mh_builder.asm import opcodes, registers
from mh_builder.asm.guard import address_bits
from mh_builder.asm.operands import SIZES, Immediate, Memory, Operand, Register

if TYPE_CHECKING:
    from mh_builder.asm.encoder import Decoded, Encoding
    from mh_builder.asm.instruction import Candidate, Pending

_ALIASES = {
    "sal": "shl", "movabs": "mov", "ljmp": "jmp", "lcall": "call", "wait": "fwait", "pclmullqlqdq": "pclmulqdq",
    "pclmulhqlqdq": "pclmulqdq", "pclmullqhqdq": "pclmulqdq", "pclmulhqhqdq": "pclmulqdq", "xlatb": "xlat",
}  # fmt: skip
_CONDITIONAL = re.compile(r"(cmov|set)([a-z]+)")
_MEMORY = re.compile(r"(?:(?P<size>[a-z]+) ptr )?(?:ptr )?(?:(?P<segment>[c-gs]s):)?\[(?P<address>[^\]]*)\]")
_SCALED = re.compile(r"(?P<name>[a-z0-9]+)\*(?P<scale>[1248])")
_NUMBER = re.compile(r"-?(?:0x[0-9a-f]+|[0-9]+)")
_ARITHMETIC = frozenset({"adc", "add", "and", "cmp", "imul", "mov", "or", "sbb", "sub", "test", "xor"})
_SIZE_OF_OTHER_OPERAND = frozenset({"crc32", "movsx", "movzx", "movsxd", "rcl", "rcr", "rol", "ror", "sar", "shl",
                                    "shr", "cvtsi2sd", "cvtsi2ss"})  # fmt: skip
_NO_SIZE = frozenset({
    "lea", "lgdt", "lidt", "sgdt", "sidt", "invlpg", "clflush", "clflushopt", "clwb", "prefetcht0", "prefetcht1",
    "prefetcht2", "prefetchnta", "prefetchw", "fxsave", "fxrstor", "fxsave64", "fxrstor64", "xsave", "xrstor",
    "xsave64", "xrstor64", "ldmxcsr", "stmxcsr", "cmpxchg8b", "cmpxchg16b", "invpcid",
    "jmp", "call",
})  # fmt: skip
_SIZE_MISSING = "the memory operand needs a size, such as 'dword ptr'"


@dataclass(frozen=True, slots=True)
class _Address:
    size: int
    segment: str
    base: str
    index: str
    scale: int
    displacement: int


_Item = str | int | _Address


def complaint(pending: Pending, candidate: Candidate, encoding: Encoding) -> str:
    """Say what is wrong with an encoding, or nothing."""
    if encoding.error:
        return _refusal(pending, candidate, encoding.error)
    if len(encoding.decoded) != 1 or encoding.decoded[0].size != len(encoding.code):
        return f"'{pending.mnemonic}' does not encode to one instruction"
    decoded = encoding.decoded[0]
    wanted, found = _canonical(pending.mnemonic), _canonical(decoded.mnemonic.split()[-1])
    if wanted != found:
        return f"'{pending.mnemonic}' would become '{decoded.mnemonic}'"
    return _operand_complaint(pending, candidate.operands, decoded)


def _refusal(pending: Pending, candidate: Candidate, error: str) -> str:
    if error.startswith("Invalid mnemonic"):
        return f"unknown instruction '{pending.mnemonic}'"
    if sum(isinstance(operand, Memory) for operand in candidate.operands) > 1:
        return f"cannot encode '{pending.mnemonic}' with two memory operands"
    bare = any(isinstance(operand, Memory) and not operand.size for operand in candidate.operands)
    if bare and error.startswith("Invalid operand") and _canonical(pending.mnemonic) not in _NO_SIZE:
        return f"cannot encode '{pending.mnemonic}' with these operands; {_SIZE_MISSING}"
    return f"cannot encode '{pending.mnemonic}' with these operands ({error[:1].lower()}{error[1:]})"


def _canonical(mnemonic: str) -> str:
    mnemonic = _ALIASES.get(mnemonic, mnemonic)
    match = _CONDITIONAL.fullmatch(mnemonic)
    if match and match[2] in opcodes.CONDITION_CODES:
        return f"{match[1]}{opcodes.CONDITION_CODES[match[2]]}"
    return mnemonic


def _operand_complaint(pending: Pending, wanted: tuple[Operand, ...], decoded: Decoded) -> str:
    mnemonic = _canonical(pending.mnemonic)
    if not wanted:
        # Operands of these are implied; capstone spells them out.
        return ""
    found = _parse(decoded.operands)
    if found is None:
        return f"cannot read back '{decoded.mnemonic} {decoded.operands}'"
    found = _explicit(mnemonic, wanted, found)
    if len(found) != len(wanted):
        return f"would become '{decoded.mnemonic} {decoded.operands}'"
    for expected, actual in zip(wanted, found, strict=True):
        problem = _differs(pending, expected, actual, _width(mnemonic, found, decoded))
        if problem:
            return f"{problem} (it would become '{decoded.mnemonic} {decoded.operands}')"
    return _size_complaint(mnemonic, wanted, found)


def _explicit(mnemonic: str, wanted: tuple[Operand, ...], found: list[_Item]) -> list[_Item]:
    """Bring capstone's operands to the order and number of the source's."""
    if mnemonic == "imul" and len(wanted) == 2 and len(found) == 3 and found[0] == found[1]:
        return found[1:]
    if mnemonic in {"pblendvb", "blendvps", "blendvpd"} and len(found) == 3 and len(wanted) == 2:
        return found[:2]
    if mnemonic == "mov" and found[0] in registers.SEGMENT and isinstance(wanted[1], Register):
        # A selector comes from the low 16 bits of any register, so the widths may differ.
        return [found[0], wanted[1].name if _is_part(wanted[1].name, found[1]) else found[1]]
    if mnemonic in {"xchg", "test"} and len(found) == 2 and len(wanted) == 2 and _is_reversed(wanted, found):
        return found[::-1]
    return found


def _is_part(word: str, whole: _Item) -> bool:
    return whole in {f"e{word}", f"{word[:-1]}d"}


def _is_reversed(wanted: tuple[Operand, ...], found: list[_Item]) -> bool:
    first = wanted[0]
    return isinstance(first, Register) and first.name == found[1]


def _parse(text: str) -> list[_Item] | None:
    items = [_item(piece) for piece in text.split(", ")] if text else []
    return None if any(item is None for item in items) else [item for item in items if item is not None]


def _item(piece: str) -> _Item | None:
    if _NUMBER.fullmatch(piece):
        return int(piece, 0)
    match = _MEMORY.fullmatch(piece)
    if match:
        return _address(match)
    # capstone writes st(0).
    name = piece.replace("(", "").replace(")", "")
    return name if name in registers.BITS else None


def _address(match: re.Match[str]) -> _Address | None:
    base, index, scale, displacement = "", "", 1, 0
    for sign, term in re.findall(r"(^|[+-]) ?([^ +-]+)", match["address"].strip()):
        scaled = _SCALED.fullmatch(term)
        if scaled:
            index, scale = scaled["name"], int(scaled["scale"])
        elif _NUMBER.fullmatch(term):
            displacement = int(term, 0) * (-1 if sign == "-" else 1)
        elif term in {"riz", "eiz"}:
            return None
        elif base:
            index = term
        else:
            base = term
    if index and not base and scale == 1:
        base, index = index, ""
    return _Address(SIZES.get(match["size"] or "", 0), match["segment"] or "", base, index, scale, displacement)


def _width(mnemonic: str, found: list[_Item], decoded: Decoded) -> int:
    """Width in bits of an immediate operand."""
    if mnemonic not in _ARITHMETIC:
        return 8 * (decoded.immediate_size or 1)
    match found[0]:
        case str() as name:
            return registers.BITS[name]
        case _Address(size):
            return size
        case _:
            return 8


def _differs(pending: Pending, expected: Operand, actual: _Item, width: int) -> str:
    match expected, actual:
        case Register(name), str():
            return "" if name == actual else f"register '{name}' is lost"
        case Immediate(ex.Number(value)), int():
            if not -(1 << (width - 1)) <= value < 1 << width:
                return f"number {value:#x} does not fit in {width} bits"
            same = (value - actual) % (1 << width) == 0
            return "" if same else f"number {value:#x} cannot be encoded here"
        case Memory(), _Address():
            return _address_differs(pending, expected, actual)
        case _:
            return "the operands do not fit"


def _is_far(pending: Pending, memory: Memory) -> bool:
    return pending.mnemonic in {"jmp", "call"} and memory.size == 48


def _address_differs(pending: Pending, expected: Memory, actual: _Address) -> str:
    bits = address_bits(expected, pending.mode)
    swapped = expected.scale == 1 and (actual.base, actual.index) == (expected.index, expected.base)
    if not swapped and (actual.base, actual.index, actual.scale) != (expected.base, expected.index, expected.scale):
        return "the address's registers are lost"
    if actual.segment != expected.segment and not _is_default_segment(expected, actual.segment):
        return "the segment register is lost"
    displacement = expected.displacement
    if not isinstance(displacement, ex.Number) or (displacement.value - actual.displacement) % (1 << bits):
        return "the displacement is lost"
    if expected.size and expected.size != actual.size and (actual.size or not _is_far(pending, expected)):
        # capstone gives no size for what has none, nor for the far pointers of `jmp` and `call`.
        return f"the memory operand has {actual.size} bits, not {expected.size}" if actual.size else "it takes no size"
    return ""


def _is_default_segment(expected: Memory, actual: str) -> bool:
    stack = expected.base in {"rsp", "rbp", "esp", "ebp", "bp"}
    return actual == "" and expected.segment == ("ss" if stack else "ds")


def _size_complaint(mnemonic: str, wanted: tuple[Operand, ...], found: list[_Item]) -> str:
    sizes = [item.size for item in found if isinstance(item, _Address)]
    bare = [item for item in wanted if isinstance(item, Memory) and not item.size]
    if not bare or not sizes or mnemonic in _NO_SIZE or sizes[0] == 0:
        return ""
    widths = [registers.BITS[item.name] for item in wanted if isinstance(item, Register)]
    if mnemonic not in _SIZE_OF_OTHER_OPERAND and (128 in widths or sizes[0] in widths):
        return ""
    return _SIZE_MISSING
