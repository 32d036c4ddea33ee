"""Rights of pages, and what a page fault says."""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import (
    CODE,
    DATA,
    HANDLERS,
    HEAP,
    HEAP_WORD,
    NX,
    PAGE,
    RW,
    SHARED,
    STACK,
    TEXT,
    USER_CS,
    USER_HEAP,
    USER_SS,
    USER_STACK,
    USER_TEXT,
    A,
    D,
    Fault,
    Guest,
    P,
    caught,
    gate,
    run_to_halt,
)
from mh_emulator.cpu.registers import CR0_WP, CR4_SMAP, CR4_SMEP, EFER_NXE, RFLAGS_AC, Registers

HOLE = 0x9_0000
PRESENT, WRITE, USER, RESERVED, FETCH = 1, 2, 4, 8, 16

DEFAULTS = Registers.long_mode(0, 0, 0)


def page_fault(fault: Fault) -> tuple[int, int | None, int]:
    assert fault.vector == 14
    return fault.rip - TEXT, fault.error_code, fault.cr2


@pytest.mark.parametrize(
    ("text", "code", "address"),
    [
        (f"mov rax, [{HOLE + 0x123}]", 0, HOLE + 0x123),
        (f"mov byte ptr [{HOLE + 0xFFF}], 1", WRITE, HOLE + 0xFFF),
        (f"mov rax, [{HOLE - 4}]", 0, HOLE - 4),
        (f"mov rbx, {HOLE}\n.byte 0x90\nmov rax, [rbx + rbx * 2 + 8]", 0, 3 * HOLE + 8),
        (f"lock xadd [{HOLE + 8}], rax", WRITE, HOLE + 8),
        (f"add dword ptr [{HOLE + 8}], 1", WRITE, HOLE + 8),
        (f"cmp dword ptr [{HOLE + 8}], 1", 0, HOLE + 8),
        (f"movdqu xmm0, [{HOLE + 0x18}]", 0, HOLE + 0x18),
        (f"mov rax, [{HEAP + 2 * PAGE - 4}]", 0, HEAP + 2 * PAGE),
        (f"mov rdi, {HOLE + 0x40}\n.byte 0x90\nmov rsi, {HEAP}\n.byte 0x90\nmovsq", WRITE, HOLE + 0x40),
        (f"mov rsp, {HOLE + 0x20}\n.byte 0x90\npush rax", WRITE, HOLE + 0x18),
        (f"mov rsp, {HOLE + 0x20}\n.byte 0x90\npop rax", 0, HOLE + 0x20),
        (f"mov rbp, {HOLE + 0x30}\n.byte 0x90\nleave", 0, HOLE + 0x30),
    ],
    ids=[
        "load",
        "store",
        "low end",
        "index",
        "locked",
        "add",
        "compare",
        "vector",
        "across pages",
        "string",
        "push",
        "pop",
        "leave",
    ],
)
def test_not_present(text: str, code: int, address: int) -> None:
    guest = Guest()
    # A handler with a stack of its own: some of these have lost theirs.
    guest.patch(0x5_0000 + 14 * 16, gate(HANDLERS + 14, ist=1))
    guest.tables.entries.pop(guest.tables.entry_address(HOLE - PAGE), None)
    fault = caught(guest.launch(text + "\nhlt"))
    assert (fault.vector, fault.error_code, fault.cr2) == (14, code, address)


def test_a_fault_stops_before_the_instruction_and_after_the_one_before() -> None:
    fault = caught(Guest().launch(f"mov ecx, 5\n mov rdx, [{HOLE}]\n mov ecx, 6\n hlt", rdx=77))
    assert page_fault(fault) == (5, 0, HOLE)
    assert (fault.handler.rcx, fault.handler.rdx) == (5, 77)


def test_iretq_runs_the_instruction_again_after_the_page_came() -> None:
    guest = Guest()
    entry = guest.tables.entry_address(HOLE)
    guest.tables.map(0x1F_0000, entry & -PAGE, DATA)
    guest.contents[HOLE] = HEAP_WORD.to_bytes(8, "little")
    value = HOLE | DATA | guest.tables.c_mask
    guest.code(
        HANDLERS,
        f"push rax\n mov rax, {value}\n mov [{0x1F_0000 + entry % PAGE}], rax\n pop rax\n add rsp, 8\n iretq",
    )
    guest.patch(0x5_0000 + 14 * 16, gate(HANDLERS))
    vcpu = guest.launch(f"mov rax, 3\n add rax, [{HOLE}]\n hlt")
    state = run_to_halt(vcpu)
    assert state.rax == HEAP_WORD + 3
    assert state.rsp == STACK
    assert state.cr2 == HOLE


