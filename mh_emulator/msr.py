"""Model-specific registers that a guest may touch; every other one is #GP.

Source: AMD64 APM volume 2, sections 3.1.7 (EFER) and 15.34.10 (SEV_STATUS); Linux,
Documentation/virt/kvm/x86/msr.rst (MSR_KVM_MIGRATION_CONTROL).
"""

from __future__ import annotations

from typing import Protocol

from mh_emulator import engine
from mh_emulator.engine import Engine
from mh_emulator.registers import EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE

MSR_SEV_STATUS = 0xC001_0131
MSR_KVM_MIGRATION_CONTROL = 0x4B56_4D08

SEV_STATUS_SEV = 1 << 0
MIGRATION_READY = 1 << 0

_PLAIN = frozenset(
    {
        *(engine.MSR_STAR, engine.MSR_LSTAR, engine.MSR_SFMASK),
        *(engine.MSR_FS_BASE, engine.MSR_GS_BASE, engine.MSR_KERNEL_GS_BASE),
    }
)
_EFER_WRITABLE = EFER_SCE | EFER_NXE


class MsrOwner(Protocol):
    """The VM, as far as its MSRs go."""

    migration_allowed: bool

    @property
    def encrypted(self) -> bool:
        """Whether SEV is on."""


class BadMsrError(Exception):
    """The access is #GP."""


def read_msr(index: int, cpu: Engine, vm: MsrOwner) -> int:
    """Return an MSR, or raise `BadMsrError`."""
    if index in _PLAIN or index == engine.MSR_EFER:
        return int(cpu.uc.msr_read(index))
    if index == MSR_SEV_STATUS and vm.encrypted:
        return SEV_STATUS_SEV
    if index == MSR_KVM_MIGRATION_CONTROL:
        return MIGRATION_READY if vm.migration_allowed else 0
    raise BadMsrError


def write_msr(index: int, value: int, cpu: Engine, vm: MsrOwner) -> None:
    """Set an MSR, or raise `BadMsrError`."""
    if index in _PLAIN:
        cpu.uc.msr_write(index, value)
    elif index == engine.MSR_EFER:
        # LME cannot change while paging is on, and LMA is the CPU's.
        if (value ^ cpu.uc.msr_read(index)) & ~(_EFER_WRITABLE | EFER_LMA) or not value & EFER_LME:
            raise BadMsrError
        cpu.uc.msr_write(index, value | EFER_LMA)
    elif index == MSR_KVM_MIGRATION_CONTROL and not value & ~MIGRATION_READY:
        vm.migration_allowed = bool(value)
    else:
        raise BadMsrError
