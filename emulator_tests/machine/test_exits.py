"""Exits: halts, ports, addresses without a slot, limits, traces for the host."""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import (
    DATA,
    HEAP,
    HEAP_WORD,
    MEMORY,
    PAGE,
    SHARED,
    TEXT,
    Guest,
    assemble,
    gprs,
    run_to_halt,
)
from mh_emulator.cpu.mmu import GuestFault
from mh_emulator.cpu.nested import NoSlotError
from mh_emulator.kvm.exits import Exit, Reason

MMIO = 0xA000_0000


def test_halt_leaves_rip_behind_the_instruction_and_goes_on() -> None:
    vcpu = Guest().launch("hlt\n mov eax, 5\n hlt")
    assert run_to_halt(vcpu).rip == TEXT + 1
    assert run_to_halt(vcpu).rax == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out 0x80, al", Exit(Reason.IO, port=0x80, size=1, value=0x44, is_write=True)),
        ("out 0x80, ax", Exit(Reason.IO, port=0x80, size=2, value=0x3344, is_write=True)),
        ("out dx, eax", Exit(Reason.IO, port=0x402, size=4, value=0x11223344, is_write=True)),
        ("out dx, ax", Exit(Reason.IO, port=0x402, size=2, value=0x3344, is_write=True)),
        ("in al, 0x60", Exit(Reason.IO, port=0x60, size=1)),
        ("in eax, dx", Exit(Reason.IO, port=0x402, size=4)),
    ],
)
def test_ports(text: str, expected: Exit) -> None:
    vcpu = Guest().launch(f"{text}\n inc ebx\n hlt", rax=0x11223344, rdx=0x5_0402)
    assert vcpu.run() == expected
    assert vcpu.get_registers().rip == TEXT
    state = run_to_halt(vcpu)
    assert (state.rip, state.rbx) == (TEXT + len(assemble(f"{text}\n inc ebx\n hlt")), 1)


def test_port_opcodes_inside_other_instructions_are_no_exits() -> None:
    constant = 0xF4EE_EDEC_E7E6_E5E4
    vcpu = Guest().launch(f"mov rax, {constant}\n mov rbx, 0x300f320f66ee6644\n hlt")
    assert gprs(run_to_halt(vcpu), "rax rbx") == {"rax": constant, "rbx": 0x300F320F66EE6644}


@pytest.mark.parametrize(
    ("text", "offset", "size", "is_write"),
    [
        ("mov eax, [rdi + 0x30]", 0x30, 4, False),
        ("mov [rdi + rcx * 8], bl", 0x10, 1, True),
        ("movdqu [rdi + 0xff0], xmm0", 0xFF0, 16, True),
        ("movsq", 0, 8, True),
    ],
)
def test_addresses_without_a_slot_stop_before_the_instruction(
    text: str, offset: int, size: int, is_write: bool
) -> None:
    guest = Guest()
    guest.tables.map(MMIO, MMIO, DATA, private=False)
    vcpu = guest.launch(f"nop\n {text}\n hlt", rdi=MMIO, rcx=2, rsi=HEAP)
    assert vcpu.run() == Exit(Reason.MMIO, gpa=MMIO + offset, size=size, is_write=is_write)
    assert vcpu.get_registers().rip == TEXT + 1
    memory = guest.platform.memory(PAGE)
    guest.vm.set_user_memory_region(1, MMIO, PAGE, memory, 0)
    run_to_halt(vcpu)


def test_page_tables_outside_of_all_slots() -> None:
    guest = Guest()
    guest.tables.entries[0x10_0000 + 8] = MMIO | 0x23 | guest.tables.c_mask
    vcpu = guest.launch("mov rax, [rdi]\n hlt", rdi=0x80_0000_0000 + (3 << 30))
    assert vcpu.run() == Exit(Reason.MMIO, gpa=MMIO + 24)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, 12345])
def test_the_limit_is_exact_and_the_guest_continues(count: int) -> None:
    vcpu = Guest().launch("again: inc rax\n jmp again")
    assert vcpu.run(count) == Exit(Reason.LIMIT)
    assert vcpu.get_registers().rax == (count + 1) // 2
    assert vcpu.run(count) == Exit(Reason.LIMIT)
    assert vcpu.get_registers().rax == count


