"""The instructions that change the RMP: RMPUPDATE and PSMASH of the host, PVALIDATE and RMPADJUST of a guest.

Return codes and CF: Linux, arch/x86/include/asm/sev-common.h, arch/x86/virt/svm/sev.c; coconut-svsm/svsm,
kernel/src/sev/utils.rs; Microsoft, __rmpadjust. What they check, and in which order, is recollection of AMD64 APM
volume 3, whose text we do not have. Of PVALIDATE and RMPADJUST it agrees with microsoft/verismo,
source/verismo/src/arch/rmp/access_s.rs; so does of RMPUPDATE that a page which stays what it was stays validated,
without which no page would ever be Pre-Swap. Two rules of RMPUPDATE are ours: without an ASID there is no GPA, or a
host could make METADATA pages; and what is not assigned has neither ASID nor GPA, and only the firmware makes
HV-Fixed pages.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from mh_builder.paging import PAGE_BYTES
from mh_emulator.rmp.access import Guest
from mh_emulator.rmp.entry import ALL_PERMS, VMPLS, PageSize, PageState, Perm, RmpEntry
from mh_emulator.rmp.fault import PAGE_NOT_VALIDATED, ErrorCode, Fault, Trap
from mh_emulator.rmp.table import Rmp

ASID_LIMIT = 1 << 10
"""The field of an entry has 10 bits."""
_GPA_LIMIT = 1 << 51


class Code(IntEnum):
    """EAX."""

    SUCCESS = 0
    FAIL_INPUT = 1
    FAIL_PERMISSION = 2
    FAIL_INUSE = 3
    """Another CPU works on the entry; never here, where one instruction follows the other."""
    FAIL_OVERLAP = 4
    FAIL_SIZEMISMATCH = 6


class NewState(NamedTuple):
    """What RMPUPDATE takes from memory; reserved fields are zero."""

    assigned: bool
    gpa: int = 0
    size: PageSize = PageSize.SMALL
    immutable: bool = False
    asid: int = 0


class Result(NamedTuple):
    """EAX and CF of an instruction of a guest."""

    code: Code
    carry: bool = False
    """PVALIDATE: it succeeded, and the page was so before."""


class GuestPage(NamedTuple):
    """The operand of an instruction of a guest, translated: what its page tables say, and what the nested ones do."""

    gpa: int
    spa: int
    size: PageSize = PageSize.SMALL


def rmpupdate(rmp: Rmp, spa: int, new: NewState) -> Code:
    """RMPUPDATE: give a page to somebody else."""
    if not rmp.covers(spa) or spa % new.size.bytes or not _is_well_formed(new):
        return Code.FAIL_INPUT
    head, old = rmp.covering(spa)
    if old.size is PageSize.LARGE and (head, old.size) != (spa, new.size):
        return Code.FAIL_OVERLAP
    if old.immutable:
        return Code.FAIL_PERMISSION
    if new.size is PageSize.LARGE and old.size is PageSize.SMALL and _any_assigned(rmp, spa + PAGE_BYTES):
        return Code.FAIL_OVERLAP
    if not new.assigned:
        rmp.forget(spa)
        return Code.SUCCESS
    _write(rmp, spa, old, new)
    return Code.SUCCESS


def psmash(rmp: Rmp, spa: int) -> Code:
    """PSMASH: turn an entry of 2 MiB into 512 of 4 KiB, which are otherwise the same."""
    if not rmp.covers(spa) or spa % PageSize.LARGE.bytes or rmp.entry(spa).size is not PageSize.LARGE:
        return Code.FAIL_INPUT
    entry = rmp.entry(spa)
    if entry.immutable:
        return Code.FAIL_PERMISSION
    for offset in range(0, PageSize.LARGE.bytes, PAGE_BYTES):
        rmp.replace(spa + offset, entry._replace(size=PageSize.SMALL, gpa=entry.gpa + offset))
    return Code.SUCCESS


def rmpread(rmp: Rmp, spa: int) -> NewState | None:
    """RMPREAD of Zen 5: what RMPUPDATE may have written, and no more; None (FAIL_INPUT) where there is no entry."""
    if not rmp.covers(spa):
        return None
    entry = rmp.entry(spa)
    return NewState(entry.assigned, entry.gpa, entry.size, entry.immutable, entry.asid)


def pvalidate(rmp: Rmp, guest: Guest, page: GuestPage, *, validated: bool) -> Result | Fault:
    """PVALIDATE: take a page that the host has assigned, or take leave of it. Only at VMPL0 and CPL 0."""
    if guest.vmpl:
        return Fault(Trap.GENERAL_PROTECTION)
    if page.gpa % page.size.bytes:
        return Result(Code.FAIL_INPUT)
    entry = _own_entry(rmp, guest, page)
    if isinstance(entry, Fault):
        return entry
    if page.size is PageSize.LARGE and entry.size is PageSize.SMALL:
        return Result(Code.FAIL_SIZEMISMATCH)
    if entry.validated is validated:
        return Result(Code.SUCCESS, carry=True)
    rmp.replace(page.spa, entry._replace(validated=validated))
    return Result(Code.SUCCESS)


def rmpadjust(
    rmp: Rmp, guest: Guest, page: GuestPage, target: int, perms: Perm, *, vmsa: bool = False
) -> Result | Fault:
    """RMPADJUST: what a less privileged VMPL may do with a page; from VMPL0 also whether it is a VMSA."""
    if page.gpa % page.size.bytes or target >= VMPLS or perms > ALL_PERMS:
        return Result(Code.FAIL_INPUT)
    if target <= guest.vmpl:
        return Result(Code.FAIL_PERMISSION)
    entry = _own_entry(rmp, guest, page)
    if isinstance(entry, Fault):
        return entry
    if not entry.validated:
        return Fault(Trap.VMM_COMMUNICATION, PAGE_NOT_VALIDATED)
    if page.size is PageSize.LARGE and entry.size is PageSize.SMALL:
        return Result(Code.FAIL_SIZEMISMATCH)
    if perms & ~entry.perms[guest.vmpl]:
        return Result(Code.FAIL_PERMISSION)
    granted = (*entry.perms[:target], perms, *entry.perms[target + 1 :])
    is_vmsa = entry.vmsa if guest.vmpl else vmsa
    rmp.replace(page.spa, entry._replace(perms=granted, vmsa=is_vmsa))
    return Result(Code.SUCCESS)


def _is_well_formed(new: NewState) -> bool:
    if not (0 <= new.asid < ASID_LIMIT and 0 <= new.gpa < _GPA_LIMIT) or new.gpa % new.size.bytes:
        return False
    if not new.assigned:
        return not (new.asid or new.gpa or new.immutable)
    return bool(new.asid) or not new.gpa


def _any_assigned(rmp: Rmp, start: int) -> bool:
    end = (start | PageSize.LARGE.bytes - 1) + 1
    return any(rmp.state(page) is not PageState.HYPERVISOR for page in range(start, end, PAGE_BYTES))


def _write(rmp: Rmp, spa: int, old: RmpEntry, new: NewState) -> None:
    if old.assigned and (old.asid, old.gpa, old.size) == (new.asid, new.gpa, new.size):
        rmp.replace(spa, old._replace(immutable=new.immutable))
    else:
        rmp.replace(spa, RmpEntry(assigned=True, immutable=new.immutable, asid=new.asid, gpa=new.gpa, size=new.size))


def _own_entry(rmp: Rmp, guest: Guest, page: GuestPage) -> RmpEntry | Fault:
    """The entry of a guest's page that the instruction may change, or an exit to the host."""
    head, entry = rmp.covering(page.spa)
    code = ErrorCode.PRESENT | ErrorCode.WRITE | ErrorCode.FINAL | ErrorCode.RMP | ErrorCode.ENCRYPTED
    is_own = entry.assigned and not entry.immutable and entry.asid == guest.asid
    if not is_own or entry.gpa + (page.spa - head) != page.gpa:
        return Fault(Trap.NESTED_PAGE_FAULT, code)
    if entry.size is PageSize.LARGE and page.size is PageSize.SMALL:
        return Fault(Trap.NESTED_PAGE_FAULT, code | ErrorCode.SIZE)
    return entry
