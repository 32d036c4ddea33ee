"""EVENTINJ: what a hypervisor makes happen at VMRUN, before the guest's first instruction.

All of it is the hypervisor's, and the hypervisor is hostile: KVM_SET_VCPU_EVENTS gives a process a part, the kernel has
every TYPE, every vector, and an error code or none with any of them, so that frames need not fit their vectors. The
same holds under SEV-ES: restricted and alternate injection, which limit a host to #HV, are SEV-SNP's.
Source: AMD64 APM volume 2, sections 15.20 (event injection) and 15.36 (SEV-SNP).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from mh_emulator.cpu.exceptions import Event, Origin

VECTOR_NMI, VECTOR_BP, VECTOR_OF, VECTOR_BR = 2, 3, 4, 5

_EXCEPTIONS = 32
_LIKE_INSTRUCTIONS = frozenset({VECTOR_BP, VECTOR_OF})


class Kind(IntEnum):
    """The TYPE field; 1 and 5 to 7 are reserved."""

    INTR = 0
    NMI = 2
    EXCEPTION = 3
    SOFTWARE = 4
    """INT n."""


@dataclass(frozen=True, slots=True)
class EventInjection:
    """A valid EVENTINJ field, taken whatever RFLAGS.IF says; an NMI of this kind blocks no further ones.

    `kind` may be a reserved number. Raises `ValueError` for what the fields have no room for.
    """

    kind: int
    vector: int = 0
    """Without meaning for an NMI."""
    error_code: int | None = None
    """ERRORCODE where EV is set; it is what decides whether an error code is pushed."""
    next_rip: int | None = None
    """NextRIP of the VMCB, pushed for what an instruction would have raised; None: RIP."""

    def __post_init__(self) -> None:
        """Check the widths of the fields."""
        if not (0 <= self.kind < 8 and 0 <= self.vector < 256 and 0 <= (self.error_code or 0) < 1 << 32):
            raise ValueError(f"{self} is no EVENTINJ field")

    @property
    def is_accepted(self) -> bool:
        """Whether VMRUN takes it, for a guest in 64-bit mode; else it ends with VMEXIT_INVALID.

        The APM names reserved TYPEs, exceptions that are none (2 among them) and #BR in 64-bit mode. Which of the
        reserved vectors below 32 a part refuses it does not say: here it refuses none.
        """
        if self.kind == Kind.EXCEPTION:
            return self.vector < _EXCEPTIONS and self.vector not in (VECTOR_NMI, VECTOR_BR)
        return self.kind in tuple(Kind)

    def event(self) -> Event:
        """What is delivered."""
        if self.kind == Kind.NMI:
            return Event(VECTOR_NMI, self.error_code, origin=Origin.INTERRUPT)
        if self.kind == Kind.INTR:
            return Event(self.vector, self.error_code, origin=Origin.INTERRUPT)
        if self.kind == Kind.SOFTWARE or self.vector in _LIKE_INSTRUCTIONS:
            return Event(self.vector, self.error_code, origin=Origin.INSTRUCTION, return_rip=self.next_rip)
        return Event(self.vector, self.error_code)
