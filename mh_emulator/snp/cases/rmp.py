"""Cases of the RMP: what a host, and less privileged code of the guest, may do with a guest's pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mh_emulator.rmp.access import HIDDEN_BYTE, Access, Guest, Kind, guest_access, host_reads_ciphertext, host_write
from mh_emulator.rmp.entry import ALL_PERMS, PageSize, Perm
from mh_emulator.rmp.instructions import (
    Code,
    GuestPage,
    NewState,
    psmash,
    pvalidate,
    rmpadjust,
    rmpupdate,
)
from mh_emulator.snp.notes import Outcome, Step
from mh_emulator.snp.stage import GPA, Stage

_NEW_GPA = 0x50_0000


def validate(stage: Stage) -> Outcome:
    """the host assigns a page, the guest validates it"""
    asid = stage.guest().asid
    _validate(stage, asid, _assign(stage, asid))
    return stage.last()


def validate_not_assigned(stage: Stage) -> Outcome:
    """the guest validates a page that the host has not assigned: an exit to the host"""
    _validate(stage, stage.guest().asid, stage.host.page())
    return stage.last()


def validate_twice(stage: Stage) -> Outcome:
    """the host has the guest validate a page again: CF says that it was"""
    asid = stage.guest().asid
    spa = _assign(stage, asid)
    for _ in range(2):
        _validate(stage, asid, spa)
    return Outcome.DETECTED if stage.steps[-1].name == "CF" else Outcome.SUCCEEDS


def validate_at_vmpl1(stage: Stage) -> Outcome:
    """the guest's kernel at VMPL1 validates a page itself"""
    asid = stage.guest().asid
    spa = _assign(stage, asid)
    told = pvalidate(stage.host.rmp, Guest(asid, 1), GuestPage(_NEW_GPA, spa), validated=True)
    stage.instruction("PVALIDATE", told)
    return stage.last()


def replace_page(stage: Stage) -> Outcome:
    """the host puts another page behind a GPA that was validated: #VC, which the guest never expects there"""
    guest = stage.guest()
    _update(stage, guest.pages[GPA], NewState(assigned=False))
    spa = stage.host.page()
    _update(stage, spa, NewState(assigned=True, gpa=GPA, asid=guest.asid))
    stage.access("read", guest_access(stage.host.rmp, Guest(guest.asid), Access(Kind.READ, GPA, spa)))
    return Outcome.DETECTED if stage.steps[-1].name == "#VC" else stage.last()


def exchange_pages(stage: Stage) -> Outcome:
    """the host exchanges the pages behind two GPAs of a guest"""
    guest = stage.guest()
    access = Access(Kind.READ, GPA, guest.pages[GPA + 0x1000])
    stage.access("read", guest_access(stage.host.rmp, Guest(guest.asid), access))
    return stage.last()


def alias_page(stage: Stage) -> Outcome:
    """the host shows a page of one guest to another one"""
    guest, other = stage.guest(), stage.guest()
    access = Access(Kind.READ, GPA, guest.pages[GPA])
    stage.access("read", guest_access(stage.host.rmp, Guest(other.asid), access))
    return stage.last()


def write_by_host(stage: Stage) -> Outcome:
    """the host writes old ciphertext over a page of the guest"""
    stage.access("host write", host_write(stage.host.rmp, stage.guest().pages[GPA]))
    return stage.last()


def read_by_host(stage: Stage) -> Outcome:
    """the host reads a page of the guest, and sees ciphertext"""
    sees = host_reads_ciphertext(stage.host.rmp, stage.guest().pages[GPA], hiding=False)
    return _seen(stage, sees=sees)


def read_by_host_hidden(stage: Stage) -> Outcome:
    """the same where the part hides ciphertext"""
    sees = host_reads_ciphertext(stage.host.rmp, stage.guest().pages[GPA], hiding=True)
    return _seen(stage, sees=sees)


def shared_write(stage: Stage) -> Outcome:
    """a guest writes without the C-bit to a page that is assigned"""
    guest = stage.guest()
    access = Access(Kind.WRITE, GPA, guest.pages[GPA], private=False)
    stage.access("shared write", guest_access(stage.host.rmp, Guest(guest.asid), access))
    return stage.last()


def helper_read_at_vmpl1(stage: Stage) -> Outcome:
    """the guest's kernel at VMPL1 reads a page of the helper at VMPL0"""
    guest = stage.guest()
    access = Access(Kind.READ, GPA, guest.pages[GPA])
    stage.access("read at VMPL1", guest_access(stage.host.rmp, Guest(guest.asid, 1), access))
    return stage.last()


