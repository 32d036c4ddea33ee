"""An SNP guest's vCPU asks the RMP for every access, and executes the instructions that change it.

Expected bits are those of Linux, arch/x86/include/asm/kvm_host.h (PFERR_GUEST_*), written out here.
"""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import (
    CODE,
    DATA,
    HANDLERS,
    HEAP,
    HEAP_WORD,
    IDT,
    PAGE,
    RW,
    SHARED,
    TABLES,
    TEXT,
    US,
    Guest,
)
from emulator_tests.snp.machine import FRESH, PVALIDATE, RMPADJUST, VC, Caught, SnpGuest, pvalidate, rmpadjust
from mh_emulator.cpu.locked import CF, ZF
from mh_emulator.kvm.exits import Exit, Reason
from mh_emulator.rmp.entry import Perm
from mh_emulator.rmp.instructions import NewState, rmpupdate

PRESENT, WRITE, USER, FETCH = 1 << 0, 1 << 1, 1 << 2, 1 << 4
RMP, FINAL, WALK, ENC, SIZEM, VMPL = (1 << bit for bit in (31, 32, 33, 34, 35, 36))
NOT_VALIDATED = 0x404
GP = 13


def rmp_fault(gpa: int, error: int) -> Exit:
    return Exit(Reason.RMP_FAULT, gpa=gpa, value=error, private=bool(error & ENC))


def exchange(guest: SnpGuest, first: int, second: int) -> None:
    """A hostile kernel exchanges the pages behind two GPAs."""
    pages = guest.spa(first), guest.spa(second)
    guest.vm.remap(first, pages[1])
    guest.vm.remap(second, pages[0])


@pytest.mark.parametrize("part", ["milan", "genoa", "turin"])
def test_guest_reads_what_was_launched_and_writes(part: str) -> None:
    guest = SnpGuest(part)
    state = guest.halted(guest.launch(f"mov rbx, [{HEAP}]\n mov rcx, {HEAP}\n mov qword ptr [rcx], 7\n hlt"))
    assert state.rbx == HEAP_WORD
    assert guest.private(HEAP) == (7).to_bytes(8, "little")


def test_page_is_the_guests_when_it_has_validated_it() -> None:
    guest = SnpGuest()
    code = f"{pvalidate(FRESH)} mov rdi, rax\n mov rsi, {FRESH}\n mov qword ptr [rsi], 9\n mov rcx, [rsi]\n hlt"
    state = guest.halted(guest.launch(code))
    assert (state.rdi, state.rbx & 0xFF, state.rcx) == (0, 0, 9)
    assert state.rflags & (CF | ZF) == ZF


def test_page_that_is_not_validated_is_vc_with_its_address() -> None:
    guest = SnpGuest()
    vcpu = guest.launch(f"mov rsi, {FRESH + 0x123}\n mov rax, [rsi]\n hlt")
    start = vcpu.run()
    assert start == Exit(Reason.HLT)
    assert guest.inside(vcpu).cr2 == FRESH + 0x123
    assert guest.private(guest.inside(vcpu).rsp) == NOT_VALIDATED.to_bytes(8, "little")


def test_second_validation_says_so_in_cf_alone() -> None:
    guest = SnpGuest()
    state = guest.halted(guest.launch(f"{pvalidate(FRESH)} {pvalidate(FRESH)} hlt"))
    assert (state.rax, state.rbx & 0xFF) == (0, 1)


def test_page_taken_away_and_given_again_is_noticed() -> None:
    guest = SnpGuest()
    vcpu = guest.launch(f"{pvalidate(FRESH)} hlt\n mov rsi, {FRESH}\n mov rax, [rsi]\n hlt")
    guest.halted(vcpu)
    guest.vm.punch_hole(FRESH, PAGE)
    assert guest.caught(vcpu).vector == VC


def test_invalidated_page_is_not_readable_any_more() -> None:
    guest = SnpGuest()
    vcpu = guest.launch(f"mov rbx, [{HEAP}]\n {pvalidate(HEAP, valid=0)} mov rsi, {HEAP}\n mov rbx, [rsi]\n hlt")
    found = guest.caught(vcpu)
    assert (found.vector, found.error_code, found.cr2) == (VC, NOT_VALIDATED, HEAP)


