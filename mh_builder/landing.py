"""The landing of an SEV-ES guest at the target of a migration: what is launched for it, and how its vCPU begins there.

Source: AMD64 APM volume 2, section 15.35 (VMSA).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from mh_abi import abi
from mh_abi.sources import PAYLOAD
from mh_builder.asm import ObjectFile, assemble
from mh_builder.flat_segments import GATE_BYTES, GDT, interrupt_gate
from mh_builder.paging import PAGE_BYTES, Span, Tables, level_shift
from mh_builder.save_area import OFFSETS, SEGMENTS

_SOURCE = PAYLOAD / "landing" / "landing.s"

VIEW_BYTES = 1 << 39
"""Of guest-physical memory: what lies above is refused."""

_IDT_OFFSET = 0x40
_VECTORS = 32


@dataclass(frozen=True)
class Landing:
    """The landing at guest-physical `gpa`, on a part with that C-bit, for a guest whose page tables have `levels`."""

    gpa: int
    c_bit: int
    levels: int = 4

    @property
    def contents(self) -> bytes:
        """All that is launched, and so measured, from `gpa` on."""
        system, root = _label("system"), _label("root")
        code, tables = _code(), self._tables().dumps(self.gpa, 1 << self.c_bit)
        if root + len(tables) > len(code):
            raise AssertionError(f"{len(tables):#x} bytes of page tables, room for {len(code) - root:#x}")
        data = bytearray(code)
        data[system : system + PAGE_BYTES] = self._system().ljust(PAGE_BYTES, b"\0")
        data[root : root + len(tables)] = tables
        return bytes(data)

    @property
    def state_offset(self) -> int:
        """Where the page is in which the VMSA of the source has to arrive."""
        return _label("state")

    @property
    def rip(self) -> int:
        """Virtual address of its first instruction."""
        return self._va("landing")

    @property
    def rsp(self) -> int:
        """End of its stack."""
        return self._va("stack_end")

    @property
    def cr3(self) -> int:
        """Its own page tables, with the C-bit."""
        return self.gpa + _label("root") | 1 << self.c_bit

    @property
    def gdtr(self) -> tuple[int, int]:
        """Linear base, and limit in bytes less one."""
        return self._va("system"), len(GDT) - 1

    @property
    def idtr(self) -> tuple[int, int]:
        """Linear base, and limit in bytes less one."""
        return self._va("system") + _IDT_OFFSET, _VECTORS * GATE_BYTES - 1

    @property
    def arguments(self) -> dict[str, int]:
        """Registers by which it knows where it is."""
        return {"rdi": self.gpa, "rsi": 1 << self.c_bit, "rdx": self._view, "rcx": self._shift}

    @property
    def _shift(self) -> int:
        return level_shift(self.levels)

    @property
    def _view(self) -> int:
        return 2 << self._shift

    def _va(self, label: str) -> int:
        return (1 << self._shift) + _label(label)

    def _system(self) -> bytes:
        """GDT, and an IDT in which every exception is the end."""
        return GDT.ljust(_IDT_OFFSET, b"\0") + interrupt_gate(self._va("fault")) * _VECTORS

    def _tables(self) -> Tables:
        tables = Tables(_label("root"), self.levels)
        tables.map(Span(self._view, 0, VIEW_BYTES, writable=True, executable=False, private=True))
        tables.map(self._span("landing", _label("data"), executable=True))
        tables.map(self._span("data", _label("system"), writable=True))
        tables.map(self._span("system", _label("root")))
        tables.map(self._span("root", _label("root") + PAGE_BYTES, writable=True))
        return tables

    def _span(self, start: str, end: int, *, writable: bool = False, executable: bool = False) -> Span:
        offset = _label(start)
        return Span(self._va(start), self.gpa + offset, end - offset, writable, executable, private=True)


@cache
def landing_object() -> ObjectFile:
    """All of it, assembled; its code ends at `data`. Raises `AssemblyError`."""
    return assemble(_SOURCE, symbols=landing_symbols(), name=f"payload/landing/{_SOURCE.name}")


def landing_symbols() -> dict[str, int | str]:
    """What its sources know: the ABI, and where a VMSA has what."""
    fields = {**OFFSETS, **SEGMENTS}
    return abi.assembler_symbols() | {f"vmsa.{name}": offset for name, offset in fields.items()}


def _code() -> bytes:
    return next(bytes(section.data) for section in landing_object().sections if section.name == ".text")


def _label(name: str) -> int:
    return next(symbol.value for symbol in landing_object().symbols if symbol.name == name)
