"""What a CPU raises when the RMP forbids an access, and the bits of its error code.

Source: Linux, arch/x86/include/asm/kvm_host.h (PFERR_GUEST_RMP, _ENC, _SIZEM, _VMPL, _FINAL, _PAGE),
arch/x86/include/asm/trap_pf.h (X86_PF_RMP), arch/x86/include/asm/sev-common.h and coconut-svsm/svsm,
kernel/src/cpu/vc.rs (0x404, page not validated).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntFlag


class ErrorCode(IntFlag):
    """EXITINFO1 of a nested page fault, of which #PF has the lower half."""

    PRESENT = 1 << 0
    WRITE = 1 << 1
    USER = 1 << 2
    FETCH = 1 << 4
    RMP = 1 << 31
    FINAL = 1 << 32
    """The access itself, not the walk of the guest's page tables."""
    WALK = 1 << 33
    ENCRYPTED = 1 << 34
    """The access had the C-bit."""
    SIZE = 1 << 35
    VMPL = 1 << 36


PAGE_NOT_VALIDATED = 0x404
"""Error code of #VC."""


class Trap(Enum):
    """What is raised, and who handles it."""

    PAGE_FAULT = "#PF"
    """In the host."""
    NESTED_PAGE_FAULT = "#NPF"
    """An exit to the host."""
    VMM_COMMUNICATION = "#VC"
    """In the guest."""
    GENERAL_PROTECTION = "#GP"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; nothing has changed."""

    trap: Trap
    code: int = 0

    @property
    def told(self) -> str:
        """As in `#NPF 0x580000003`."""
        return f"{self.trap.value} {self.code:#x}"
