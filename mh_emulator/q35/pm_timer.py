"""The ACPI power management timer, by which OVMF measures delays; the register is where the guest has put it.

Source: ACPI 6.5, section 4.8.3.3; QEMU, hw/acpi/ich9.c, hw/isa/lpc_ich9.c (PMBASE); OVMF puts it at 0x600.
"""

from __future__ import annotations

from mh_emulator.q35.clock import Clock
from mh_emulator.q35.port import ones

PORTS = range(0x600, 0x680)
HZ = 3_579_545
_TIMER = PORTS.start + 8
_BITS = 24


class PmTimer:
    """The block of registers; all but the timer read as what was written."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._written: dict[int, int] = {}

    @property
    def state(self) -> dict[int, int]:
        """What was written, by port."""
        return dict(self._written)

    def restore(self, state: dict[int, int]) -> None:
        """Keep that."""
        self._written = dict(state)

    def read(self, port: int, size: int) -> int:
        """The timer, or another register."""
        if port == _TIMER:
            return self._clock.ticks(HZ) % (1 << _BITS) & ones(size)
        return self._written.get(port, 0) & ones(size)

    def write(self, port: int, _size: int, value: int) -> None:
        """Keep it; the timer cannot be written."""
        self._written[port] = value