def test_execution_of_a_data_page() -> None:
    fault = caught(Guest().launch(f"mov rax, {HEAP + 0x10}\n jmp rax"))
    assert (fault.vector, fault.error_code, fault.cr2, fault.rip) == (14, PRESENT | FETCH, HEAP + 0x10, HEAP + 0x10)


def test_execution_of_nothing() -> None:
    fault = caught(Guest().launch(f"mov rax, {HOLE + 5}\n jmp rax"))
    assert (fault.vector, fault.error_code, fault.cr2, fault.rip) == (14, FETCH, HOLE + 5, HOLE + 5)


def test_an_instruction_that_runs_into_a_data_page() -> None:
    guest = Guest()
    guest.contents[TEXT] = b""
    guest.contents[TEXT + 2 * PAGE - 3] = b"\x48\xb8\x01"  # the first bytes of mov rax, imm64
    guest.tables.map(TEXT + 2 * PAGE, TEXT + 2 * PAGE, DATA)
    fault = caught(guest.launch(rip=TEXT + 2 * PAGE - 3))
    assert (fault.vector, fault.error_code, fault.cr2) == (14, PRESENT | FETCH, TEXT + 2 * PAGE)
    assert fault.rip == TEXT + 2 * PAGE - 3


@pytest.mark.parametrize("target", [HEAP, TEXT])
def test_stores_to_read_only_pages(target: int) -> None:
    guest = Guest()
    guest.tables.map(HEAP, HEAP, DATA & ~RW)
    fault = caught(guest.launch(f"mov rax, [{target}]\n mov [{target + 0x18}], rax\n hlt"))
    assert page_fault(fault)[1:] == (PRESENT | WRITE, target + 0x18)


def test_read_only_holds_for_the_supervisor_only_with_write_protection() -> None:
    guest = Guest()
    guest.tables.map(HEAP, HEAP, DATA & ~RW)
    vcpu = guest.launch(f"mov qword ptr [{HEAP}], 5\n hlt", cr0=DEFAULTS.cr0 & ~CR0_WP)
    run_to_halt(vcpu)
    assert guest.word(HEAP) == 5


def test_write_protection_holds_from_the_instruction_that_sets_it() -> None:
    guest = Guest()
    guest.tables.map(HEAP, HEAP, DATA & ~RW)
    vcpu = guest.launch(
        f"mov qword ptr [{HEAP}], 5\n mov rax, cr0\n bts rax, 16\n mov cr0, rax\n mov qword ptr [{HEAP}], 6\n hlt",
        cr0=DEFAULTS.cr0 & ~CR0_WP,
    )
    assert caught(vcpu).error_code == PRESENT | WRITE
    assert guest.word(HEAP) == 5


@pytest.mark.parametrize("level", [39, 30, 21])
@pytest.mark.parametrize(
    ("change", "text", "code"),
    [
        (RW, "mov byte ptr [{0}], 1", PRESENT | WRITE),
        (NX, "mov rax, {0}\n jmp rax", PRESENT | FETCH),
        (P, "mov al, [{0}]", 0),
    ],
    ids=["read-only", "no-execute", "not present"],
)
def test_rights_of_every_level_count(level: int, change: int, text: str, code: int) -> None:
    guest = Guest()
    far = 0x80_0000_0000 * 3 + 0x4000_0000 * 5 + 0x20_0000 * 9
    guest.tables.map(far, HEAP, P | RW | A | D)
    table = 0x10_0000
    for shift in (39, 30, 21):
        slot = table + 8 * (far >> shift & 511)
        if shift == level:
            guest.tables.entries[slot] ^= change
        table = guest.tables.entries[slot] & 0x7_FFFF_FFFF_F000
    vcpu = guest.launch("mov rdi, rax\n" + text.format("rdi") + "\nhlt" if "[" in text else "jmp rax", rax=far)
    fault = caught(vcpu)
    assert (fault.vector, fault.error_code, fault.cr2) == (14, code, far)


@pytest.mark.parametrize(("part", "bit"), [("rome", 48), ("rome", 51), ("milan", 48), ("milan", 50), ("naples", 49)])
def test_address_bits_beyond_the_part_are_reserved(part: str, bit: int) -> None:
    guest = Guest(part)
    guest.tables.map(HEAP, HEAP, DATA | 1 << bit)
    fault = caught(guest.launch(f"mov rax, [{HEAP}]\n hlt"))
    assert page_fault(fault) == (0, PRESENT | RESERVED, HEAP)


