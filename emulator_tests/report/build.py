"""Page tables of the tests' own making, entry by entry."""

from __future__ import annotations

import struct

PAGE = 0x1000
P, W, U, PWT, PCD, A, D, LARGE, G = 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x100
PAT = 0x80
NX = 1 << 63


class Memory:
    """Bytes that grow with every table."""

    def __init__(self) -> None:
        self.data = bytearray()

    def table(self, entries: dict[int, int] | None = None) -> int:
        """A new table; returns its GPA."""
        gpa = len(self.data)
        self.data += bytes(PAGE)
        for index, entry in (entries or {}).items():
            self.set(gpa, index, entry)
        return gpa

    def set(self, table: int, index: int, entry: int) -> None:
        struct.pack_into("<Q", self.data, table + 8 * index, entry)

    def chain(self, levels: int, leaf_table: int, bits: int = P | W | U) -> int:
        """Tables from the root down to `leaf_table`, which serves virtual address 0."""
        below = leaf_table
        for _ in range(levels - 1):
            below = self.table({0: below | bits})
        return below
