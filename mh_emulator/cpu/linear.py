"""Linear memory, as the code that a CPU executes now sees it."""

from __future__ import annotations

from contextlib import suppress

from mh_builder.paging import PAGE_BYTES, is_canonical
from mh_emulator.cpu.engine import Engine
from mh_emulator.cpu.mmu import Access, GuestFault, Mmu, Mode
from mh_emulator.cpu.nested import NestedFaultError
from mh_emulator.cpu.registers import CR4_LA57, CR4_PAE, levels
from mh_emulator.dram.process import pieces


class Linear:
    """Linear memory of one CPU."""

    def __init__(self, engine: Engine, mmu: Mmu) -> None:
        self._engine = engine
        self._mmu = mmu

    def mode(self) -> Mode:
        """What the rights depend on."""
        return Mode.of(self._engine.control())

    def read(self, va: int, size: int) -> bytes:
        """Return memory as the supervisor sees it; raise `GuestFault` or `NestedFaultError`."""
        return self._mmu.read(va, size, self.mode().supervisor())

    def code(self, va: int, size: int) -> bytes:
        """Return up to `size` bytes of instructions at `va`, fewer where the next page is missing."""
        mode = self._fetching()
        code = b""
        while len(code) < size and is_canonical(va + len(code), levels(mode.cr4)):
            start = va + len(code)
            length = min(size - len(code), PAGE_BYTES - start % PAGE_BYTES)
            try:
                code += self._mmu.read(start, length, mode, Access.FETCH)
            except (GuestFault, NestedFaultError):
                break
        return code

    def spas(self, va: int, size: int) -> set[int]:
        """SPAs of the instructions there, one in each page, as far as they can be fetched."""
        mode = self._fetching()
        found: set[int] = set()
        for start, _ in pieces(va, size):
            with suppress(GuestFault, NestedFaultError):
                found.add(self._mmu.translate(start, Access.FETCH, mode).spa)
        return found

    def _fetching(self) -> Mode:
        mode = self.mode().supervisor()
        return mode._replace(cr4=mode.cr4 & (CR4_LA57 | CR4_PAE))