def test_exchanged_pages_are_an_exit_to_the_host() -> None:
    guest = SnpGuest()
    vcpu = guest.launch(f"mov rsi, {HEAP}\n mov rax, [rsi]\n hlt")
    exchange(guest, HEAP, HEAP + PAGE)
    assert vcpu.run() == rmp_fault(HEAP, PRESENT | RMP | FINAL | ENC)
    exchange(guest, HEAP, HEAP + PAGE)
    assert guest.halted(vcpu).rax == HEAP_WORD


def test_fault_comes_also_where_the_translation_was_cached() -> None:
    guest = SnpGuest()
    vcpu = guest.launch(f"mov rsi, {HEAP}\n mov rax, [rsi]\n hlt\n mov [rsi], rax\n hlt")
    guest.halted(vcpu)
    rmp, spa = guest.platform.rmp, guest.spa(HEAP)
    assert rmpupdate(rmp, spa, NewState(assigned=False)) == 0
    stop = vcpu.run()
    assert stop == rmp_fault(HEAP, PRESENT | WRITE | RMP | FINAL | ENC)


def test_fetch_and_walk_have_their_bits() -> None:
    guest = SnpGuest()
    vcpu = guest.launch(
        f"mov rax, {TEXT + PAGE}\n jmp rax",
    )
    exchange(guest, TEXT + PAGE, HEAP)
    assert vcpu.run() == rmp_fault(TEXT + PAGE, PRESENT | FETCH | RMP | FINAL | ENC)

    guest = SnpGuest()
    vcpu = guest.launch(f"mov rsi, {HEAP}\n mov rax, [rsi]\n hlt")
    exchange(guest, TABLES, HEAP)
    stop = vcpu.run()
    assert (stop.reason, stop.gpa & -PAGE, stop.value) == (Reason.RMP_FAULT, TABLES, PRESENT | RMP | WALK | ENC)


def test_walk_that_marks_a_table_is_a_write() -> None:
    guest = SnpGuest()
    guest.tables.entries[guest.tables.entry_address(HEAP)] &= ~0x60
    table = guest.tables.entry_address(HEAP) & -PAGE
    vcpu = guest.launch(f"mov rsi, {HEAP}\n mov rax, [rsi]\n hlt")
    rmp, spa = guest.platform.rmp, guest.spa(table)
    entry = rmp.entry(spa)
    rmp.replace(spa, type(entry)(True, True, False, False, entry.size, entry.asid, entry.gpa, (Perm.READ,) * 4))
    stop = vcpu.run()
    assert (stop.gpa & -PAGE, stop.value) == (table, PRESENT | WRITE | RMP | WALK | ENC | VMPL)


def test_shared_view_of_a_private_page_reads_ciphertext_and_writes_nothing() -> None:
    guest = SnpGuest()
    vcpu = guest.launch(f"mov rsi, {SHARED + HEAP}\n mov rbx, [rsi]\n mov qword ptr [rsi], 1\n hlt")
    assert vcpu.run() == Exit(Reason.MEMORY_FAULT, gpa=HEAP, size=PAGE, private=False)
    assert guest.inside(vcpu).rbx == int.from_bytes(guest.platform.dram.read_raw(guest.spa(HEAP), 8), "little")
    assert guest.inside(vcpu).rbx != HEAP_WORD
    assert guest.private(HEAP) == HEAP_WORD.to_bytes(8, "little")


def test_private_access_to_a_shared_page_asks_the_host() -> None:
    guest = SnpGuest()
    guest.tables.map(0x9_0000, 0x9_0000, DATA)
    vcpu = guest.launch("mov rax, [0x90000]\n hlt")
    assert vcpu.run() == Exit(Reason.MEMORY_FAULT, gpa=0x9_0000, size=PAGE, private=True)


def test_private_access_without_a_slot_asks_the_host_and_a_shared_one_is_vc() -> None:
    guest = SnpGuest()
    guest.tables.map(0x5000_0000, 0x7000_0000, DATA)
    guest.tables.map(0x5000_1000, 0x7000_0000, DATA, private=False)
    vcpu = guest.launch("mov esi, 0x50000000\n mov rax, [rsi]\n hlt")
    assert vcpu.run() == Exit(Reason.MEMORY_FAULT, gpa=0x7000_0000, size=PAGE, private=True)
    guest = SnpGuest()
    guest.tables.map(0x5000_1000, 0x7000_0000, DATA, private=False)
    found = guest.caught(guest.launch("mov esi, 0x50001000\n mov rax, [rsi]\n hlt"))
    assert (found.vector, found.error_code) == (VC, 0x400)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (pvalidate(FRESH + 8), 1),
        (pvalidate(FRESH, size=2), 1),
        (pvalidate(FRESH, size=1), 1),
        (pvalidate(0, size=1), 6),
        (rmpadjust(HEAP, 0, 1), 2),
        (rmpadjust(HEAP, 4, 1), 1),
        (rmpadjust(HEAP, 1, 0x20), 1),
        (rmpadjust(HEAP, 1, 1, size=3), 1),
        (f"mov rax, {HEAP}\n xor ecx, ecx\n mov edx, 0x20101\n .byte 0xf3, 0x0f, 0x01, 0xfe\n", 1),
        (rmpadjust(HEAP, 1, 0x1F), 0),
    ],
)
def test_codes_of_the_instructions(code: str, told: int) -> None:
    guest = SnpGuest()
    guest.tables.map(0, 0, DATA)
    state = guest.halted(guest.launch(f"{code} hlt"))
    assert state.rax == told
    assert bool(state.rflags & ZF) is (told == 0)


