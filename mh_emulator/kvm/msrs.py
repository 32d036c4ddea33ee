"""Intercepted MSRs: those that KVM keeps for a vCPU; each other is #GP unless the host asked for it.

Source: Linux, arch/x86/kvm/x86.c (kvm_emulate_rdmsr, kvm_emulate_wrmsr, kvm_msr_allowed, kvm_msr_user_space),
Documentation/virt/kvm/api.rst (KVM_X86_SET_MSR_FILTER, KVM_CAP_X86_USER_SPACE_MSR).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.kvm.frame import Frame

EXIT_INVAL, EXIT_UNKNOWN, EXIT_FILTER = 1 << 0, 1 << 1, 1 << 2
"""KVM_MSR_EXIT_REASON_*: what KVM_CAP_X86_USER_SPACE_MSR can be enabled for."""
EXIT_REASONS = EXIT_INVAL | EXIT_UNKNOWN | EXIT_FILTER

_MASK32 = 0xFFFF_FFFF


class MsrDevice(Protocol):
    """An MSR that does something."""

    def read(self) -> int:
        """RDMSR."""

    def write(self, value: int) -> None:
        """WRMSR."""


@dataclass(frozen=True)
class Kept:
    """What KVM has of MSRs, by index: values that it keeps, and those that do something."""

    values: dict[int, int]
    devices: Mapping[int, MsrDevice]

    def __contains__(self, index: int) -> bool:
        """Whether it has that one."""
        return index in self.values or index in self.devices

    def read(self, index: int) -> int:
        """RDMSR."""
        return self.devices[index].read() if index in self.devices else self.values[index]

    def write(self, index: int, value: int) -> None:
        """WRMSR."""
        if index in self.devices:
            self.devices[index].write(value)
        else:
            self.values[index] = value


@dataclass(slots=True)
class MsrExits:
    """Which accesses leave for the host instead of being #GP."""

    reasons: int = 0
    denied: frozenset[int] = frozenset()
    """MSRs that the filter denies."""

    def wanted(self, index: int) -> bool:
        """Whether the host is asked."""
        return bool(self.reasons & (EXIT_FILTER if index in self.denied else EXIT_UNKNOWN))


def begin(frame: Frame, exits: MsrExits, kept: Kept, *, is_write: bool) -> Exit | None:
    """Answer from what KVM has `kept`, deliver #GP, or return the exit for the access."""
    index = frame.read("rcx") & _MASK32
    value = (frame.read("rdx") & _MASK32) << 32 | frame.read("rax") & _MASK32 if is_write else 0
    if index in kept and index not in exits.denied:
        if is_write:
            kept.write(index, value)
        finish(frame, value if is_write else kept.read(index), is_write=is_write, error=False)
        return None
    if not exits.wanted(index):
        frame.fault()
        return None
    return Exit(Reason.MSR, msr=index, value=value, is_write=is_write)


def finish(frame: Frame, value: int, *, is_write: bool, error: bool) -> None:
    """Complete the instruction as the host answered."""
    if error:
        frame.fault()
        return
    if not is_write:
        frame.write("rax", value & _MASK32)
        frame.write("rdx", value >> 32 & _MASK32)
    frame.done()