def rights_for_vmpl1(stage: Stage) -> Outcome:
    """VMPL0 lets VMPL1 have a page"""
    guest = stage.guest()
    page = GuestPage(GPA, guest.pages[GPA])
    stage.instruction("RMPADJUST", rmpadjust(stage.host.rmp, Guest(guest.asid), page, 1, ALL_PERMS))
    access = Access(Kind.WRITE, GPA, guest.pages[GPA])
    stage.access("write at VMPL1", guest_access(stage.host.rmp, Guest(guest.asid, 1), access))
    return stage.last()


def rights_taken_by_vmpl1(stage: Stage) -> Outcome:
    """VMPL1 gives itself a page of VMPL0"""
    guest = stage.guest()
    page = GuestPage(GPA, guest.pages[GPA])
    stage.instruction("RMPADJUST", rmpadjust(stage.host.rmp, Guest(guest.asid, 1), page, 1, Perm.READ))
    return stage.last()


def vmsa_by_host(stage: Stage) -> Outcome:
    """the host runs a page of the guest's data as a VMSA"""
    guest = stage.guest()
    return Outcome.SUCCEEDS if stage.vmrun(guest.asid, guest.pages[GPA]) else Outcome.REFUSED


def vmsa_by_guest(stage: Stage) -> Outcome:
    """the guest makes a page a VMSA, for a vCPU of its own"""
    guest = stage.guest()
    page = GuestPage(GPA, guest.pages[GPA])
    told = rmpadjust(stage.host.rmp, Guest(guest.asid), page, 1, Perm.READ, vmsa=True)
    stage.instruction("RMPADJUST", told)
    stage.vmrun(guest.asid, guest.pages[GPA])
    return stage.last()


def metadata_by_host(stage: Stage) -> Outcome:
    """the host makes a page of entries with what it likes in it"""
    new = NewState(assigned=True, gpa=1 << 48 | stage.guest().gctx, immutable=True)
    told = rmpupdate(stage.host.rmp, stage.host.page(), new)
    stage.instruction("RMPUPDATE", told)
    return stage.last()


def take_immutable(stage: Stage) -> Outcome:
    """the host takes a page while the firmware has it"""
    _update(stage, stage.host.donate(), NewState(assigned=False))
    return stage.last()


def smash(stage: Stage) -> Outcome:
    """a page of 2 MiB becomes 512, which stay validated"""
    asid = stage.guest().asid
    head = stage.host.large_page()
    _update(stage, head, NewState(assigned=True, gpa=0x4000_0000, size=PageSize.LARGE, asid=asid))
    page = GuestPage(0x4000_0000, head, PageSize.LARGE)
    stage.instruction("PVALIDATE", pvalidate(stage.host.rmp, Guest(asid), page, validated=True))
    stage.instruction("PSMASH", psmash(stage.host.rmp, head))
    access = Access(Kind.READ, 0x4000_1000, head + 0x1000)
    stage.access("read", guest_access(stage.host.rmp, Guest(asid), access))
    return stage.last()


def _seen(stage: Stage, *, sees: bool) -> Outcome:
    stage.note(Step("host read", 0, "SUCCESS") if sees else Step("host read", HIDDEN_BYTE, "hidden"))
    return Outcome.SUCCEEDS if sees else Outcome.REFUSED


def _assign(stage: Stage, asid: int) -> int:
    spa = stage.host.page()
    _update(stage, spa, NewState(assigned=True, gpa=_NEW_GPA, asid=asid))
    return spa


def _update(stage: Stage, spa: int, new: NewState) -> Code:
    told = rmpupdate(stage.host.rmp, spa, new)
    stage.instruction("RMPUPDATE", told)
    return told


def _validate(stage: Stage, asid: int, spa: int) -> None:
    told = pvalidate(stage.host.rmp, Guest(asid), GuestPage(_NEW_GPA, spa), validated=True)
    stage.instruction("PVALIDATE", told)


RMP: Mapping[str, Callable[[Stage], Outcome]] = MappingProxyType(
    {
        "rmp-validate": validate,
        "rmp-validate-not-assigned": validate_not_assigned,
        "rmp-validate-twice": validate_twice,
        "rmp-validate-at-vmpl1": validate_at_vmpl1,
        "rmp-replace-page": replace_page,
        "rmp-exchange-pages": exchange_pages,
        "rmp-alias-page": alias_page,
        "rmp-host-write": write_by_host,
        "rmp-host-read": read_by_host,
        "rmp-host-read-hidden": read_by_host_hidden,
        "rmp-shared-write": shared_write,
        "rmp-vmpl1-reads-helper": helper_read_at_vmpl1,
        "rmp-rights-for-vmpl1": rights_for_vmpl1,
        "rmp-rights-taken-by-vmpl1": rights_taken_by_vmpl1,
        "rmp-vmsa-by-host": vmsa_by_host,
        "rmp-vmsa-by-guest": vmsa_by_guest,
        "rmp-metadata-by-host": metadata_by_host,
        "rmp-take-immutable": take_immutable,
        "rmp-smash": smash,
    }
)
