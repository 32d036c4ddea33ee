"""The local APIC of the one vCPU: registers that keep what is written, and a timer that counts.

It interrupts nobody: a guest that waits for that is idle.

Source: AMD64 APM volume 2, sections 16.3 (registers) and 16.4.1 (timer).
"""

from __future__ import annotations

from mh_emulator.q35.clock import Clock

GPAS = range(0xFEE0_0000, 0xFEE0_1000)
BASE_MSR = 0x1B
BASE = GPAS.start | 1 << 11 | 1 << 8
"""Enabled, and that of the boot processor."""
TIMER_HZ = 1_000_000_000
"""As KVM's: a nanosecond a count, before the divider."""

_ID, _VERSION, _SPURIOUS, _COMMAND, _TIMER, _INITIAL, _CURRENT, _DIVIDE = (
    0x020, 0x030, 0x0F0, 0x300, 0x320, 0x380, 0x390, 0x3E0,
)  # fmt: skip
_VERSION_VALUE = 0x0005_0014
_PENDING = 1 << 12
_MASKED, _PERIODIC = 1 << 16, 1 << 17
_LVTS = range(0x320, 0x371, 0x10)
_DIVISORS = (2, 4, 8, 16, 32, 64, 128, 1)


class LocalApic:
    """Its page."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept = {_SPURIOUS: 0xFF, **dict.fromkeys(_LVTS, _MASKED)}
        self._since = 0

    def read(self, gpa: int) -> int:
        """A register."""
        register = gpa - GPAS.start & ~0xF
        if register == _VERSION:
            return _VERSION_VALUE
        if register == _CURRENT:
            return self._current()
        kept = self._kept.get(register, 0)
        return kept & ~_PENDING if register == _COMMAND else kept

    def write(self, gpa: int, value: int) -> None:
        """The same; writing the initial count starts the timer."""
        register = gpa - GPAS.start & ~0xF
        if register not in (_ID, _VERSION, _CURRENT):
            self._kept[register] = value & 0xFFFF_FFFF
        if register == _INITIAL:
            self._since = self._clock.now

    @property
    def _divisor(self) -> int:
        value = self._kept.get(_DIVIDE, 0)
        return _DIVISORS[value & 3 | value >> 1 & 4]

    def _current(self) -> int:
        initial = self._kept.get(_INITIAL, 0)
        counted = (self._clock.now - self._since) // self._divisor
        if self._kept[_TIMER] & _PERIODIC and initial:
            return initial - counted % initial
        return max(0, initial - counted)
