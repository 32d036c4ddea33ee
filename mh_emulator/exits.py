"""Why a vCPU stopped, as KVM_RUN tells its caller."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """What the host has to do with."""

    HLT = "hlt"
    """RIP is behind the instruction, as it is for HYPERCALL, IO and MSR."""
    HYPERCALL = "hypercall"
    """VMMCALL or VMGEXIT; number and arguments are in the registers."""
    IO = "io"
    MMIO = "mmio"
    """A guest-physical address without a slot; RIP is at the instruction, which has not been executed."""
    MSR = "msr"
    """MSR_KVM_MIGRATION_CONTROL was written."""
    SHUTDOWN = "shutdown"
    """Triple fault."""
    LIMIT = "limit"
    """As many instructions as `run` was allowed have been begun."""
    FAIL_ENTRY = "fail-entry"
    """The secure processor has not made the ASID valid for execution."""


@dataclass(frozen=True, slots=True)
class Exit:
    """One stop; fields that a reason does not use are zero."""

    reason: Reason
    port: int = 0
    """IO."""
    size: int = 0
    """IO and MMIO: bytes; 0 for an MMIO access that is not an operand of the instruction."""
    value: int = 0
    """IO out and MSR."""
    is_write: bool = False
    """IO and MMIO."""
    gpa: int = 0
    """MMIO."""
    msr: int = 0
    """MSR."""
