"""The flash device: what a guest writes there are commands. What it reads is memory, whatever was commanded.

Source: Intel Common Flash Memory Interface, command set 1; QEMU, hw/block/pflash_cfi01.c, hw/i386/pc_sysfw.c (sectors).
"""

from __future__ import annotations

from typing import Protocol

from mh_emulator.q35.port import ones

SECTOR_BYTES = 4096
_PROGRAM = (0x10, 0x40)
_ERASE, _CONFIRM = 0x20, 0xD0
_ERASED = b"\xff"


class RawArray(Protocol):
    """The bytes behind it, as the host has them."""

    size: int

    def read_raw(self, offset: int, size: int) -> bytes:
        """Read."""

    def write_raw(self, offset: int, data: bytes) -> None:
        """Write."""


class MemoryDevice(Protocol):
    """A device at guest-physical addresses."""

    gpas: range

    def read(self, gpa: int, size: int) -> int:
        """A load."""

    def write(self, gpa: int, size: int, value: int) -> None:
        """A store."""


class NoFlash:
    """None is there."""

    gpas = range(0)

    def read(self, _gpa: int, size: int) -> int:
        """All ones."""
        return ones(size)

    def write(self, _gpa: int, _size: int, _value: int) -> None:
        """Nothing comes of it."""


class Flash:
    """A device that ends at GPA `end`."""

    def __init__(self, array: RawArray, end: int) -> None:
        self._array = array
        self.gpas = range(end - array.size, end)
        self._command = 0

    def read(self, gpa: int, size: int) -> int:
        """What lies there, as far as it does."""
        start = gpa - self.gpas.start
        return int.from_bytes(self._array.read_raw(start, min(size, self.gpas.stop - gpa)), "little")

    def write(self, gpa: int, size: int, value: int) -> None:
        """A command, or what goes with it: a byte to be programmed, the confirmation of an erasure."""
        command, self._command = self._command, 0
        start = gpa - self.gpas.start
        if command in _PROGRAM:
            self._array.write_raw(start, value.to_bytes(size, "little")[: self.gpas.stop - gpa])
        elif command == _ERASE and value & 0xFF == _CONFIRM:
            self._array.write_raw(start // SECTOR_BYTES * SECTOR_BYTES, _ERASED * SECTOR_BYTES)
        else:
            self._command = value & 0xFF