def test_a_limit_counts_across_faults_and_msr_accesses() -> None:
    guest = Guest()
    guest.code(0x2_0800, "add qword ptr [rsp], 2\n iretq")
    guest.patch(0x5_0000 + 6 * 16, (0x0800).to_bytes(2, "little"))
    vcpu = guest.launch("mov ecx, 0xc0000080\nagain: inc rbx\n ud2\n rdmsr\n jmp again")
    # One turn: INC, UD2, ADD, IRETQ, RDMSR, JMP.
    assert vcpu.run(1 + 6 * 10) == Exit(Reason.LIMIT)
    state = vcpu.get_registers()
    assert (state.rbx, state.rip) == (10, TEXT + 5)


def test_a_limit_after_a_run_without_one_on_the_same_code() -> None:
    vcpu = Guest().launch("again: dec rcx\n jnz again\n hlt", rcx=1000)
    start = vcpu.get_registers()
    run_to_halt(vcpu)
    vcpu.set_registers(start)
    assert vcpu.run(500) == Exit(Reason.LIMIT)
    assert vcpu.get_registers().rcx == 750
    assert run_to_halt(vcpu).rcx == 0


def test_a_limit_of_zero_runs_nothing() -> None:
    vcpu = Guest().launch("inc rax\n hlt")
    assert vcpu.run(0) == Exit(Reason.LIMIT)
    assert vcpu.get_registers().rax == 0


def test_a_guest_that_is_not_launched_cannot_be_entered() -> None:
    guest = Guest()
    guest.vm.sev_init()
    guest.vm.sev_launch_start(0)
    vcpu = guest.vm.create_vcpu()
    vcpu.set_registers(guest.registers())
    assert vcpu.run() == Exit(Reason.FAIL_ENTRY)


def test_lma_is_long_mode_with_paging() -> None:
    guest = Guest()
    with pytest.raises(ValueError, match="LMA is LME with paging"):
        guest.vm.create_vcpu().set_registers(guest.registers(cr0=1))


def test_the_trace_sees_every_data_access_with_its_system_address() -> None:
    guest = Guest()
    vcpu = guest.launch(f"mov eax, [{HEAP + 4}]\n mov [{HEAP + 8}], rax\n mov al, [{SHARED + HEAP + 9}]\n hlt")
    seen: list[tuple[int, int, bool]] = []
    vcpu.trace_memory(lambda spa, size, is_write: seen.append((spa, size, is_write)))
    run_to_halt(vcpu)
    spa = guest.spa(HEAP)
    assert seen == [(spa + 4, 4, False), (spa + 8, 8, True), (spa + 9, 1, False)]
    vcpu.trace_memory(None)
    vcpu.set_registers(guest.registers())
    run_to_halt(vcpu)
    assert len(seen) == 3


def test_the_trace_can_be_switched_on_for_code_that_ran_before() -> None:
    guest = Guest()
    vcpu = guest.launch(f"mov eax, [{HEAP}]\n hlt")
    run_to_halt(vcpu)
    seen: list[int] = []
    vcpu.trace_memory(lambda spa, _size, _is_write: seen.append(spa))
    vcpu.set_registers(guest.registers())
    run_to_halt(vcpu)
    assert seen == [guest.spa(HEAP)]


def test_linear_reads_for_the_host() -> None:
    guest = Guest()
    vcpu = guest.launch()
    assert vcpu.read_linear(HEAP + PAGE - 8, 8) == HEAP_WORD.to_bytes(8, "little")
    with pytest.raises(GuestFault):
        vcpu.read_linear(0x9_0000, 1)
    assert guest.vm.spa(MEMORY) is None
    guest.tables.map(MMIO, MMIO, DATA)


def test_a_table_walk_outside_of_memory_is_an_error_for_the_host_too() -> None:
    guest = Guest()
    guest.tables.map(MMIO, MMIO, DATA)
    with pytest.raises(NoSlotError):
        guest.launch().read_linear(MMIO, 1)
