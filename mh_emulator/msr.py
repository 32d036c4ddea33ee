"""Model-specific registers that a guest touches without an exit; every other one is the hypervisor's business.

Source: AMD64 APM volume 2, sections 3.1.7 (EFER) and 15.34.10 (SEV_STATUS); Linux, arch/x86/kvm/svm/svm.c
(direct access).
"""

from __future__ import annotations

from mh_emulator import engine
from mh_emulator.engine import Engine
from mh_emulator.registers import EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE

MSR_SEV_STATUS = 0xC001_0131

SEV_STATUS_SEV = 1 << 0

_PLAIN = frozenset(
    {
        *(engine.MSR_STAR, engine.MSR_LSTAR, engine.MSR_SFMASK),
        *(engine.MSR_FS_BASE, engine.MSR_GS_BASE, engine.MSR_KERNEL_GS_BASE),
    }
)
_EFER_WRITABLE = EFER_SCE | EFER_NXE


class BadMsrError(Exception):
    """The access is #GP."""


def is_direct(index: int, *, encrypted: bool) -> bool:
    """Whether a guest reaches this MSR without the hypervisor."""
    return index in _PLAIN or index == engine.MSR_EFER or (index == MSR_SEV_STATUS and encrypted)


def read_msr(index: int, cpu: Engine) -> int:
    """Return an MSR that `is_direct`."""
    return SEV_STATUS_SEV if index == MSR_SEV_STATUS else int(cpu.uc.msr_read(index))


def write_msr(index: int, value: int, cpu: Engine) -> None:
    """Set an MSR that `is_direct`, or raise `BadMsrError`."""
    if index in _PLAIN:
        cpu.uc.msr_write(index, value)
        return
    # LME cannot change while paging is on, and LMA is the CPU's.
    changed = value ^ cpu.uc.msr_read(engine.MSR_EFER)
    if index != engine.MSR_EFER or changed & ~(_EFER_WRITABLE | EFER_LMA) or not value & EFER_LME:
        raise BadMsrError
    cpu.uc.msr_write(index, value | EFER_LMA)
