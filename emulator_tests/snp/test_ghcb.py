"""What an SNP guest asks of KVM: page states, messages to the secure processor, vCPUs.

Source of every answer: Linux, arch/x86/kvm/svm/sev.c.
"""

from __future__ import annotations

import errno
import struct

import pytest

from emulator_tests.machine.guests import DATA, HEAP, PAGE, STACK, TEXT, assemble, fails
from emulator_tests.snp.machine import FRESH, GHCB, REGISTER_GHCB, SECRETS, SnpGuest, answer, call, msr, rmpadjust
from mh_builder.save_area import put
from mh_emulator.cpu import vmsa
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.psp.snp.message import HEADER_BYTES, Header, MessageType, seal, unseal
from mh_emulator.psp.status import Status

START, UPDATE, FINISH = (f"KVM_SEV_SNP_LAUNCH_{name}" for name in ("START", "UPDATE", "FINISH"))

PSC_RESPONSE, PSC_ERROR = 0x15, 1 << 63 | 0x15


def test_ghcb_has_to_be_registered() -> None:
    guest = SnpGuest()
    vcpu = guest.launch(call(0x8000_FFFD) + "hlt")
    with fails(errno.EINVAL, "KVM_RUN"):
        vcpu.run()
    guest = SnpGuest()
    guest.halted(guest.launch(REGISTER_GHCB + call(0x8000_FFFD) + "hlt"))
    assert answer(guest) == (0, 3)


def test_no_address_of_a_ghcb_is_preferred() -> None:
    guest = SnpGuest()
    state = guest.halted(guest.launch(msr(0x010) + "hlt"))
    assert state.rdx << 32 | state.rax == 0xFFFF_FFFF_FFFF_F011


@pytest.mark.parametrize("operation", [1, 2])
def test_page_state_change_in_the_msr_asks_the_host(operation: int) -> None:
    guest = SnpGuest()
    vcpu = guest.launch(msr(operation << 52 | FRESH | 0x14) + "hlt")
    assert vcpu.run() == Exit(Reason.HYPERCALL, number=12, arguments=(FRESH, 1, 16 if operation == 1 else 0))
    assert vcpu.run() == Exit(Reason.HLT)
    state = guest.inside(vcpu)
    assert state.rdx << 32 | state.rax == PSC_RESPONSE


def test_page_state_change_that_the_host_refuses_or_nobody_knows() -> None:
    guest = SnpGuest()
    vcpu = guest.launch(msr(1 << 52 | FRESH | 0x14) + "hlt")
    vcpu.run()
    vcpu.answer(22)
    vcpu.run()
    assert guest.inside(vcpu).rdx >> 31 == 1
    for operation, exits in ((3, 1 << 12), (1, 0)):
        guest = SnpGuest()
        guest.vm.enable_exit_hypercall(exits)
        state = guest.halted(guest.launch(msr(operation << 52 | FRESH | 0x14) + "hlt"))
        assert state.rdx << 32 | state.rax == PSC_ERROR


def entry(gfn: int, operation: int, *, done: int = 0, large: int = 0) -> int:
    return done | gfn << 12 | operation << 52 | large << 56


def change_many(*entries: int, current: int = 0, last: int | None = None) -> tuple[SnpGuest, list[tuple[int, ...]]]:
    """A guest that asks for a list; what the host was asked, one by one."""
    guest = SnpGuest()
    guest.vm.enable_exit_hypercall(1 << 12)
    vcpu = guest.launch(REGISTER_GHCB + call(0x8000_0010, scratch=GHCB + 0x800) + "hlt")
    header = struct.pack("<HH4x", current, len(entries) - 1 if last is None else last)
    guest.memory.write_raw(GHCB + 0x800, header + struct.pack(f"<{len(entries)}Q", *entries))
    asked: list[tuple[int, ...]] = []
    stop = vcpu.run()
    while stop.reason is Reason.HYPERCALL:
        asked.append(stop.arguments)
        stop = vcpu.run()
    assert stop == Exit(Reason.HLT)
    return guest, asked


def test_list_of_changes_is_asked_for_in_ranges() -> None:
    first = FRESH >> 12
    guest, asked = change_many(
        entry(first, 1), entry(first + 1, 1), entry(first + 2, 2), entry(7, 4), entry(0x200, 1, large=1),
        entry(0x400, 1, done=3, large=1), entry(9, 1, done=1),
    )  # fmt: skip
    assert asked == [
        (FRESH, 2, 16), (FRESH + 2 * PAGE, 1, 0), (0x20_0000, 512, 17), (0x40_3000, 509, 17),
    ]  # fmt: skip
    assert answer(guest) == (0, 0)
    after = struct.unpack("<HH4x7Q", guest.memory.read_raw(GHCB + 0x800, 64))
    assert after[0] == 7
    assert [value & 0xFFF for value in after[2:]] == [1, 1, 1, 1, 512, 512, 1]


