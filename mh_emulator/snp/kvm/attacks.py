"""What a hostile host, or a kernel at VMPL1, can do to a guest whose vCPUs run: each attack is carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mh_builder.paging import PAGE_BYTES
from mh_builder.save_area import SNP_ACTIVE
from mh_emulator.kvm.snp_vcpu import SnpEvent
from mh_emulator.rmp.entry import Perm
from mh_emulator.rmp.instructions import NewState
from mh_emulator.snp.kvm.guest import (
    AP_VMSA,
    DATA,
    FRESH,
    OTHER,
    PVALIDATE,
    RAM_BYTES,
    REGISTER_GHCB,
    WORD,
    KvmGuest,
    request,
    rmpadjust,
    share_all,
)
from mh_emulator.snp.kvm.stage import KvmStage
from mh_emulator.snp.notes import Outcome, Step

_READ = f"mov rsi, {DATA}\n mov rax, [rsi]\n hlt\n mov rax, [rsi]\n hlt"
_VALIDATE = f"mov rax, {FRESH}\n {PVALIDATE} hlt\n"


def exchange_pages(stage: KvmStage) -> Outcome:
    """the host exchanges the pages behind two GPAs, and the guest reads one"""
    guest = stage.guest(_READ)
    pages = guest.spa(DATA), guest.spa(OTHER)
    guest.place(DATA, pages[1])
    guest.place(OTHER, pages[0])
    stage.run(guest, "read")
    return stage.last()


def exchange_tables(stage: KvmStage) -> Outcome:
    """the host puts a page of data behind the guest's page tables"""
    guest = stage.guest(_READ)
    guest.place(0x3000, guest.spa(DATA))
    stage.run(guest, "walk")
    return stage.last()


def exchange_code(stage: KvmStage) -> Outcome:
    """the host puts a page of data behind the guest's code"""
    guest = stage.guest("hlt")
    guest.place(0x1_0000, guest.spa(DATA))
    stage.run(guest, "fetch")
    return stage.last()


def page_of_another_guest(stage: KvmStage) -> Outcome:
    """the host shows a guest the page of another one at the same GPA"""
    guest, other = stage.guest(_READ), stage.guest()
    guest.place(DATA, other.spa(DATA))
    stage.run(guest, "read")
    return stage.last()


def old_ciphertext(stage: KvmStage) -> Outcome:
    """the host writes back what a page of the guest held before"""
    guest = stage.guest(f"mov rsi, {DATA}\n mov qword ptr [rsi], 1\n hlt")
    host, spa = stage.platform.host, guest.spa(DATA)
    old = host.read(spa, PAGE_BYTES)
    stage.run(guest, "write")
    stage.try_("host write", lambda: host.write(spa, old))
    return stage.last()


def old_page(stage: KvmStage) -> Outcome:
    """the host takes a page, writes what it held before, and gives it again: the guest is told"""
    guest = stage.guest(_READ)
    host, spa = stage.platform.host, guest.spa(DATA)
    stage.run(guest, "read")
    old = host.read(spa, PAGE_BYTES)
    host.make_shared(spa)
    host.write(spa, old)
    host.make_private(spa, NewState(assigned=True, gpa=DATA, asid=guest.vm.asid))
    stage.run(guest, "read again")
    return Outcome.DETECTED if stage.steps[-1].name == "#VC" else Outcome.SUCCEEDS


def share_private_page(stage: KvmStage) -> Outcome:
    """the host puts a page of its own, which is not encrypted, behind a private GPA"""
    guest = stage.guest(_READ)
    guest.vm.set_memory_attributes(DATA, PAGE_BYTES, private=False)
    stage.run(guest, "read")
    return stage.last()


