"""Guest RAM by guest-physical address, as the host sees it."""

from __future__ import annotations

from mh_emulator.dram.process import UserMemory
from mh_emulator.host.topology import Block, Topology


class HostView:
    """`memory` laid out as `topology`: ciphertext where the guest writes privately."""

    def __init__(self, topology: Topology, memory: UserMemory) -> None:
        self._topology = topology
        self._memory = memory

    def has(self, gpa: int, size: int) -> bool:
        """Whether all of it is in one piece of RAM."""
        return self._block(gpa, size) is not None

    def read_raw(self, gpa: int, size: int) -> bytes:
        """Read; `ValueError` where not all of it is RAM."""
        return self._memory.read_raw(self._offset(gpa, size), size)

    def write_raw(self, gpa: int, data: bytes) -> None:
        """Write; the same."""
        self._memory.write_raw(self._offset(gpa, len(data)), data)

    def _offset(self, gpa: int, size: int) -> int:
        block = self._block(gpa, size)
        if block is None:
            raise ValueError(f"no RAM at GPA {gpa:#x}, {size:#x} bytes")
        return gpa - block.gpa + block.ram_addr

    def _block(self, gpa: int, size: int) -> Block | None:
        found = (one for one in self._topology.blocks if one.gpa <= gpa and gpa + size <= one.gpa + one.size)
        return next(found, None)