@pytest.mark.parametrize(
    ("entries", "last", "told"),
    [
        ([entry(1, 1)], 253, 1 << 32 | 1),
        ([entry(1, 1, done=2)], 0, 1 << 32 | 2),
        ([entry(1, 1, large=1)], 0, 1 << 32 | 2),
        ([entry(0x200, 1, done=513, large=1)], 0, 1 << 32 | 2),
    ],
)
def test_lists_that_are_none(entries: list[int], last: int, told: int) -> None:
    guest, asked = change_many(*entries, last=last)
    assert asked == []
    assert answer(guest) == (0, told)


def test_list_behind_its_end_is_done() -> None:
    guest, asked = change_many(entry(1, 1), current=5, last=0)
    assert asked == []
    assert answer(guest) == (0, 0)


@pytest.mark.parametrize("scratch", [0, GHCB, GHCB + 0x808, GHCB + 0xFFF])
def test_list_has_to_lie_in_the_buffer(scratch: int) -> None:
    guest = SnpGuest()
    guest.halted(guest.launch(REGISTER_GHCB + call(0x8000_0010, scratch=scratch) + "hlt"))
    assert answer(guest) == (2, 3)


def test_list_that_the_host_refuses() -> None:
    guest = SnpGuest()
    vcpu = guest.launch(REGISTER_GHCB + call(0x8000_0010, scratch=GHCB + 0x800) + "hlt")
    guest.memory.write_raw(GHCB + 0x800, struct.pack("<HH4xQ", 0, 0, entry(FRESH >> 12, 1)))
    assert vcpu.run().reason is Reason.HYPERCALL
    vcpu.answer(1)
    assert vcpu.run() == Exit(Reason.HLT)
    assert answer(guest) == (0, 0x100 << 32)


def test_guest_request_reaches_the_secure_processor_and_status_the_guest() -> None:
    guest = SnpGuest()
    request, response = 0xA_0000, 0xA_1000
    code = REGISTER_GHCB + call(0x8000_0011, request, response) + "hlt\n jmp again\n"
    vcpu = guest.launch(f"again: {code}")
    key = guest.private(SECRETS + 0x20, 32)
    body = bytes(96)
    guest.memory.write_raw(request, seal(key, Header(1, MessageType.REPORT_REQ, 96, 0), body))
    guest.halted(vcpu)
    assert answer(guest) == (0, 0)
    page = guest.memory.read_raw(response, PAGE)
    clear = page[:HEADER_BYTES]
    assert unseal(key, clear, page[HEADER_BYTES : HEADER_BYTES + Header.parse(clear).size]) is not None
    guest.halted(vcpu)
    assert answer(guest) == (0, Status.AEAD_OFLOW)


@pytest.mark.parametrize(("request_gpa", "response_gpa"), [(1, PAGE), (PAGE, PAGE), (PAGE, PAGE + 8)])
def test_guest_requests_that_are_none(request_gpa: int, response_gpa: int) -> None:
    guest = SnpGuest()
    guest.halted(guest.launch(REGISTER_GHCB + call(0x8000_0011, request_gpa, response_gpa) + "hlt"))
    assert answer(guest) == (2, 4)


def ap_guest(request: int, gpa: int, features: int = 1, ap_vmpl: int = 0, apic_id: int = 1) -> SnpGuest:
    """Two vCPUs: the first makes the page at HEAP + PAGE a VMSA, and starts the second with it."""
    guest = SnpGuest(vcpus=2)
    state = guest.registers(rip=TEXT + PAGE, rsp=STACK - 0x400, rbx=0x5A)
    page = bytearray(vmsa.make(state, fpu=True, features=1))
    put(page, "vmpl", ap_vmpl)
    guest.contents[HEAP + PAGE] = bytes(page)
    guest.contents[TEXT + PAGE] = assemble("inc rbx\n hlt")
    make = rmpadjust(HEAP + PAGE, 1, 0, vmsa=1)
    guest.halted(
        guest.launch(f"{make} {REGISTER_GHCB} {call(0x8000_0013, apic_id << 32 | request, gpa, rax=features)} hlt")
    )
    return guest


def second(guest: SnpGuest) -> tuple[Exit, int]:
    vcpu = guest.vm.vcpu(1)
    assert vcpu is not None
    stop = vcpu.run()
    return stop, guest.inside(vcpu).rbx


