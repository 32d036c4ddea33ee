"""QEMU's configuration device, by ports and by DMA.

DMA is the host's: it reads and writes guest memory without the guest's key. A guest that forgets to share what it
names gets ciphertext, and the device finds no descriptor in its own.
Source: QEMU, docs/specs/fw_cfg.rst, hw/nvram/fw_cfg.c.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mh_emulator.q35.port import ones

PORTS = range(0x510, 0x51C)
_SELECT, _DATA, _DMA = 0x510, 0x511, 0x514
_SIGNATURE, _ID, _UUID, _RAM, _GRAPHICS, _CPUS, _MENU, _MAX_CPUS, _FILES = 0, 1, 2, 3, 4, 5, 0x0E, 0x0F, 0x19
_FIRST_FILE = 0x20
_HAS_DMA = 1 << 1 | 1 << 0
_DMA_SIGNATURE = int.from_bytes(b"QEMU CFG", "big")
_FILE = struct.Struct(">IHH56s")
_DESCRIPTOR = struct.Struct(">IIQ")
_ERROR, _READ, _SKIP, _CHOOSE, _WRITE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4
_PIECE = 1 << 16


class RawMemory(Protocol):
    """Guest-physical memory as the host sees it."""

    def has(self, gpa: int, size: int) -> bool:
        """Whether all of it is there."""

    def read_raw(self, gpa: int, size: int) -> bytes:
        """Read it."""

    def write_raw(self, gpa: int, data: bytes) -> None:
        """Write it."""


@dataclass(frozen=True)
class Offer:
    """What a guest finds: files by name, and items by their number."""

    files: Mapping[str, bytes]
    items: Mapping[int, bytes]


class FwCfgState(NamedTuple):
    """The item that is chosen, how far it has been read, and half of an address."""

    chosen: int
    offset: int
    dma_high: int


class FwCfg:
    """Items of a guest with one vCPU and `ram_bytes` of RAM, and what is offered to it."""

    def __init__(self, memory: RawMemory, ram_bytes: int) -> None:
        self.memory = memory
        self._chosen, self._offset = 0, 0
        self._dma_high = 0
        self._items = {
            _SIGNATURE: b"QEMU",
            _ID: struct.pack("<I", _HAS_DMA),
            _UUID: bytes(16),
            _RAM: struct.pack("<Q", ram_bytes),
            _GRAPHICS: bytes(2),
            _CPUS: struct.pack("<H", 1),
            _MENU: bytes(2),
            _MAX_CPUS: struct.pack("<H", 1),
        }
        self._files: dict[str, bytes] = {}

    @property
    def state(self) -> FwCfgState:
        """What it keeps beside what it offers."""
        return FwCfgState(self._chosen, self._offset, self._dma_high)

    def restore(self, state: FwCfgState) -> None:
        """Keep that."""
        self._chosen, self._offset, self._dma_high = state

    def offer(self, offer: Offer) -> None:
        """Have more of both, before the guest looks."""
        self._files |= offer.files
        self._items |= offer.items
        directory = struct.pack(">I", len(self._files))
        for key, (name, data) in enumerate(sorted(self._files.items()), _FIRST_FILE):
            self._items[key] = data
            directory += _FILE.pack(len(data), key, 0, name.encode())
        self._items[_FILES] = directory

    def read(self, port: int, size: int) -> int:
        """The next bytes of the item that was chosen."""
        if port == _SELECT:
            return self._chosen & ones(size)
        if port == _DATA:
            return int.from_bytes(self._take(size), "little")
        return int.from_bytes(_DMA_SIGNATURE.to_bytes(8, "big")[port - _DMA :][:size], "little")

    def write(self, port: int, size: int, value: int) -> None:
        """Choose an item, or begin a transfer; the address of its descriptor is big-endian."""
        swapped = int.from_bytes(value.to_bytes(size, "little"), "big")
        if port == _SELECT:
            self._choose(value & 0xFFFF)
        elif (port, size) == (_DMA, 4):
            self._dma_high = swapped
        elif (port, size) == (_DMA + 4, 4):
            gpa, self._dma_high = self._dma_high << 32 | swapped, 0
            self._transfer(gpa)

    def _choose(self, key: int) -> None:
        self._chosen, self._offset = key, 0

    def _take(self, size: int) -> bytes:
        found = self._items.get(self._chosen, b"")[self._offset : self._offset + size]
        self._offset += size
        return found.ljust(size, b"\0")

    def _transfer(self, gpa: int) -> None:
        if not self.memory.has(gpa, _DESCRIPTOR.size):
            # Nobody can be told.
            return
        control, size, where = _DESCRIPTOR.unpack(self.memory.read_raw(gpa, _DESCRIPTOR.size))
        result = 0 if self._carry_out(control, size, where) else _ERROR
        self.memory.write_raw(gpa, result.to_bytes(4, "big"))

    def _carry_out(self, control: int, size: int, where: int) -> bool:
        if control & _CHOOSE:
            self._choose(control >> 16)
        if control & _WRITE:
            return False
        if control & _READ:
            return self._copy(size, where)
        if control & _SKIP:
            self._offset += size
        return True

    def _copy(self, size: int, where: int) -> bool:
        if not self.memory.has(where, size):
            return False
        for start in range(where, where + size, _PIECE):
            self.memory.write_raw(start, self._take(min(_PIECE, where + size - start)))
        return True
