"""The checks of the RMP that a CPU makes for an access: pure functions, which say what fault there is, if any.

Which accesses are checked, and what for, is recollection of AMD64 APM volume 2, section 15.36.10, whose text we do not
have. It agrees with Linux, arch/x86/mm/fault.c and arch/x86/kvm/svm/sev.c (sev_handle_rmp_fault), and with
microsoft/verismo, source/verismo/src/arch/rmp/access_s.rs (check_access), but for reads without the C-bit, which that
model forbids as it does writes. Error codes are those of `fault.py`.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from mh_builder.paging import PAGE_BYTES
from mh_emulator.rmp.entry import PageSize, Perm
from mh_emulator.rmp.fault import PAGE_NOT_VALIDATED, ErrorCode, Fault, Trap
from mh_emulator.rmp.table import Rmp

HIDDEN_BYTE = 0xFF
"""What a host reads of an assigned page where the part hides ciphertext; which pattern it is, is our choice."""


class Kind(Enum):
    """What an access is; a fetch and a walk have the C-bit, whatever the page tables say."""

    READ = "read"
    WRITE = "write"
    FETCH = "fetch"
    WALK = "walk"
    """A read of the guest's page tables."""
    WALK_UPDATE = "walk, accessed or dirty"


_WRITES = (Kind.WRITE, Kind.WALK_UPDATE)
_WALKS = (Kind.WALK, Kind.WALK_UPDATE)


class Guest(NamedTuple):
    """Who runs: the ASID, and the VMPL of the vCPU's VMSA."""

    asid: int
    vmpl: int = 0


class Access(NamedTuple):
    """One access of a guest, after its own page tables and the nested ones."""

    kind: Kind
    gpa: int
    spa: int
    private: bool = True
    """Whether the C-bit is set."""
    user: bool = False
    size: PageSize = PageSize.SMALL
    """Of the host's mapping, in the nested page tables."""

    @property
    def encrypted(self) -> bool:
        """Whether the access is one with the C-bit."""
        return self.private or self.kind not in (Kind.READ, Kind.WRITE)

    @property
    def perm(self) -> Perm:
        """What the VMPL has to be allowed."""
        if self.kind is Kind.FETCH:
            return Perm.EXECUTE_USER if self.user else Perm.EXECUTE_SUPERVISOR
        return Perm.WRITE if self.kind in _WRITES else Perm.READ


def host_write(rmp: Rmp, spa: int, size: PageSize = PageSize.SMALL) -> Fault | None:
    """A write of the host, its page tables included, through a mapping of `size`: to no page that is assigned."""
    start = spa & -size.bytes
    for page in range(start, start + size.bytes, PAGE_BYTES):
        if rmp.covering(page)[1].assigned:
            return Fault(Trap.PAGE_FAULT, ErrorCode.PRESENT | ErrorCode.WRITE | ErrorCode.RMP)
    return None


def host_reads_ciphertext(rmp: Rmp, spa: int, *, hiding: bool) -> bool:
    """Whether the host reads what DRAM holds; where ciphertext is hidden it reads `HIDDEN_BYTE` of assigned pages."""
    return not (hiding and rmp.covering(spa)[1].assigned)


def guest_access(rmp: Rmp, guest: Guest, access: Access) -> Fault | None:
    """Any access of a guest."""
    start, entry = rmp.covering(access.spa)
    if not access.encrypted:
        is_foreign = access.kind is Kind.WRITE and entry.assigned
        return _nested(access, ErrorCode.RMP) if is_foreign else None
    is_own = entry.assigned and not entry.immutable and entry.asid == guest.asid
    if not is_own or entry.gpa + (access.spa - start & -PAGE_BYTES) != access.gpa & -PAGE_BYTES:
        return _nested(access, ErrorCode.RMP)
    if access.size is not entry.size:
        return _nested(access, ErrorCode.RMP | (ErrorCode.SIZE if entry.size is PageSize.LARGE else ErrorCode(0)))
    if not entry.validated:
        return Fault(Trap.VMM_COMMUNICATION, PAGE_NOT_VALIDATED)
    if access.perm not in entry.perms[guest.vmpl]:
        return _nested(access, ErrorCode.RMP | ErrorCode.VMPL)
    return None


def vmrun(rmp: Rmp, guest: Guest, vmsa_spa: int) -> bool:
    """Whether VMRUN takes the page for a VMSA of `guest`; where not, it exits with VMEXIT_INVALID."""
    entry = rmp.entry(vmsa_spa)
    is_own = entry.assigned and not entry.immutable and entry.asid == guest.asid
    return is_own and entry.validated and entry.vmsa


def _nested(access: Access, code: ErrorCode) -> Fault:
    code |= ErrorCode.PRESENT | (ErrorCode.WALK if access.kind in _WALKS else ErrorCode.FINAL)
    if access.kind in _WRITES:
        code |= ErrorCode.WRITE
    if access.kind is Kind.FETCH:
        code |= ErrorCode.FETCH
    if access.user:
        code |= ErrorCode.USER
    if access.encrypted:
        code |= ErrorCode.ENCRYPTED
    return Fault(Trap.NESTED_PAGE_FAULT, code)
