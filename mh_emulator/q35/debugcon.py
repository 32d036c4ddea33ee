"""The debug port, to which OVMF and the loader write.

Source: QEMU, hw/char/debugcon.c (0xE9 is how a guest knows it).
"""

from __future__ import annotations

from mh_abi import abi
from mh_emulator.q35.console import Console

PORTS = range(abi.MH_DEBUG_PORT, abi.MH_DEBUG_PORT + 1)
_READBACK = 0xE9


class DebugPort:
    """What is written is printed on `console`."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def read(self, _port: int, _size: int) -> int:
        """The value by which it is known."""
        return _READBACK

    def write(self, _port: int, _size: int, value: int) -> None:
        """Print a byte."""
        self._console.put(value & 0xFF)
