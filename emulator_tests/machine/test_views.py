"""The C-bit as guest code sees it."""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import CODE, DATA, HEAP, HEAP_WORD, PAGE, SHARED, STACK, TEXT, Guest, run_to_halt
from mh_builder.parts import PARTS


@pytest.fixture(params=list(PARTS))
def guest(request: pytest.FixtureRequest) -> Guest:
    return Guest(str(request.param))


def test_private_loads_see_plaintext_and_shared_loads_what_dram_holds(guest: Guest) -> None:
    vcpu = guest.launch(f"mov rax, [{HEAP}]\n mov rbx, [{SHARED + HEAP}]\n mov rcx, [{HEAP}]\n hlt")
    raw = int.from_bytes(guest.memory.read_raw(HEAP, 8), "little")
    state = run_to_halt(vcpu)
    assert (state.rax, state.rbx, state.rcx) == (HEAP_WORD, raw, HEAP_WORD)
    assert raw != HEAP_WORD


def test_private_stores_leave_ciphertext_for_the_host(guest: Guest) -> None:
    vcpu = guest.launch(f"mov rax, 0x4142434445464748\n mov [{HEAP}], rax\n hlt")
    before = guest.memory.read_raw(HEAP, 32)
    run_to_halt(vcpu)
    guest.platform.psp.wbinvd()
    after = guest.memory.read_raw(HEAP, 32)
    assert guest.word(HEAP) == 0x4142434445464748
    assert after[:16] != before[:16]
    assert after[16:] == before[16:]
    assert b"HGFEDCBA" not in after


def test_shared_stores_are_the_hosts_bytes_and_corrupt_one_private_block(guest: Guest) -> None:
    vcpu = guest.launch(f"mov rax, 0x4142434445464748\n mov [{SHARED + HEAP + 0x20}], rax\n hlt")
    private = guest.private(HEAP, PAGE)
    guest.platform.psp.wbinvd()
    run_to_halt(vcpu)
    assert guest.memory.read_raw(HEAP + 0x20, 8) == b"HGFEDCBA"
    seen = guest.private(HEAP, PAGE)
    assert [n for n in range(0, PAGE, 16) if seen[n : n + 16] != private[n : n + 16]] == [0x20]


def test_a_string_copy_between_both_views_of_one_page(guest: Guest) -> None:
    guest.contents[HEAP] = bytes(range(256)) * 16
    vcpu = guest.launch(
        f"mov rsi, {HEAP}\n mov rdi, {SHARED + HEAP + 0x800}\n mov ecx, 128\n rep movsq\n hlt",
    )
    run_to_halt(vcpu)
    assert guest.memory.read_raw(HEAP + 0x800, 1024) == (bytes(range(256)) * 4)
    assert guest.private(HEAP, 0x800) == bytes(range(256)) * 8


def test_a_copy_into_the_private_view_of_the_page_it_reads(guest: Guest) -> None:
    vcpu = guest.launch(
        f"mov rsi, {SHARED + HEAP}\n mov rdi, {HEAP + 0x800}\n mov ecx, 64\n rep movsq\n hlt",
    )
    raw = guest.memory.read_raw(HEAP, 512)
    run_to_halt(vcpu)
    assert guest.private(HEAP + 0x800, 512) == raw


def test_the_host_sees_a_guests_shared_store_and_the_guest_the_hosts_answer(guest: Guest) -> None:
    guest.contents[HEAP] = b""
    vcpu = guest.launch(f"mov qword ptr [{SHARED + HEAP}], 7\n hlt\n mov rax, [{SHARED + HEAP}]\n hlt")
    run_to_halt(vcpu)
    assert guest.memory.read_raw(HEAP, 8) == (7).to_bytes(8, "little")
    guest.memory.write_raw(HEAP, (9).to_bytes(8, "little"))
    assert run_to_halt(vcpu).rax == 9


def test_instructions_are_fetched_private_through_a_shared_mapping(guest: Guest) -> None:
    guest.tables.map(SHARED + TEXT, TEXT, CODE, private=False)
    vcpu = guest.launch(f"mov rax, [{SHARED + TEXT}]\n hlt", rip=SHARED + TEXT)
    first_bytes = int.from_bytes(guest.private(TEXT, 8), "little")
    state = run_to_halt(vcpu)
    assert state.rip > SHARED
    assert state.rax != first_bytes


def test_page_tables_are_walked_private_whatever_cr3_and_pointers_say(guest: Guest) -> None:
    c_mask = guest.tables.c_mask
    leaves = {guest.tables.entry_address(va) for va in (TEXT, STACK - 8, HEAP)}
    for address in guest.tables.entries:
        if guest.tables.entries[address] & 0x8000_0000_0000_0000 == 0 and address not in leaves:
            guest.tables.entries[address] &= ~c_mask
    vcpu = guest.launch(f"mov rax, [{HEAP}]\n hlt", cr3=guest.cr3 & ~c_mask)
    state = run_to_halt(vcpu)
    assert (state.rax, state.cr3) == (HEAP_WORD, guest.cr3 & ~c_mask)


def test_a_plain_guest_reads_what_the_host_wrote_and_has_no_c_bit() -> None:
    guest = Guest(encrypted=False)
    guest.tables.map(HEAP, HEAP, DATA | 1 << 51)
    vcpu = guest.launch(f"mov rbx, [{SHARED + HEAP}]\n mov rax, [{HEAP}]\n hlt")
    guest.memory.write_raw(HEAP, b"hostdata")
    stop = vcpu.run()
    state = vcpu.get_registers()
    assert stop.reason.value == "hlt"
    assert state.rbx == int.from_bytes(b"hostdata", "little")
    # Bit 51 lies above MAXPHYADDR: reserved without SEV.
    assert state.rip - 1 == 0x2_0000 + 14
    assert int.from_bytes(vcpu.read_linear(state.rsp, 8), "little") == 0b1001