def validate_again(stage: KvmStage) -> Outcome:
    """the host has the guest validate the same page again: CF tells"""
    guest = stage.guest(_VALIDATE + _VALIDATE)
    stage.run(guest, "PVALIDATE")
    guest.run()
    carry = guest.inside().rbx & 1
    stage.note(Step("PVALIDATE", 0, "CF" if carry else "SUCCESS"))
    return Outcome.DETECTED if carry else Outcome.SUCCEEDS


def validate_remapped(stage: KvmStage) -> Outcome:
    """the host has the guest validate a GPA again, behind which is another page now: CF is 0, so the guest must know"""
    guest = stage.guest(_VALIDATE + _VALIDATE)
    stage.run(guest, "PVALIDATE")
    spa = stage.platform.host.page()
    stage.platform.host.make_private(spa, NewState(assigned=True, gpa=FRESH, asid=guest.vm.asid))
    guest.place(FRESH, spa)
    guest.run()
    carry = guest.inside().rbx & 1
    stage.note(Step("PVALIDATE", 0, "CF" if carry else "SUCCESS"))
    return Outcome.DETECTED if carry else Outcome.SUCCEEDS


def helper_read_at_vmpl1(stage: KvmStage) -> Outcome:
    """the kernel at VMPL1 reads a page that VMPL0 has kept"""
    guest = _at_vmpl1(stage, _READ)
    stage.run(guest, "read at VMPL1", 1)
    return stage.last()


def helper_write_at_vmpl1(stage: KvmStage) -> Outcome:
    """the kernel at VMPL1 writes to a page that it may only read"""
    guest = _at_vmpl1(stage, f"mov rsi, {DATA}\n mov rax, [rsi]\n mov [rsi], rax\n hlt", rmpadjust(DATA, 1, Perm.READ))
    stage.run(guest, "write at VMPL1", 1)
    return stage.last()


def validate_at_vmpl1(stage: KvmStage) -> Outcome:
    """the kernel at VMPL1 validates a page itself"""
    stage.run(_at_vmpl1(stage, _VALIDATE), "PVALIDATE at VMPL1", 1)
    return stage.last()


def rights_at_vmpl1(stage: KvmStage) -> Outcome:
    """the kernel at VMPL1 gives itself the page that VMPL0 has kept"""
    guest = _at_vmpl1(stage, rmpadjust(DATA, 1, Perm.READ) + "hlt")
    guest.run(1)
    code = guest.inside(1).rax
    stage.note(Step("RMPADJUST at VMPL1", code, "FAIL_PERMISSION" if code == 2 else str(code)))
    return stage.last()


def vmsa_of_data(stage: KvmStage) -> Outcome:
    """the host runs a page of the guest that the guest has not made a VMSA"""
    guest = stage.guest()
    guest.start_ap()
    stage.run(guest, "VMRUN", 1)
    return stage.last()


def vmsa_at_higher_vmpl(stage: KvmStage) -> Outcome:
    """the kernel at VMPL1 makes a VMSA that runs at VMPL0: the bit is not its to set"""
    guest = _at_vmpl1(stage, rmpadjust(OTHER, 2, 0, vmsa_bit=1) + "hlt")
    guest.run(1)
    guest.vcpus[1].replace_vmsa(OTHER)
    guest.vcpus[1].init()
    stage.run(guest, "VMRUN", 1)
    return stage.last()


def mirror(stage: KvmStage) -> Outcome:
    """the host makes a mirror of the guest, with registers of its choice"""
    guest = stage.guest()
    copy = stage.platform.create_vm()
    stage.try_("KVM_CAP_VM_COPY_ENC_CONTEXT_FROM", lambda: copy.copy_enc_context_from(guest.vm))
    copy.set_user_memory_region(0, 0, RAM_BYTES, guest.memory, 0)
    stage.enter(copy.create_vcpu())
    return stage.last()