def test_guest_starts_a_vcpu_with_a_vmsa_of_its_own() -> None:
    guest = ap_guest(1, HEAP + PAGE)
    assert answer(guest) == (0, 0)
    assert second(guest) == (Exit(Reason.HLT), 0x5B)


def test_vcpu_created_on_init_waits_for_it() -> None:
    guest = ap_guest(0, HEAP + PAGE)
    assert answer(guest) == (0, 0)
    vcpu = guest.vm.vcpu(1)
    assert vcpu is not None
    assert vcpu.vmsa_spa == vcpu.vmsa.spa(0)
    vcpu.init()
    assert second(guest) == (Exit(Reason.HLT), 0x5B)


def test_page_that_the_guest_has_not_made_a_vmsa_does_not_run() -> None:
    guest = ap_guest(1, HEAP)
    assert answer(guest) == (0, 0)
    assert second(guest)[0] == Exit(Reason.FAIL_ENTRY)


@pytest.mark.parametrize(
    ("request_", "gpa", "features", "apic_id"),
    [
        (3, HEAP + PAGE, 1, 1),
        (1 | 1 << 16, HEAP + PAGE, 1, 1),
        (1, HEAP + PAGE, 0, 1),
        (1, HEAP + PAGE + 8, 1, 1),
        (1, 0x20_0000, 1, 1),
        (1, 1 << 55, 1, 1),
        (1, HEAP + PAGE, 1, 2),
    ],
)
def test_vcpus_that_kvm_does_not_start(request_: int, gpa: int, features: int, apic_id: int) -> None:
    guest = ap_guest(request_, gpa, features, apic_id=apic_id)
    assert answer(guest) == (2, 5)


def test_destroyed_vcpu_cannot_be_run() -> None:
    guest = ap_guest(2, 0)
    assert answer(guest) == (0, 0)
    vcpu = guest.vm.vcpu(1)
    assert vcpu is not None
    with fails(errno.EINVAL, "KVM_RUN"):
        vcpu.run()


@pytest.mark.parametrize(("field", "value"), [("vmpl", 4), ("sev_features", 0), ("efer", 0x500), ("cr0", 1)])
def test_vmsas_with_which_no_cpu_runs(field: str, value: int) -> None:
    guest = SnpGuest(vcpus=1)
    page = bytearray(vmsa.make(guest.registers(rip=TEXT + PAGE), fpu=True, features=1))
    put(page, field, value)
    guest.contents[HEAP + PAGE] = bytes(page)
    create = call(0x8000_0013, 1, HEAP + PAGE, rax=1)
    vcpu = guest.launch(f"{rmpadjust(HEAP + PAGE, 1, 0, vmsa=1)} {REGISTER_GHCB} {create} hlt")
    assert guest.run(vcpu) == Exit(Reason.FAIL_ENTRY)


@pytest.mark.parametrize("perms", [0, 1, 3, 0x1F])
def test_vcpu_at_vmpl1_has_what_vmpl0_gave_it(perms: int) -> None:
    guest = SnpGuest(vcpus=2)
    page = bytearray(vmsa.make(guest.registers(rip=TEXT + PAGE, rsp=STACK - 0x400), fpu=True, features=1))
    put(page, "vmpl", 1)
    guest.contents[HEAP + PAGE] = bytes(page)
    guest.contents[TEXT + PAGE] = assemble(f"mov rsi, {HEAP}\n mov rbx, [rsi]\n mov [rsi], rsi\n hlt")
    for table in {at & -PAGE for at in guest.tables.entries}:
        guest.tables.map(table, table, DATA)
    shared_out = "".join(rmpadjust(table, 1, 3) for table in {at & -PAGE for at in guest.tables.entries})
    first = guest.launch(
        f"{shared_out} {rmpadjust(HEAP + PAGE, 1, 0, vmsa=1)} {rmpadjust(TEXT + PAGE, 1, 9)}"
        f"{rmpadjust(HEAP, 1, perms)} hlt"
    )
    guest.halted(first)
    ap = guest.vm.vcpu(1)
    assert ap is not None
    ap.replace_vmsa(HEAP + PAGE)
    ap.init()
    stop = ap.run()
    if perms == 0:
        assert stop == Exit(Reason.RMP_FAULT, gpa=HEAP, value=0x15_8000_0001, private=True)
    elif perms == 1:
        assert stop == Exit(Reason.RMP_FAULT, gpa=HEAP, value=0x15_8000_0003, private=True)
    else:
        assert stop == Exit(Reason.HLT)
