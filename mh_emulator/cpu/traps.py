"""Instructions that leave the guest, and that unicorn would execute in its own way.

Unicorn has no hook for HLT, RDMSR and WRMSR, and its hooks for IN and OUT cannot stop at the instruction.
A page that is about to be executed is therefore searched for their opcodes, and a hook is put on every such
address. A hook on bytes that are no instruction of this kind never fires, or finds that out and does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from mh_builder.paging import PAGE_BYTES
from mh_emulator.cpu.engine import Engine

_OPCODES = re.compile(rb"[\xf4\xe4-\xe7\xec-\xef]|\x0f[\x30\x32\xa2]", re.DOTALL)
_LOCK = re.compile(rb"[\x64-\x66]?\xf0")
"""LOCK, maybe behind an override of the segment or of the operand size."""
_ANSWERED = re.compile(rb"\x66?[\x40-\x4f]?\x0f(?:\xc7[\xf0-\xf7]|\x31)", re.DOTALL)
"""RDRAND and RDTSC."""
LONGEST_ANSWERED = 5
_OPERAND_SIZE = 0x66
_TWO_BYTE = 0x0F
_RDTSC = 0x31


class Trap(Enum):
    """Why an instruction leaves the guest."""

    HLT = auto()
    RDMSR = auto()
    WRMSR = auto()
    IN = auto()
    OUT = auto()
    CPUID = auto()
    LOCK = auto()
    RDRAND = auto()
    RDTSC = auto()


class Trapped(NamedTuple):
    """A trapping instruction: its length, and for IN and OUT the port (None: DX) and the bytes moved."""

    trap: Trap
    length: int
    port: int | None = None
    size: int = 0


def classify(code: bytes) -> Trapped | None:
    """Return which trap the instruction at the start of `code` is."""
    prefixes = 1 if code[:1] == bytes([_OPERAND_SIZE]) else 0
    opcode = code[prefixes : prefixes + 2]
    if opcode[:1] == b"\xf4":
        return Trapped(Trap.HLT, prefixes + 1)
    if opcode == b"\x0f\x30":
        return Trapped(Trap.WRMSR, prefixes + 2)
    if opcode == b"\x0f\x32":
        return Trapped(Trap.RDMSR, prefixes + 2)
    if opcode == b"\x0f\xa2":
        return Trapped(Trap.CPUID, prefixes + 2)
    if not opcode or opcode[0] not in (*range(0xE4, 0xE8), *range(0xEC, 0xF0)):
        return None
    trap = Trap.OUT if opcode[0] & 2 else Trap.IN
    wide = 2 if prefixes else 4
    size = wide if opcode[0] & 1 else 1
    if opcode[0] & 8:
        return Trapped(trap, prefixes + 1, None, size)
    return Trapped(trap, prefixes + 2, opcode[1], size) if len(opcode) == 2 else None


def classify_answered(code: bytes) -> Trapped | None:
    """Which of RDRAND and RDTSC the instruction at the start of `code` is."""
    found = _ANSWERED.match(code)
    if found is None:
        return None
    return Trapped(Trap.RDTSC if found[0][-1] == _RDTSC else Trap.RDRAND, found.end())


class Traps:
    """The hooks of one engine; `on_trap` gets the address of every candidate that is about to execute.

    `on_lock` gets that of every instruction with LOCK, `on_answered` that of RDRAND and RDTSC, while they are looked
    for.
    """

    def __init__(
        self,
        engine: Engine,
        on_trap: Callable[[int], None],
        on_lock: Callable[[int], None],
        on_answered: Callable[[int], None],
    ) -> None:
        self._always = (_Hooks(engine, on_trap, _candidates), _Hooks(engine, on_lock, _locked))
        self._answered = _Hooks(engine, on_answered, _answered)
        self.answered = False
        """Whether RDRAND and RDTSC are looked for in pages that are covered from now on."""

    def cover(self, va: int, page: bytes) -> None:
        """Put hooks on the page at virtual address `va`, which holds `page`."""
        for hooks in self._always:
            hooks.cover(va, page)
        if self.answered:
            self._answered.cover(va, page)


class _Hooks:
    """Hooks for one purpose: on the offsets that `find` gives."""

    def __init__(self, engine: Engine, callback: Callable[[int], None], find: Callable[[bytes], set[int]]) -> None:
        self._add = engine.code_hook(callback)
        self._find = find
        self._hooked: set[int] = set()

    def cover(self, va: int, page: bytes) -> None:
        # Hooks stay for good: translated code refers to them.
        for address in {va + offset for offset in self._find(page)} - self._hooked:
            self._hooked.add(address)
            self._add(address)


def _locked(page: bytes) -> set[int]:
    matches = list(_LOCK.finditer(page))
    return {match.start() for match in matches} | {match.end() - 1 for match in matches}


def _answered(page: bytes) -> set[int]:
    """Offsets at which RDRAND or RDTSC may begin; a candidate may lack its prefixes, or end on the next page."""
    starts = {start for match in _ANSWERED.finditer(page) for start in range(match.start(), match.end() - 1)}
    return starts | set(range(PAGE_BYTES - LONGEST_ANSWERED + 1, PAGE_BYTES))


def _candidates(page: bytes) -> set[int]:
    found = {match.start() for match in _OPCODES.finditer(page)}
    found |= {start - 1 for start in found if start and page[start - 1] == _OPERAND_SIZE}
    if page[-1] in (_OPERAND_SIZE, _TWO_BYTE):
        found.add(PAGE_BYTES - 1)
    return found