@pytest.mark.parametrize("instruction", [pvalidate(FRESH), rmpadjust(HEAP, 1, 1)])
def test_instructions_are_for_the_kernel(instruction: str) -> None:
    guest = SnpGuest()
    guest.tables.map(0x7_0000, 0x7_0000, CODE | US)
    guest.tables.map(0x7_7000, 0x7_7000, DATA | US)
    guest.contents[0x7_0000] = b""
    guest.contents[0x7_7000] = b""
    guest.code_at(0x7_0000, instruction)
    user = "push 0x1b\n push 0x78000\n pushfq\n push 0x23\n push 0x70000\n iretq"
    found = guest.caught(guest.launch(user))
    assert found.vector == GP


@pytest.mark.parametrize("instruction", [PVALIDATE, RMPADJUST])
def test_instructions_are_unknown_without_snp(instruction: str) -> None:
    guest = Guest(es=True)
    vcpu = guest.launch(f"{instruction} hlt")
    assert vcpu.run() == Exit(Reason.HLT)
    assert guest.inside(vcpu).rip == HANDLERS + 6 + 1


def test_instructions_ask_the_host_for_a_page_that_is_shared() -> None:
    guest = SnpGuest()
    guest.tables.map(0x9_0000, 0x9_0000, DATA)
    vcpu = guest.launch(f"{pvalidate(0x9_0000)} hlt")
    assert vcpu.run() == Exit(Reason.MEMORY_FAULT, gpa=0x9_0000, size=PAGE, private=True)
    guest.vm.set_memory_attributes(0x9_0000, PAGE, private=True)
    state = guest.halted(vcpu)
    assert (state.rax, state.rbx & 0xFF) == (0, 0)


def test_rmpadjust_of_a_page_that_is_not_validated_is_vc() -> None:
    guest = SnpGuest()
    found = guest.caught(guest.launch(f"{rmpadjust(FRESH, 1, 1)} hlt"))
    assert found == Caught(VC, NOT_VALIDATED, FRESH, found.rip)


def test_page_fault_of_the_guests_own_tables_comes_first() -> None:
    guest = SnpGuest()
    found = guest.caught(guest.launch(f"{pvalidate(0x7777_0000)} hlt"))
    assert (found.vector, found.error_code) == (14, 0)


def test_sev_status_and_cpuid_say_snp() -> None:
    guest = SnpGuest()
    state = guest.halted(guest.launch("mov ecx, 0xc0010131\n rdmsr\n hlt"))
    assert state.rax == 0b111
    leaf = guest.vm.cpuid(0x8000_001F, 0)
    assert (leaf.eax >> 4 & 1, leaf.ebx >> 12 & 0xF) == (1, 4)


def test_writable_page_of_the_tables_but_not_of_the_rmp() -> None:
    """A read that was let through opens the page for reading only."""
    guest = SnpGuest()
    guest.tables.map(HEAP, HEAP, DATA | RW)
    vcpu = guest.launch(f"mov rsi, {SHARED + HEAP}\n mov rax, [rsi]\n add qword ptr [rsi], 1\n hlt")
    assert vcpu.run().reason is Reason.MEMORY_FAULT


def test_fault_in_the_delivery_of_a_fault_ends_the_guest() -> None:
    """#VC is contributory: a guest whose pages are all gone does not deliver it for ever."""
    guest = SnpGuest()
    vcpu = guest.launch(f"mov rsi, {FRESH}\n mov rax, [rsi]\n hlt")
    guest.vm.punch_hole(IDT, PAGE)
    assert vcpu.run() == Exit(Reason.SHUTDOWN)
