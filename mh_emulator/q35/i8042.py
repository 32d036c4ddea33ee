"""The keyboard controller that is not there: status with all bits set. Its port 0x92 beside it opens the A20 gate.

Source: QEMU, hw/input/pckbd.c, hw/isa/port92.c.
"""

from __future__ import annotations

PORTS = (0x60, 0x64, 0x92)
_PORT_92 = 0x92
_A20 = 1 << 1


class KeyboardController:
    """Absent, but for port 0x92; writing its reset bits does nothing."""

    def read(self, port: int, _size: int) -> int:
        """All ones, which a driver takes for no controller."""
        return _A20 if port == _PORT_92 else 0xFF

    def write(self, port: int, size: int, value: int) -> None:
        """Nothing happens."""
