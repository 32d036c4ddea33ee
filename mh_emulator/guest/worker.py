"""The guest program: its pages, its page tables, its start, and what it has to compute.

Everything of the guest's own lies in one run of RAM: information page, code page, GDT with IDT and stack, page tables,
a page that it shares (its GHCB under SEV-ES), the page in which its registers arrive under SEV-ES.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mh_abi import abi
from mh_builder.asm import ObjectFile, assemble
from mh_builder.flat_segments import CS, GATE_BYTES, GDT, SS, interrupt_gate
from mh_builder.paging import PAGE_BYTES, Span, Tables
from mh_builder.save_area import OFFSETS, SEGMENTS
from mh_emulator.cpu.registers import Registers, Table
from mh_emulator.guest.contents import Contents

_INFO = struct.Struct("<QQQQQQ")
_HANDOVER = 0x800
"""Where in its page the structure lies that the guest hands over."""
_PIECE = struct.Struct("<QQ")

MULTIPLIER = 0x9E3779B97F4A7C15
SEED = 0x0123456789ABCDEF
_MASK = (1 << 64) - 1

INSTRUCTIONS_PER_PAGE = 17
"""Of the inner loop, on average; only decides when the host stops the guest."""


@dataclass(frozen=True, slots=True)
class Piece:
    """RAM that the guest works on: `size` bytes at `gpa`."""

    gpa: int
    size: int


@dataclass(frozen=True, slots=True)
class Result:
    """What the guest leaves in its information page."""

    hash: int
    sum: int
    pages: int


WORKER_BYTES = 32 * PAGE_BYTES
"""For all of the guest's own pages."""
_PAGES = {"info": 0, "code": 1, "system": 2, "tables": 3, "shared": 30, "state": 31}
"""Where in them which page lies; the last two, which are not moved with the others, behind all tables."""
_IDT_OFFSET = 0x40
_VECTOR_VC = 29


@dataclass(frozen=True)
class Worker:
    """The program for given pieces of RAM, to be put at guest-physical `base`.

    `handover` is the `mh_handover` that it writes into its page at `carrier`; there is none where that is 0.
    """

    base: int
    pieces: tuple[Piece, ...]
    rounds: int
    carrier: int = 0
    handover: bytes = b""

    @property
    def shared(self) -> int:
        """GPA of the page that the guest shares with its host."""
        return self._page("shared")

    @property
    def state(self) -> int:
        """GPA of the page in which the VMSA of the source has to arrive."""
        return self._page("state")

    def start(self, c_mask: int) -> Registers:
        """How the vCPU begins to work."""
        return self._registers("worker", c_mask)

    def landing(self, c_mask: int) -> Registers:
        """How the vCPU of an SEV-ES guest begins on the target: it waits for the registers of the source."""
        return self._registers("landing", c_mask).with_changes(rsi=self.state)

    def contents(self, c_mask: int) -> list[tuple[int, bytes]]:
        """(GPA, bytes) of what has to be in private memory before the vCPU starts."""
        info = _INFO.pack(self.rounds, SEED, 0, 0, self.shared, self.carrier)
        info += b"".join(_PIECE.pack(piece.gpa, piece.size) for piece in self.pieces) + _PIECE.pack(0, 0)
        code = _code().sections[0].data
        if len(info) > _HANDOVER or len(code) > PAGE_BYTES:
            raise AssertionError(f"{len(self.pieces)} pieces and {len(code):#x} bytes of code in a page each")
        info = info.ljust(_HANDOVER, b"\0") + self.handover
        tables = self._tables().dumps(self.base, c_mask)
        if self._page("tables") + len(tables) > self.shared:
            raise AssertionError(f"{len(tables):#x} bytes of page tables reach the page that the guest shares")
        return [
            (self.base, info.ljust(PAGE_BYTES, b"\0") + code.ljust(PAGE_BYTES, b"\xcc")),
            (self._page("system"), self._system().ljust(PAGE_BYTES, b"\0")),
            (self._page("tables"), tables),
        ]

    def awaiting(self, c_mask: int) -> list[tuple[int, bytes]]:
        """`contents`, and the page of registers for a vCPU at `landing`, cleared: memory never launched is not zero."""
        return [*self.contents(c_mask), (self.state, bytes(PAGE_BYTES))]

    def _page(self, name: str) -> int:
        return self.base + _PAGES[name] * PAGE_BYTES

    def _registers(self, entry: str, c_mask: int) -> Registers:
        system = self._page("system")
        state = Registers.long_mode(self._address(entry), system + PAGE_BYTES, self._page("tables") | c_mask)
        return state.with_changes(
            cs=CS,
            ss=SS,
            rdi=self.base,
            gdtr=Table(system, len(GDT) - 1),
            idtr=Table(system + _IDT_OFFSET, (_VECTOR_VC + 1) * 16 - 1),
        )

    def _address(self, symbol: str) -> int:
        return self._page("code") + next(found.value for found in _code().symbols if found.name == symbol)

    def _system(self) -> bytes:
        """GDT, and an IDT with nothing but #VC; the stack ends with the page."""
        handler = self._address("vc")
        return GDT.ljust(_IDT_OFFSET, b"\0") + bytes(_VECTOR_VC * GATE_BYTES) + interrupt_gate(handler)

    def _tables(self) -> Tables:
        tables = Tables(self._page("tables") - self.base)
        for name in ("info", "system", "state"):
            tables.map(_data(self._page(name), PAGE_BYTES, private=True))
        code = self._page("code")
        tables.map(Span(code, code, PAGE_BYTES, writable=False, executable=True, private=True))
        for gpa in (self.shared, *([self.carrier] if self.carrier else [])):
            tables.map(_data(gpa, PAGE_BYTES, private=False))
        for piece in self.pieces:
            tables.map(_data(piece.gpa, piece.size, private=True))
        return tables

    @staticmethod
    def result(info: bytes) -> Result:
        """Read the information page of a guest that has halted."""
        _, hash_value, total, pages, _, _ = _INFO.unpack_from(info)
        return Result(hash_value, total, pages)

    def instructions(self) -> int:
        """Roughly how many instructions the whole run takes."""
        pages = sum(piece.size for piece in self.pieces) // PAGE_BYTES
        return pages * self.rounds * INSTRUCTIONS_PER_PAGE


def _data(gpa: int, size: int, *, private: bool) -> Span:
    return Span(gpa, gpa, size, writable=True, executable=False, private=private)


@cache
def _code() -> ObjectFile:
    vmsa = {f"vmsa.{name}": offset for name, offset in {**OFFSETS, **SEGMENTS}.items()}
    return assemble(Path(__file__).with_name("worker.s"), symbols=abi.assembler_symbols() | vmsa)


def expected(contents: Contents, rounds: int) -> tuple[Result, dict[int, bytes]]:
    """What the guest computes over these contents of its pieces, and the words that it leaves changed, by offset."""
    hash_value, total, seen = SEED, 0, 0
    changed: dict[int, bytes] = {}
    for _ in range(rounds):
        for page in range(0, len(contents), PAGE_BYTES):
            place = page + (hash_value >> 40 & 0xFF8)
            # Behind the end of the contents are zeros.
            word = int.from_bytes(changed.get(place) or contents[place : place + 8], "little")
            total += word
            hash_value = (hash_value << 13 | hash_value >> 51) & _MASK
            hash_value = (hash_value ^ word) * MULTIPLIER & _MASK
            if seen & 3 == 0:
                changed[place] = hash_value.to_bytes(8, "little")
            seen += 1
    return Result(hash_value, total + MULTIPLIER & _MASK, seen), changed
