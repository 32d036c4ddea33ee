"""kvmclock: two pages that a guest shares; KVM writes into them what time it is, and how the TSC goes on.

Here that counter never changes its speed, so a page is written once, when the guest names it.
Source: Linux, Documentation/virt/kvm/x86/msr.rst and cpuid.rst, arch/x86/include/asm/pvclock-abi.h.
"""

from __future__ import annotations

import struct
from typing import Protocol

WALL_CLOCK_MSR, SYSTEM_TIME_MSR = 0x4B56_4D00, 0x4B56_4D01
KVM_FEATURE_CLOCKSOURCE2, KVM_FEATURE_CLOCKSOURCE_STABLE = 1 << 3, 1 << 24
"""EAX of CPUID leaf 4000_0001."""

_ENABLED = 1 << 0
_STABLE = 1 << 0
_VERSION = 2
_WALL = struct.Struct("<III")
_TIME = struct.Struct("<I4xQQIbBxx")
_SECOND = 1_000_000_000


class RawMemory(Protocol):
    """Guest-physical memory as the host sees it."""

    def has(self, gpa: int, size: int) -> bool:
        """Whether all of it is there."""

    def write_raw(self, gpa: int, data: bytes) -> None:
        """Write it."""


class WallClock:
    """The MSR for the time of day at which the guest began: `began` seconds after 1970, in UTC."""

    def __init__(self, memory: RawMemory, began: int) -> None:
        self._memory = memory
        self._began = began
        self.value = 0

    def read(self) -> int:
        """RDMSR."""
        return self.value

    def write(self, value: int) -> None:
        """WRMSR: what is named gets the time, if it is RAM."""
        self.value = value
        if self._memory.has(value, _WALL.size):
            self._memory.write_raw(value, _WALL.pack(_VERSION, self._began, 0))


class SystemTime:
    """The MSR for the time since then, by a time-stamp counter of `tsc_hz` that began with the guest."""

    def __init__(self, memory: RawMemory, tsc_hz: int) -> None:
        self._memory = memory
        self._factor = (_SECOND << 32) // tsc_hz
        if not 1 << 31 <= self._factor < 1 << 32:
            raise ValueError(f"TSC of {tsc_hz} Hz: with a shift of 0 it has to be above {_SECOND} Hz, at most twice")
        self.value = 0

    def read(self) -> int:
        """RDMSR."""
        return self.value

    def write(self, value: int) -> None:
        """WRMSR: what is named gets the time, if it is RAM; bit 0 switches it on."""
        self.value = value
        gpa = value & ~_ENABLED
        if value & _ENABLED and self._memory.has(gpa, _TIME.size):
            self._memory.write_raw(gpa, _TIME.pack(_VERSION, 0, 0, self._factor, 0, _STABLE))
