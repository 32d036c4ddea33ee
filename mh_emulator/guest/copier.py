"""A guest program that copies memory, with page tables of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mh_builder.asm import assemble
from mh_builder.paging import PAGE_BYTES, Span, Tables
from mh_emulator.cpu.registers import Registers


@dataclass(frozen=True, slots=True)
class Copier:
    """Copies `size` bytes from GPA `source` to GPA `target`; lies at GPA `base`, tables behind its code."""

    base: int
    source: int
    target: int
    size: int
    shared_target: bool = False
    """Whether the target is mapped without the C-bit, for the host to read."""

    def load(self, c_mask: int) -> bytes:
        """Code page and tables, identity-mapped."""
        tables = Tables(PAGE_BYTES)
        tables.map(Span(self.base, self.base, PAGE_BYTES, writable=False, executable=True, private=True))
        tables.map(Span(self.source, self.source, self.size, writable=False, executable=False, private=True))
        is_private = not self.shared_target
        tables.map(Span(self.target, self.target, self.size, writable=True, executable=False, private=is_private))
        return _code().ljust(PAGE_BYTES, b"\xcc") + tables.dumps(self.base, c_mask)

    def registers(self, c_mask: int) -> Registers:
        """What the vCPU starts with."""
        state = Registers.long_mode(self.base, 0, self.base + PAGE_BYTES | c_mask)
        return state.with_changes(rsi=self.source, rdi=self.target, rcx=self.size)


@cache
def _code() -> bytes:
    return assemble(Path(__file__).with_name("copier.s")).sections[0].data
