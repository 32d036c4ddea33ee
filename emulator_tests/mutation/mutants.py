"""The small faults: what becomes of one instruction of the blobs, in as many bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import capstone

from emulator_tests.coverage.blobs import RECORDED, Blob, Instruction, blob, is_32_bit, source
from emulator_tests.coverage.report import reason

NOP = b"\x90"
_SHORT_JUMP = range(0x70, 0x80)
_TWO_BYTES, _NEAR_JUMP = 0x0F, range(0x80, 0x90)
_LOCK = 0xF0
_VERDICTS = {"bt", "call", "cmp", "ptest", "test"}
"""What a conditional jump behind it asks."""
_FENCES = {"lfence", "mfence", "sfence"}
_SURVIVES = re.compile(r"#\s*survives ([\w ,]+): (\S.*)$")
"""`# survives KIND, KIND: REASON`: no test can notice these faults of this line, or of the macro that it uses."""


@dataclass(frozen=True, slots=True, order=True)
class Mutant:
    """One fault: `kind` of `KINDS`, of instruction number `count` of `place` (blobs.Instruction)."""

    place: str
    count: int
    kind: str

    @property
    def line(self) -> str:
        """file:line of the text itself."""
        return self.place.partition(" ")[0]

    @property
    def source(self) -> str:
        """The file of that line."""
        return self.line.partition(":")[0]

    @property
    def equivalent(self) -> str | None:
        """Why no test can notice it, if its line says so, or one of the macro uses that led there."""
        for line in self.place.split(" from "):
            name, _, number = line.rpartition(":")
            found = _SURVIVES.search(source(name)[int(number) - 1])
            if found and self.kind in found[1].split(", "):
                return found[2]
        return None

    def __str__(self) -> str:
        name, _, number = self.line.rpartition(":")
        text = source(name)[int(number) - 1].partition("#")[0].strip()
        return f"{self.place}: {self.kind}: {text}"


def inverted(code: bytes) -> bytes:
    """A conditional jump that goes the other way."""
    at = 0 if code[0] in _SHORT_JUMP else 1
    return code[:at] + bytes([code[at] ^ 1]) + code[at + 1 :]


def dropped(code: bytes) -> bytes:
    """Nothing in its place."""
    return NOP * len(code)


def _moved(code: bytes, by: int) -> bytes:
    (one,) = _decoder(is_32_bit=False).disasm(code, 0)
    at, end = one.imm_offset, one.imm_offset + one.imm_size
    value = int.from_bytes(code[at:end], "little") + by
    moved: bytes = (value % (1 << 8 * (end - at))).to_bytes(end - at, "little")
    return code[:at] + moved + code[end:]


def one_more(code: bytes) -> bytes:
    """Compares with a number greater by one."""
    return _moved(code, 1)


def one_less(code: bytes) -> bytes:
    """Compares with a number less by one."""
    return _moved(code, -1)


def unlocked(code: bytes) -> bytes:
    """Without its lock prefix."""
    return NOP + code[1:]


KINDS: dict[str, Callable[[bytes], bytes]] = {
    "inverted": inverted,
    "dropped": dropped,
    "one more": one_more,
    "one less": one_less,
    "unlocked": unlocked,
}


@cache
def _decoder(*, is_32_bit: bool) -> Any:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32 if is_32_bit else capstone.CS_MODE_64)
    decoder.detail = True
    return decoder


def _kinds(code: bytes, following: Instruction | None, line: str) -> Iterator[str]:
    (one,) = _decoder(is_32_bit=is_32_bit(line)).disasm(code, 0)
    if code[0] in _SHORT_JUMP or (code[0] == _TWO_BYTES and code[1] in _NEAR_JUMP):
        yield "inverted"
        yield "dropped"
    elif code[0] == _LOCK and one.mnemonic != "lock xchg":  # which locks without its prefix (SDM, XCHG)
        yield "unlocked"
    elif one.mnemonic in _FENCES or (one.mnemonic in _VERDICTS and following and following.target is not None):
        yield "dropped"
    if one.mnemonic == "cmp" and one.imm_size:
        yield "one more"
        yield "one less"


def _of(one: Blob) -> Iterator[Mutant]:
    instructions = one.instructions
    for instruction, following in zip(instructions, [*instructions[1:], None], strict=True):
        if reason(instruction.place) is None:
            code = one.text[instruction.offset : instruction.offset + instruction.size]
            for kind in _kinds(code, following, instruction.line):
                yield Mutant(*instruction.key, kind)


@cache
def mutants(names: Iterable[str] = RECORDED) -> list[Mutant]:
    """All of these blobs, once for each instruction of the source; lines that never run whole have none."""
    return sorted({mutant for name in names for mutant in _of(blob(name))}, key=_by_line)


def _by_line(mutant: Mutant) -> tuple[str, int, Mutant]:
    name, _, number = mutant.line.rpartition(":")
    return name, int(number), mutant
