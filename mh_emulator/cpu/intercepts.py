"""Why VMRUN ended, as the CPU tells the hypervisor.

Source: AMD64 APM volume 2, appendix C (exit codes), section 15.35.5 (automatic and non-automatic exits of SEV-ES).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from mh_emulator.cpu.eventinj import EventInjection


class Code(IntEnum):
    """Exit codes; also the error code of #VC."""

    READ_DR7 = 0x27
    WRITE_DR7 = 0x37
    DB = 0x41
    """#DB: the guest has come to a breakpoint of the host's."""
    INTR = 0x60
    """As many instructions as VMRUN was allowed have been begun, or the host wants the CPU."""
    VINTR = 0x64
    """An interrupt waits for the guest."""
    RDTSC = 0x6E
    RDPMC = 0x6F
    CPUID = 0x72
    INVD = 0x76
    HLT = 0x78
    IOIO = 0x7B
    MSR = 0x7C
    SHUTDOWN = 0x7F
    VMMCALL = 0x81
    RDTSCP = 0x87
    WBINVD = 0x89
    MONITOR = 0x8A
    MWAIT = 0x8B
    NPF = 0x400
    VMGEXIT = 0x403
    INVALID = -1
    """VMRUN has not accepted the guest's state, or the event to inject."""
    NO_MEMORY = -2
    """No code of the CPU: an NPF in a slot for which the host has no memory left."""


NON_AUTOMATIC = frozenset(Code) - {
    *(Code.INTR, Code.VINTR, Code.HLT, Code.SHUTDOWN, Code.VMGEXIT, Code.INVALID, Code.NO_MEMORY),
}
"""Under SEV-ES these are #VC first. A page without a slot is among them: KVM makes it MMIO, with reserved bits set."""


@dataclass(frozen=True, slots=True)
class Intercept:
    """One exit; fields that a code does not use are zero.

    RIP is behind a HLT or a VMGEXIT, else at the instruction.
    """

    code: Code
    length: int = 0
    """Bytes of the instruction."""
    port: int = 0
    """IOIO."""
    size: int = 0
    """IOIO and NPF: bytes; 0 for an access that is not an operand of the instruction."""
    is_write: bool = False
    """IOIO, MSR and NPF."""
    gpa: int = 0
    """NPF: a guest-physical address without a slot, or one that the RMP closes."""
    event: EventInjection | None = None
    """EXITINTINFO: what the hypervisor has injected and the guest has not got."""
    error: int = 0
    """NPF of an SNP guest: EXITINFO1 of a fault of the RMP, or with the C-bit, which are automatic exits; else 0."""
