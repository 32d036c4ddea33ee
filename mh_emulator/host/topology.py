"""Guest RAM as QEMU's q35 lays it out: one block of `ram_addr`, below and above the PCI hole."""

from __future__ import annotations

from dataclasses import dataclass

FOUR_GIB = 1 << 32

LOW_LIMIT = 2 << 30
"""q35 keeps RAM below this once there is more than fits under its PCI hole (hw/i386/pc_q35.c)."""


@dataclass(frozen=True, slots=True)
class Block:
    """`size` bytes of RAM at `gpa`; they are `ram_addr` to `ram_addr` + `size`."""

    gpa: int
    ram_addr: int
    size: int


@dataclass(frozen=True, slots=True)
class Topology:
    """`below` bytes of RAM from GPA 0, `above` bytes from 4 GiB, `unplugged` ones that have no GPA now.

    `ram_addr` counts through all of them. Unplugged RAM (virtio-mem) may still hold what the guest wrote.
    """

    below: int
    above: int
    unplugged: int = 0

    @property
    def ram_bytes(self) -> int:
        """All RAM; every `ram_addr` lies below it."""
        return self.below + self.above + self.unplugged

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The pieces of RAM that are contiguous in both spaces."""
        pieces = (Block(0, 0, self.below), Block(FOUR_GIB, self.below, self.above))
        return tuple(piece for piece in pieces if piece.size)

    @property
    def gpa_end(self) -> int:
        """First GPA behind all RAM."""
        return max(piece.gpa + piece.size for piece in self.blocks)

    def gpa(self, ram_addr: int) -> int:
        """Where the main VM sees `ram_addr`; `ValueError` where it does not."""
        if not 0 <= ram_addr < self.below + self.above:
            raise ValueError(f"ram_addr {ram_addr:#x} has no GPA")
        return ram_addr if ram_addr < self.below else ram_addr - self.below + FOUR_GIB

    def ram_addr(self, gpa: int) -> int:
        """The inverse of `gpa`; `ValueError` where there is no RAM."""
        for piece in self.blocks:
            if piece.gpa <= gpa < piece.gpa + piece.size:
                return gpa - piece.gpa + piece.ram_addr
        raise ValueError(f"no RAM at GPA {gpa:#x}")
