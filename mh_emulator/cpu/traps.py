"""Instructions that leave the guest, and that unicorn would execute in its own way.

Unicorn has no hook for RDMSR and WRMSR, and its hooks for IN, OUT and CPUID cannot stop at the instruction. But it
tells of every block of instructions that it has translated, before it executes it. A hook is then put on each
instruction in there that is watched, and the block is translated again, with its hooks. So code costs what it executes,
whatever its bytes look like.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from functools import cache, lru_cache
from typing import NamedTuple

from capstone import CS_ARCH_X86, CS_MODE_16, CS_MODE_32, CS_MODE_64, Cs

from mh_emulator.cpu.blocks import Block, Known
from mh_emulator.cpu.code_filter import CodeFilter
from mh_emulator.cpu.code_hooks import CodeHooks
from mh_emulator.cpu.engine import Engine
from mh_emulator.cpu.hooks import Foreign
from mh_emulator.cpu.operands import LONGEST_INSTRUCTION

_LOCK = re.compile(rb"[\x64-\x66]?\xf0")
"""LOCK, maybe behind an override of the segment or of the operand size."""
_ANSWERED = re.compile(rb"\x66?[\x40-\x4f]?\x0f(?:\xc7[\xf0-\xff]|\x31)", re.DOTALL)
"""RDRAND, RDSEED and RDTSC."""
LONGEST_ANSWERED = 5
SYSCALL_BYTES = 2
MANY_HOOKS = 2000
"""More than these slow translation down by more than it costs to translate all again."""
_STRING = re.compile(rb"[\x26\x2e\x36\x3e\x64-\x67\xf2\xf3]*[\x6c-\x6f]")
"""INS or OUTS with its prefixes; not with REX, which changes nothing there and is INC or DEC in 32-bit code."""
_MOST_PREFIXES = 4
LONGEST_TRAPPED = _MOST_PREFIXES + 1
_OPERAND_SIZE = 0x66
_RDTSC = 0x31
_RDSEED = 0xF8
"""Last bytes; of RDSEED the first of eight."""
_LEAVES = ("call", "hlt", "iret", "j", "loop", "ret")
"""How mnemonics begin behind which another block begins."""
_AT_ONCE = 16
"""Instructions that are decoded in one go."""
_REMEMBERED, _REMEMBERED_FIRST = 1 << 14, 1 << 8
"""Blocks, and pages with a first block, whose instructions are remembered."""
LONG_MODES, LEGACY_MODES = (CS_MODE_64,), (CS_MODE_32, CS_MODE_16)
"""What may be the mode of code, where it is known whether that has 64 bits."""


class Trap(Enum):
    """Why an instruction leaves the guest."""

    HLT = auto()
    RDMSR = auto()
    WRMSR = auto()
    IN = auto()
    OUT = auto()
    STRING = auto()
    """INS and OUTS."""
    CPUID = auto()
    LOCK = auto()
    RDRAND = auto()
    RDSEED = auto()
    RDTSC = auto()
    SYSCALL = auto()
    """unicorn does nothing for it, and has a hook: RIP is behind it."""


_OPCODES = {
    Trap.HLT: rb"\xf4", Trap.IN: rb"[\xe4\xe5\xec\xed]", Trap.OUT: rb"[\xe6\xe7\xee\xef]",
    Trap.STRING: rb"[\x6c-\x6f]", Trap.RDMSR: rb"\x0f\x32", Trap.WRMSR: rb"\x0f\x30", Trap.CPUID: rb"\x0f\xa2",
}  # fmt: skip
ALWAYS = frozenset({Trap.RDMSR, Trap.WRMSR})
"""What is to be watched in every guest."""


class Trapped(NamedTuple):
    """A trapping instruction: its length, and for IN and OUT the port (None: DX) and the bytes moved."""

    trap: Trap
    length: int
    port: int | None = None
    size: int = 0


def classify(code: bytes) -> Trapped | None:
    """Return which trap the instruction at the start of `code` is."""
    string = _STRING.match(code)
    if string is not None:
        return Trapped(Trap.STRING, string.end())
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
    """Which of RDRAND, RDSEED and RDTSC the instruction at the start of `code` is."""
    found = _ANSWERED.match(code)
    if found is None:
        return None
    last = found[0][-1]
    trap = Trap.RDTSC if last == _RDTSC else Trap.RDSEED if last >= _RDSEED else Trap.RDRAND
    return Trapped(trap, found.end())


class Purpose(Enum):
    """What a hook does at its instruction."""

    TRAP = auto()
    LOCK = auto()
    ANSWER = auto()


class Found(NamedTuple):
    """An instruction that needs a hook: what for, and where it begins in what was looked at."""

    purpose: Purpose
    start: int


class Traps:
    """The hooks of one engine; `on_trap` gets the address of every trapping instruction that is about to execute.

    `on_lock` gets that of every instruction with LOCK, while `crowd` is not 0 or always, `on_answered` that of RDRAND
    and RDTSC.
    """

    def __init__(
        self,
        engine: Engine,
        on_trap: Callable[[int], None],
        on_lock: Callable[[int], None],
        on_answered: Callable[[int], None],
        crowd: ctypes.c_uint64,
    ) -> None:
        self._engine = engine
        self.watched: frozenset[Trap] = frozenset()
        """Which of them are looked for."""
        self.known = _known(self.watched)
        """Blocks without any of them."""
        self.counts = False
        """Whether the engine counts instructions in what is translated from now on."""
        self._hooks = {
            Purpose.TRAP: _Hooks(engine, on_trap),
            Purpose.LOCK: _Hooks(engine, on_lock, crowd),
            Purpose.ANSWER: _Hooks(engine, on_answered),
        }

    def __len__(self) -> int:
        return sum(map(len, self._hooks.values()))

    @property
    def are_many(self) -> bool:
        """Whether it is time to forget them."""
        return len(self) > MANY_HOOKS

    def watch(self, wanted: frozenset[Trap]) -> None:
        """Have these looked for in blocks that are translated from now on."""
        self.watched, self.known = wanted, _known(wanted)

    def cover(self, block: Block) -> bool:
        """Put hooks on what is watched in a block; return whether there are new ones, for which it is too late."""
        found = _in_block(block.code, block.instructions, self.watched)
        if not found:
            self.known.add(block)
        return self._add(block.address, found)

    def cover_first(self, address: int, code: bytes) -> None:
        """Put hooks on what is watched in the first block of `code`, which is translated next, in the engine's mode.

        In a mode that is not its own code has what is none of its instructions, and each hook slows down translation.
        """
        modes = LONG_MODES if self._engine.is_64_bit() else LEGACY_MODES
        self._add(address, _in_first(code, self.watched, modes))

    def _add(self, address: int, found: Iterable[Found]) -> bool:
        are_new = False
        for purpose, start in found:
            are_new |= self._hooks[purpose].add(address + start, counts=self.counts)
        return are_new

    def forget(self) -> None:
        """Remove all hooks; no translated code may be left, and what unicorn then asks of the TLB has no meaning."""
        for hooks in self._hooks.values():
            hooks.forget()


class _Hooks:
    """Hooks for one purpose, each address once: `sparse` ones, `dense` ones while the engine counts."""

    def __init__(self, engine: Engine, callback: Callable[[int], None], flag: ctypes.c_uint64 | None = None) -> None:
        self._sparse, self._dense = CodeHooks(engine, callback, flag), CodeFilter(engine, callback)
        self._hooked: set[int] = set()

    def __len__(self) -> int:
        return len(self._sparse)

    def add(self, address: int, *, counts: bool) -> bool:
        """Whether that is a new one."""
        if address in self._hooked:
            return False
        self._hooked.add(address)
        (self._dense if counts else self._sparse).add(address)
        return True

    def forget(self) -> None:
        self._hooked.clear()
        self._sparse.forget()
        self._dense.forget()


@cache
def _known(_watched: frozenset[Trap]) -> Known:
    return Known()


@cache
def _pattern(watched: frozenset[Trap]) -> re.Pattern[bytes]:
    """Where the opcode of anything that is looked for may be."""
    patterns = [pattern for trap, pattern in _OPCODES.items() if trap in watched]
    if Trap.RDTSC in watched:
        patterns.append(_ANSWERED.pattern)
    if Trap.LOCK in watched:
        patterns.append(_LOCK.pattern)
    return re.compile(b"(?=" + b"|".join(patterns) + b")", re.DOTALL)


@lru_cache(_REMEMBERED)
def _in_block(code: bytes, instructions: int, watched: frozenset[Trap]) -> tuple[Found, ...]:
    """What is watched in a block; the same code is run on many a CPU."""
    return _found(code, _starts(code, instructions), watched) if _pattern(watched).search(code) else ()


@lru_cache(_REMEMBERED_FIRST)
def _in_first(code: bytes, watched: frozenset[Trap], modes: tuple[int, ...]) -> tuple[Found, ...]:
    """What is watched in the first block of `code`, whichever of the modes it is of."""
    return _found(code, {start for decoder in _decoders(modes) for start in _swept(decoder, code)}, watched)


def _found(code: bytes, starts: Iterable[int], watched: frozenset[Trap]) -> tuple[Found, ...]:
    opcodes = [found.start() for found in _pattern(watched).finditer(code)]
    may_be = {opcode - prefixes for opcode in opcodes for prefixes in range(LONGEST_TRAPPED)}
    purposes = ((_purpose(code, start, watched), start) for start in sorted(may_be.intersection(starts)))
    return tuple(Found(purpose, start) for purpose, start in purposes if purpose is not None)


def _purpose(code: bytes, start: int, watched: frozenset[Trap]) -> Purpose | None:
    """What the instruction there needs a hook for, if it needs one."""
    trapped = classify(code[start : start + LONGEST_TRAPPED])
    if trapped is not None and trapped.trap in watched:
        return Purpose.TRAP
    if Trap.RDTSC in watched and _ANSWERED.match(code, start):
        return Purpose.ANSWER
    return Purpose.LOCK if Trap.LOCK in watched and _LOCK.match(code, start) else None


def _starts(code: bytes, instructions: int) -> Iterable[int]:
    """Where its instructions begin; every byte of a block that nobody but unicorn understands."""
    for decoder in _decoders((*LONG_MODES, *LEGACY_MODES)):
        found = [(start, start + size) for start, size, _, _ in decoder.disasm_lite(code, 0)]
        if found and (len(found), found[-1][1]) == (instructions, len(code)):
            return [start for start, _ in found]
    return range(len(code))


def _swept(decoder: Foreign, code: bytes) -> Iterator[int]:
    """Where instructions may begin up to one that ends a block; every byte from what is none on."""
    end = 0
    while found := list(decoder.disasm_lite(code[end : end + _AT_ONCE * LONGEST_INSTRUCTION], end, _AT_ONCE)):
        for start, size, mnemonic, _ in found:
            yield start
            if mnemonic.startswith(_LEAVES):
                return
            end = start + size
    yield from range(end, len(code))


@cache
def _decoders(modes: tuple[int, ...]) -> tuple[Foreign, ...]:
    return tuple(Cs(CS_ARCH_X86, mode) for mode in modes)