def test_genoa_has_no_reserved_address_bits_and_such_a_page_is_outside_of_all_slots() -> None:
    guest = Guest("genoa")
    guest.tables.map(HEAP, HEAP, DATA | 1 << 50)
    stop = guest.launch(f"mov rax, [{HEAP}]\n hlt").run()
    assert (stop.reason.value, stop.gpa) == ("mmio", HEAP | 1 << 50)


def test_no_execute_is_reserved_until_it_is_enabled() -> None:
    guest = Guest()
    for page in (STACK - PAGE, 0x5_0000, 0x5_1000):
        guest.tables.map(page, page, DATA & ~NX)
    vcpu = guest.launch(f"mov rax, [{HEAP}]\n hlt", efer=DEFAULTS.efer & ~EFER_NXE)
    assert page_fault(caught(vcpu)) == (0, PRESENT | RESERVED, HEAP)


@pytest.mark.parametrize(
    ("text", "vector"),
    [
        ("mov rax, 0x800000000000\n mov rbx, [rax]", 13),
        ("mov rax, 0xffff7fffffffffff\n mov byte ptr [rax], 1", 13),
        ("mov rbp, 0x800000000000\n mov rbx, [rbp]", 12),
        ("mov rsp, 0x800000000010\n push rax", 12),
        ("mov rax, 0x800000000000\n call rax", 13),
    ],
    ids=["load", "store", "through rbp", "push", "call"],
)
def test_non_canonical_addresses(text: str, vector: int) -> None:
    guest = Guest()
    for number in (12, 13):
        guest.patch(0x5_0000 + number * 16, gate(HANDLERS + number, ist=1))
    fault = caught(guest.launch(text + "\nhlt", cr2=0x1234))
    assert (fault.vector, fault.error_code, fault.cr2) == (vector, 0, 0x1234)


def test_the_first_canonical_address_of_the_upper_half_is_only_missing() -> None:
    fault = caught(Guest().launch("mov rax, 0xffff800000000000\n mov rbx, [rax]\n hlt"))
    assert (fault.vector, fault.cr2) == (14, 0xFFFF_8000_0000_0000)


def user(guest: Guest, text: str) -> Fault:
    guest.code(USER_TEXT, text)
    guest.contents[TEXT] = b""
    return caught(guest.launch("", rip=USER_TEXT, cs=USER_CS, ss=USER_SS, rsp=USER_STACK))


@pytest.mark.parametrize(
    ("text", "code", "address"),
    [
        (f"mov rax, [{HEAP}]", PRESENT | USER, HEAP),
        (f"mov [{HEAP + 8}], rax", PRESENT | WRITE | USER, HEAP + 8),
        (f"mov rax, {TEXT}\n jmp rax", PRESENT | USER | FETCH, TEXT),
        (f"mov rax, [{HOLE}]", USER, HOLE),
    ],
    ids=["load", "store", "jump", "hole"],
)
def test_user_code_and_supervisor_pages(text: str, code: int, address: int) -> None:
    fault = user(Guest(), text)
    assert (fault.vector, fault.error_code, fault.cr2) == (14, code, address)
    assert (fault.cs, fault.ss) == (USER_CS, USER_SS)


def test_user_code_and_user_pages() -> None:
    guest = Guest()
    fault = user(guest, f"mov qword ptr [{USER_HEAP}], 9\n push 4\n pop rax\n int3")
    guest_word = guest.word(USER_HEAP)
    assert (fault.vector, guest_word) == (13, 9)  # the gate of #BP is the supervisor's


def test_smep_keeps_the_supervisor_from_user_code() -> None:
    text = f"mov rax, {USER_TEXT}\n jmp rax"
    guest = Guest()
    guest.code(USER_TEXT, "hlt")
    fault = caught(guest.launch(text, cr4=DEFAULTS.cr4 | CR4_SMEP))
    assert (fault.vector, fault.error_code, fault.cr2) == (14, PRESENT | FETCH, USER_TEXT)
    without = Guest()
    without.code(USER_TEXT, "hlt")
    assert run_to_halt(without.launch(text)).rip == USER_TEXT + 1


def test_smap_keeps_the_supervisor_from_user_data_until_stac() -> None:
    guest = Guest()
    text = f"stac\n mov qword ptr [{USER_HEAP}], 5\n clac\n mov rax, [{USER_HEAP}]\n hlt"
    fault = caught(guest.launch(text, cr4=DEFAULTS.cr4 | CR4_SMAP))
    assert (fault.vector, fault.error_code, fault.cr2) == (14, PRESENT, USER_HEAP)
    assert guest.word(USER_HEAP) == 5
    assert not fault.rflags & RFLAGS_AC


