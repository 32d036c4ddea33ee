"""Instructions that leave the guest, and that unicorn would execute in its own way.

Unicorn has no hook for RDMSR and WRMSR, and its hooks for IN, OUT and CPUID cannot stop at the instruction. A page that
is about to be executed is therefore searched for the opcodes that are watched, and a hook is put on every such address.
A hook on bytes that are no instruction of this kind never fires, but at the end of a page: what is there depends on the
next page, so the hook finds it out, and rests until that page is looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from enum import Enum, auto
from functools import cache, lru_cache
from typing import NamedTuple

from mh_builder.paging import PAGE_BYTES
from mh_emulator.cpu.code_filter import CodeFilter, RestingFilter
from mh_emulator.cpu.code_hooks import CodeHooks
from mh_emulator.cpu.engine import Engine

_LOCK = re.compile(rb"[\x64-\x66]?\xf0")
"""LOCK, maybe behind an override of the segment or of the operand size."""
_ANSWERED = re.compile(rb"\x66?[\x40-\x4f]?\x0f(?:\xc7[\xf0-\xff]|\x31)", re.DOTALL)
"""RDRAND, RDSEED and RDTSC."""
_ANSWERED_BEGUN = re.compile(rb"\x66?[\x40-\x4f]?(?:\x0f\xc7?)?")
LONGEST_ANSWERED = 5
SYSCALL_BYTES = 2
MANY_HOOKS = 2000
"""More than these slow translation down by more than it costs to translate all again."""
_STRING = re.compile(rb"[\x26\x2e\x36\x3e\x64-\x67\xf2\xf3]*[\x6c-\x6f]")
"""INS or OUTS with its prefixes; not with REX, which changes nothing there and is INC or DEC in 32-bit code."""
_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf2\xf3")
_MOST_PREFIXES = 4
LONGEST_TRAPPED = _MOST_PREFIXES + 1
_OPEN_BYTES = max(LONGEST_TRAPPED, LONGEST_ANSWERED) - 1
"""At the end of a page; an instruction of these that begins there may end on the next one."""
_OPERAND_SIZE = 0x66
_TWO_BYTE = 0x0F
_RDTSC = 0x31
_RDSEED = 0xF8
"""Last bytes; of RDSEED the first of eight."""


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
_STRING_OPCODE = re.compile(_OPCODES[Trap.STRING])
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


class Traps:
    """The hooks of one engine; `on_trap` gets the address of every candidate that is about to execute.

    `on_lock` gets that of every instruction with LOCK, `on_answered` that of RDRAND and RDTSC. Each returns whether
    such an instruction is there. Which of them are looked for is `watched`; a change is for pages that are covered from
    then on.
    """

    def __init__(
        self,
        engine: Engine,
        on_trap: Callable[[int], bool],
        on_lock: Callable[[int], bool],
        on_answered: Callable[[int], bool],
    ) -> None:
        self.watched: frozenset[Trap] = frozenset()
        self.counts = False
        """Whether the engine counts instructions in what is covered from now on."""
        self._privileged = _Hooks(engine, on_trap)
        self._locks = _Hooks(engine, on_lock)
        self._answered = _Hooks(engine, on_answered)

    @property
    def are_many(self) -> bool:
        """Whether it is time to forget them."""
        return len(self._privileged) + len(self._locks) + len(self._answered) > MANY_HOOKS

    def cover(self, va: int, page: bytes) -> None:
        """Put hooks on the page at virtual address `va`, which holds `page`; wake those at its end, and before it."""
        for hooks in (self._privileged, self._answered):
            for end in (va, va + PAGE_BYTES):
                hooks.open.wake(range(end - _OPEN_BYTES, end))
        self._cover(self._privileged, va, _candidates(page, _pattern(self.watched)))
        if Trap.LOCK in self.watched:
            self._cover(self._locks, va, _locked(page))
        if Trap.RDTSC in self.watched:
            self._cover(self._answered, va, _answered(page))

    def _cover(self, hooks: _Hooks, va: int, offsets: Collection[int]) -> None:
        at_end = {va + offset for offset in offsets if offset >= PAGE_BYTES - _OPEN_BYTES}
        hooks.add(at_end, hooks.open)
        hooks.add({va + offset for offset in offsets} - at_end, hooks.dense if self.counts else hooks.sparse)

    def forget(self) -> None:
        """Remove all hooks; no translated code may be left, and what unicorn then asks of the TLB has no meaning."""
        for hooks in (self._privileged, self._locks, self._answered):
            hooks.forget()


class _Hooks:
    """Hooks for one purpose, each address once: `sparse` ones, `dense` ones while the engine counts.

    Those at the end of a page are `open`.
    """

    def __init__(self, engine: Engine, callback: Callable[[int], bool]) -> None:
        def before(address: int) -> None:
            if not callback(address):
                self.open.rest(address)

        self.sparse, self.dense = CodeHooks(engine, before), CodeFilter(engine, before)
        self.open = RestingFilter(engine, before)
        self._hooked: set[int] = set()

    def __len__(self) -> int:
        return len(self.sparse) + len(self.open)

    def add(self, addresses: set[int], hooks: CodeHooks | CodeFilter) -> None:
        for address in addresses - self._hooked:
            self._hooked.add(address)
            hooks.add(address)

    def forget(self) -> None:
        self._hooked.clear()
        self.sparse.forget()
        self.dense.forget()
        self.open.forget()


@cache
def _pattern(watched: frozenset[Trap]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(pattern for trap, pattern in _OPCODES.items() if trap in watched), re.DOTALL)


@lru_cache(maxsize=256)
def _locked(page: bytes) -> frozenset[int]:
    matches = list(_LOCK.finditer(page))
    return frozenset({match.start() for match in matches} | {match.end() - 1 for match in matches})


@lru_cache(maxsize=256)
def _answered(page: bytes) -> frozenset[int]:
    """Offsets at which RDRAND or RDTSC may begin; a candidate may lack its prefixes, or end on the next page."""
    starts = {start for match in _ANSWERED.finditer(page) for start in range(match.start(), match.end() - 1)}
    tail = range(PAGE_BYTES - LONGEST_ANSWERED + 1, PAGE_BYTES)
    return frozenset(starts | {start for start in tail if _ANSWERED_BEGUN.fullmatch(page, start)})


@lru_cache(maxsize=256)
def _candidates(page: bytes, pattern: re.Pattern[bytes]) -> frozenset[int]:
    found = {match.start() for match in pattern.finditer(page)}
    found |= {start - 1 for start in found if start and page[start - 1] == _OPERAND_SIZE}
    if page[-1] in (_OPERAND_SIZE, _TWO_BYTE):
        found.add(PAGE_BYTES - 1)
    if _OPCODES[Trap.STRING] in pattern.pattern:
        found |= _behind_prefixes(page)
    return frozenset(found)


def _behind_prefixes(page: bytes) -> set[int]:
    """Offsets at which INS or OUTS may begin: each has any of its prefixes before it, and may end on the next page."""
    found: set[int] = set()
    for end in [match.start() for match in _STRING_OPCODE.finditer(page)] + [PAGE_BYTES]:
        start = end
        while start and end - start < _MOST_PREFIXES and page[start - 1] in _PREFIXES:
            start -= 1
            found.add(start)
    return found
