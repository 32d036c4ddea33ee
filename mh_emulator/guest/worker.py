"""The guest program: its pages, its page tables, its start, and what it has to compute.

Everything of the guest's own lies in one run of RAM: information page, code page, page tables.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mh_builder.asm import assemble
from mh_builder.paging import PAGE_BYTES, Span, Tables

_INFO = struct.Struct("<QQQQ")
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


@dataclass(frozen=True)
class Worker:
    """The program for given pieces of RAM, to be put at guest-physical `base`."""

    base: int
    pieces: tuple[Piece, ...]
    rounds: int

    @property
    def entry(self) -> int:
        """Where the vCPU starts, with RDI at `base`."""
        return self.base + PAGE_BYTES

    @property
    def cr3(self) -> int:
        """The root table, without C-bit."""
        return self.base + 2 * PAGE_BYTES

    def load(self, c_mask: int) -> bytes:
        """Information page, code and page tables; identity-mapped, private, writable or executable."""
        info = _INFO.pack(self.rounds, SEED, 0, 0)
        info += b"".join(_PIECE.pack(piece.gpa, piece.size) for piece in self.pieces) + _PIECE.pack(0, 0)
        code = _code()
        if len(info) > PAGE_BYTES or len(code) > PAGE_BYTES:
            raise AssertionError(f"{len(self.pieces)} pieces and {len(code):#x} bytes of code in a page each")
        head = info.ljust(PAGE_BYTES, b"\0") + code.ljust(PAGE_BYTES, b"\xcc")
        return head + self._tables().dumps(self.base, c_mask)

    def _tables(self) -> Tables:
        tables = Tables(2 * PAGE_BYTES)
        tables.map(Span(self.base, self.base, PAGE_BYTES, writable=True, executable=False, private=True))
        tables.map(Span(self.entry, self.entry, PAGE_BYTES, writable=False, executable=True, private=True))
        for piece in self.pieces:
            tables.map(Span(piece.gpa, piece.gpa, piece.size, writable=True, executable=False, private=True))
        return tables

    @staticmethod
    def result(info: bytes) -> Result:
        """Read the information page of a guest that has halted."""
        _, hash_value, total, pages = _INFO.unpack_from(info)
        return Result(hash_value, total, pages)

    def instructions(self) -> int:
        """Roughly how many instructions the whole run takes."""
        pages = sum(piece.size for piece in self.pieces) // PAGE_BYTES
        return pages * self.rounds * INSTRUCTIONS_PER_PAGE


@cache
def _code() -> bytes:
    text = assemble(Path(__file__).with_name("worker.s")).sections[0]
    return text.data


def expected(pages: Sequence[bytearray], rounds: int) -> Result:
    """What the guest computes over `pages`, in the order of its pieces; changes them as it does."""
    hash_value, total, seen = SEED, 0, 0
    for _ in range(rounds):
        for page in pages:
            offset = hash_value >> 40 & 0xFF8
            word = int.from_bytes(page[offset : offset + 8], "little")
            total += word
            hash_value = (hash_value << 13 | hash_value >> 51) & _MASK
            hash_value = (hash_value ^ word) * MULTIPLIER & _MASK
            if seen & 3 == 0:
                page[offset : offset + 8] = hash_value.to_bytes(8, "little")
            seen += 1
    return Result(hash_value, total & _MASK, seen)