def test_accessed_and_dirty_are_set_by_need_and_nothing_else_is_written() -> None:
    guest = Guest()
    plain = P | RW | NX
    for page in (HEAP, HEAP + PAGE):
        guest.tables.map(page, page, plain)
    before = dict(guest.tables.entries)
    vcpu = guest.launch(f"mov rax, [{HEAP}]\n mov [{HEAP + PAGE}], rax\n hlt")
    run_to_halt(vcpu)
    after = {address: guest.word(address) for address in before}
    changed = {address: after[address] ^ before[address] for address in before if after[address] != before[address]}
    entry = guest.tables.entry_address
    assert changed == {entry(HEAP): A, entry(HEAP + PAGE): A | D}


def test_a_page_that_was_read_first_becomes_dirty_with_the_first_store() -> None:
    guest = Guest()
    guest.tables.map(HEAP, HEAP, P | RW | NX)
    entry = guest.tables.entry_address(HEAP)
    vcpu = guest.launch(f"mov rax, [{HEAP}]\n hlt\n mov [{HEAP}], rax\n hlt")
    run_to_halt(vcpu)
    assert guest.word(entry) & (A | D) == A
    run_to_halt(vcpu)
    assert guest.word(entry) & (A | D) == A | D


def test_upper_levels_are_marked_accessed() -> None:
    guest = Guest()
    far = 0x80_0000_0000 * 2
    guest.tables.map(far, HEAP, DATA, upper=P | RW)
    slot = 0x10_0000 + 8 * 2
    vcpu = guest.launch("mov rbx, [rax]\n hlt", rax=far)
    assert run_to_halt(vcpu).rbx == HEAP_WORD
    assert guest.word(slot) & (A | D) == A


def test_a_refused_access_marks_nothing() -> None:
    guest = Guest()
    guest.tables.map(HEAP, HEAP, P | NX)
    fault = caught(guest.launch(f"mov qword ptr [{HEAP}], 1\n hlt"))
    assert fault.vector == 14
    assert guest.word(guest.tables.entry_address(HEAP)) & (A | D) == 0


def test_large_pages_and_their_reserved_bits() -> None:
    guest = Guest()
    large = 1 << 7
    giant, big, bad = 0x80_0000_0000, 0x80_4000_0000, 0x80_4020_0000
    for address, shift, value in ((giant, 30, 0), (big, 21, 0), (bad, 21, 1 << 13)):
        guest.tables.entry_address(address)
        table = 0x10_0000
        for upper in (39, 30, 21):
            slot = table + 8 * (address >> upper & 511)
            if upper == shift:
                guest.tables.entries[slot] = value | large | DATA | guest.tables.c_mask
                break
            table = guest.tables.entries[slot] & 0x7_FFFF_FFFF_F000
    vcpu = guest.launch(
        "mov rax, [rdi + 0x40000]\n mov rbx, [rsi + 0x40008]\n mov rcx, [rdx + 0x40010]\n hlt",
        rdi=giant, rsi=big, rdx=bad,
    )  # fmt: skip
    fault = caught(vcpu)
    assert (fault.vector, fault.error_code, fault.cr2) == (14, PRESENT | RESERVED, bad + 0x40010)
    assert (fault.handler.rax, fault.handler.rbx) == (HEAP_WORD, HEAP_WORD)


def test_a_stale_translation_serves_until_it_is_flushed() -> None:
    guest = Guest()
    entry = guest.tables.entry_address(HEAP)
    window = 0x1F_0000
    guest.tables.map(window, entry & -PAGE, DATA)
    value = (HEAP + PAGE) | DATA | guest.tables.c_mask
    guest.contents[HEAP + PAGE] = (0x55).to_bytes(8, "little")
    vcpu = guest.launch(
        f"mov rbx, [{HEAP}]\n mov rax, {value}\n mov [{window + entry % PAGE}], rax\n"
        f"mov rcx, [{HEAP}]\n mov rdi, {HEAP}\n invlpg [rdi]\n mov rdx, [{HEAP}]\n hlt"
    )
    state = run_to_halt(vcpu)
    assert (state.rbx, state.rcx, state.rdx) == (HEAP_WORD, HEAP_WORD, 0x55)


def test_a_shared_leaf_over_private_code_pages_is_data_only_by_choice_of_the_guest() -> None:
    guest = Guest()
    guest.tables.map(SHARED + HANDLERS, HANDLERS, CODE, private=False)
    fault = caught(guest.launch(f"mov qword ptr [{SHARED + HANDLERS}], 1\n hlt"))
    assert fault.error_code == PRESENT | WRITE
