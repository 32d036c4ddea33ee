"""Model-specific registers that a guest reads and writes without an exit; the hypervisor answers for all others.

Source: AMD64 APM volume 2, sections 3.1.7 (EFER), 7.8.2 (PAT), 15.34.10 (SEV_STATUS) and appendix B (what a VMSA has);
Linux, arch/x86/kvm/svm/svm.c and sev.c (direct access; sev_es_init_vmcb for PAT).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Protocol

from mh_emulator.cpu import engine
from mh_emulator.cpu.engine import Engine
from mh_emulator.cpu.registers import CR0_PG, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE
from mh_emulator.rmp.table import Rmp

MSR_GHCB = 0xC001_0130
MSR_SEV_STATUS = 0xC001_0131

SEV_STATUS_SEV, SEV_STATUS_ES, SEV_STATUS_SNP = 1 << 0, 1 << 1, 1 << 2

_PLAIN = frozenset(
    {
        *(engine.MSR_STAR, engine.MSR_LSTAR, engine.MSR_SFMASK),
        *(engine.MSR_FS_BASE, engine.MSR_GS_BASE, engine.MSR_KERNEL_GS_BASE),
    }
)
_EFER_WRITABLE = EFER_SCE | EFER_NXE

PAT = 0x277
_PAT_RESET, _PAT_TYPES = 0x0007_0406_0007_0406, frozenset((0, 1, 4, 5, 6, 7))
SAVED = MappingProxyType({
    0xC000_0083: "cstar", 0x174: "sysenter_cs", 0x175: "sysenter_esp", 0x176: "sysenter_eip", PAT: "g_pat",
})  # fmt: skip
"""MSRs that the engine does nothing with, and that lie in a VMSA: under SEV-ES no hypervisor answers for them."""


class BadMsrError(Exception):
    """The access is #GP."""


class MsrOwner(Protocol):
    """The guest, as far as its MSRs go."""

    rmp: Rmp | None
    """Of an SNP guest."""

    @property
    def encrypted(self) -> bool:
        """Whether SEV is on."""

    @property
    def es(self) -> bool:
        """Whether SEV-ES is on."""


class Msrs:
    """The MSRs of one CPU."""

    def __init__(self, cpu: Engine, guest: MsrOwner) -> None:
        self._cpu = cpu
        self._guest = guest
        self.ghcb = 0
        """MSR 0xC0010130: not in the VMSA, but in the VMCB (ghcb_gpa), where the hypervisor answers in it."""
        self.saved = dict.fromkeys(SAVED, 0) | {PAT: _PAT_RESET}
        """Those of a VMSA, by index."""

    def is_direct(self, index: int) -> bool:
        """Whether the guest reaches this MSR without the hypervisor."""
        if index == MSR_GHCB or index in SAVED:
            return self._guest.es
        return index in _PLAIN or index == engine.MSR_EFER or (index == MSR_SEV_STATUS and self._guest.encrypted)

    def read(self, index: int) -> int:
        """Return an MSR that `is_direct`."""
        if index == MSR_GHCB:
            return self.ghcb
        if index in SAVED:
            return self.saved[index]
        if index == MSR_SEV_STATUS:
            snp = 0 if self._guest.rmp is None else SEV_STATUS_SNP
            return SEV_STATUS_SEV | (SEV_STATUS_ES if self._guest.es else 0) | snp
        return self._cpu.control().efer if index == engine.MSR_EFER else int(self._cpu.uc.msr_read(index))

    def write(self, index: int, value: int) -> None:
        """Set an MSR that `is_direct`, or raise `BadMsrError`."""
        if index == MSR_GHCB:
            self.ghcb = value
        elif index in SAVED:
            if index == PAT and not _PAT_TYPES.issuperset(value.to_bytes(8, "little")):
                raise BadMsrError
            self.saved[index] = value
        elif index in _PLAIN:
            self._cpu.uc.msr_write(index, value)
        else:
            self._write_efer(index, value)

    def _write_efer(self, index: int, value: int) -> None:
        # LME cannot change while paging is on, and LMA is the CPU's.
        control = self._cpu.control()
        writable = _EFER_WRITABLE | EFER_LMA | (0 if control.cr0 & CR0_PG else EFER_LME)
        if index != engine.MSR_EFER or (value ^ control.efer) & ~writable:
            raise BadMsrError
        self._cpu.write_efer(value)