def mirror_elsewhere(stage: KvmStage) -> Outcome:
    """a mirror that shares the guest's pages has one at another GPA, as every scheme but `alias-gpa` needs it"""
    guest = _at_vmpl1(stage, f"mov rsi, {OTHER}\n mov rax, [rsi]\n hlt")
    mirror = guest.mirror()
    guest.show_memory(mirror)
    mirror.remap(OTHER, guest.spa(DATA))
    guest.vcpus[-1].vmsa_spa = guest.spa(AP_VMSA)
    stage.run(guest, "read in the mirror", len(guest.vcpus) - 1)
    return stage.last()


def vcpu_of_vmpl1(stage: KvmStage) -> Outcome:
    """VMPL0 starts a vCPU that is VMPL1's alone: AP_CREATION names no VMPL, and KVM cannot look into the VMSA"""
    create = request(SnpEvent.AP_CREATION, 1 << 32 | 1, AP_VMSA, rax=SNP_ACTIVE)
    guest = stage.guest(share_all(1) + rmpadjust(AP_VMSA, 1, 0, vmsa_bit=1) + REGISTER_GHCB + create + "hlt")
    stage.run(guest, "AP_CREATION")
    stage.run(guest, "VMRUN of VMPL1", 1)
    return stage.last()


def read_by_host(stage: KvmStage) -> Outcome:
    """the host compares what it reads of a page before and after the guest has written the same there again"""
    return _same_again(stage)


def read_by_host_hidden(stage: KvmStage) -> Outcome:
    """the same on a part that hides ciphertext"""
    stage.hiding()
    return _same_again(stage)


def _same_again(stage: KvmStage) -> Outcome:
    guest = stage.guest(f"mov rsi, {DATA}\n mov qword ptr [rsi], 1\n hlt\n mov rax, {WORD}\n mov [rsi], rax\n hlt")
    host, spa = stage.platform.host, guest.spa(DATA)
    seen = [host.read(spa, 16)]
    for _ in range(2):
        stage.run(guest, "write")
        seen.append(host.read(spa, 16))
    tells = seen[0] == seen[2] != seen[1]
    stage.note(Step("host read", int(not tells), "SUCCESS" if tells else "hidden"))
    return Outcome.SUCCEEDS if tells else Outcome.REFUSED


def _at_vmpl1(stage: KvmStage, ap_code: str, more: str = "") -> KvmGuest:
    """A guest whose first vCPU has shared its pages out, and whose second stands at `ap_code`."""
    guest = stage.guest(share_all(1) + more + rmpadjust(AP_VMSA, 1, 0, vmsa_bit=1) + "hlt", ap_code)
    stage.run(guest, "RMPADJUST")
    guest.start_ap()
    return guest


ATTACKS: Mapping[str, Callable[[KvmStage], Outcome]] = MappingProxyType(
    {
        "vcpu-exchange-pages": exchange_pages,
        "vcpu-exchange-tables": exchange_tables,
        "vcpu-exchange-code": exchange_code,
        "vcpu-page-of-another-guest": page_of_another_guest,
        "vcpu-old-ciphertext": old_ciphertext,
        "vcpu-old-page": old_page,
        "vcpu-share-private-page": share_private_page,
        "vcpu-validate-again": validate_again,
        "vcpu-validate-remapped": validate_remapped,
        "vcpu-vmpl1-reads-helper": helper_read_at_vmpl1,
        "vcpu-vmpl1-writes-helper": helper_write_at_vmpl1,
        "vcpu-vmpl1-validates": validate_at_vmpl1,
        "vcpu-vmpl1-takes-rights": rights_at_vmpl1,
        "vcpu-vmpl1-makes-vmsa": vmsa_at_higher_vmpl,
        "vcpu-vmsa-by-host": vmsa_of_data,
        "vcpu-mirror": mirror,
        "vcpu-mirror-elsewhere": mirror_elsewhere,
        "vcpu-of-vmpl1": vcpu_of_vmpl1,
        "vcpu-host-read": read_by_host,
        "vcpu-host-read-hidden": read_by_host_hidden,
    }
)
