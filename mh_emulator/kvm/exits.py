"""Why a vCPU stopped, as KVM_RUN tells its caller.

Source: Linux, include/uapi/linux/kvm.h (struct kvm_run).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """What the host has to do with."""

    HLT = "hlt"
    HYPERCALL = "hypercall"
    """The host answers with what RAX is to be."""
    IO = "io"
    """The host answers an input with what was read."""
    MMIO = "mmio"
    """A guest-physical address without a slot; the instruction has not been executed and is tried again.

    An SEV-ES guest asks for it by address and gets the host's answer, or has its value taken.
    """
    MSR = "msr"
    """The host answers a read with the value, and either with whether it is an error."""
    SHUTDOWN = "shutdown"
    """Triple fault."""
    LIMIT = "limit"
    """As many instructions as `run` was allowed have been begun, or the vCPU was kicked."""
    DEBUG = "debug"
    """The vCPU has come to the host's breakpoint; the instruction there has not been executed."""
    FAIL_ENTRY = "fail-entry"
    """VMRUN fails: the ASID is not valid for execution, the VMSA is not the CPU's own, or an event cannot be."""
    NO_MEMORY = "no-memory"
    """EFAULT: the host has no memory for a page of a slot; the instruction has not been executed."""
    AP_RESET_HOLD = "ap-reset-hold"
    """An SEV-ES guest has parked this vCPU."""
    SYSTEM_EVENT = "system-event"
    """An SEV-ES guest asks for its termination: KVM_SYSTEM_EVENT_SEV_TERM."""
    MEMORY_FAULT = "memory-fault"
    """An SNP guest accesses a page as private that the host has as shared, or the reverse: the host decides.

    Or a page is needed that is to come, of any guest: the instruction has not been executed and is tried again.
    """
    RMP_FAULT = "rmp-fault"
    """The RMP forbids an access, and the host has the page as the guest does: KVM would try it again for ever."""
    INTERNAL_ERROR = "internal-error"
    """KVM has no code for the exit."""


@dataclass(frozen=True, slots=True)
class Exit:
    """One stop; fields that a reason does not use are zero."""

    reason: Reason
    port: int = 0
    """IO."""
    size: int = 0
    """IO and MMIO: bytes; 0 for an MMIO access that is not an operand of the instruction."""
    value: int = 0
    """IO out, MSR write, MMIO write of an SEV-ES guest, SYSTEM_EVENT: the GHCB MSR, RMP_FAULT: EXITINFO1."""
    is_write: bool = False
    """IO, MMIO and MSR."""
    gpa: int = 0
    """MMIO, MEMORY_FAULT and RMP_FAULT."""
    private: bool = False
    """MEMORY_FAULT and RMP_FAULT: whether the access was one with the C-bit."""
    msr: int = 0
    """MSR."""
    number: int = 0
    """HYPERCALL."""
    arguments: tuple[int, ...] = ()
    """HYPERCALL: RBX, RCX and RDX."""
