"""Exits, CPUID, MSRs, code that changes, and state that moves."""

from __future__ import annotations

import random

import pytest

from emulator_tests.machine.guests import (
    CODE,
    DATA,
    HEAP,
    HEAP_WORD,
    MEMORY,
    PAGE,
    RW,
    SHARED,
    STACK,
    TEXT,
    Guest,
    assemble,
    caught,
    gprs,
    run_to_halt,
)
from mh_emulator.exits import Exit, Reason
from mh_emulator.mmu import GuestFault, NoSlotError
from mh_emulator.parts import PARTS
from mh_emulator.registers import EFER_NXE, Registers
from mh_emulator.vcpu import Vcpu

MMIO = 0xA000_0000


def test_halt_leaves_rip_behind_the_instruction_and_goes_on() -> None:
    vcpu = Guest().launch("hlt\n mov eax, 5\n hlt")
    assert run_to_halt(vcpu).rip == TEXT + 1
    assert run_to_halt(vcpu).rax == 5


@pytest.mark.parametrize(("text", "length"), [("vmmcall", 3), (".byte 0xf3, 0x0f, 0x01, 0xd9", 4)])
def test_hypercalls_leave_registers_for_the_host(text: str, length: int) -> None:
    vcpu = Guest().launch(f"mov eax, 12\n {text}\n mov ebx, eax\n hlt")
    assert vcpu.run() == Exit(Reason.HYPERCALL)
    state = vcpu.get_registers()
    assert (state.rip, state.rax) == (TEXT + 5 + length, 12)
    vcpu.set_registers(state.with_changes(rax=99))
    assert run_to_halt(vcpu).rbx == 99


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
    state = vcpu.get_registers()
    assert state.rip == TEXT + len(assemble(text))
    assert state.rbx == 0
    assert run_to_halt(vcpu).rbx == 1


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


def test_only_long_mode_runs() -> None:
    guest = Guest()
    with pytest.raises(ValueError, match="long mode only"):
        guest.vm.create_vcpu().set_registers(guest.registers(cr0=1))


def cpuid(vcpu: Vcpu, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
    vcpu.set_registers(vcpu.get_registers().with_changes(rip=TEXT, rax=leaf, rcx=subleaf))
    state = run_to_halt(vcpu)
    return state.rax, state.rbx, state.rcx, state.rdx


@pytest.mark.parametrize(
    ("part", "address_bits", "ebx", "asids", "coherent"),
    [
        ("naples", 48, 0x16F, 15, 0),
        ("rome", 48, 0x16F, 509, 0),
        ("milan", 48, 0x173, 509, 1),
        ("genoa", 52, 0x1B3, 1006, 1),
    ],
)
def test_cpuid_shows_the_part(part: str, address_bits: int, ebx: int, asids: int, coherent: int) -> None:
    vcpu = Guest(part).launch("cpuid\n hlt")
    assert cpuid(vcpu, 0x8000_0008)[0] & 0xFF == address_bits
    sev = cpuid(vcpu, 0x8000_001F)
    # EBX[15:12], the number of VMPLs, belongs to SNP, which these guests have not.
    assert (sev[1], sev[2]) == (ebx, asids)
    assert sev[0] & 2
    assert sev[0] >> 10 & 1 == coherent
    vendor = cpuid(vcpu, 0)
    text = b"".join(vendor[n].to_bytes(4, "little") for n in (1, 3, 2))
    assert text == b"AuthenticAMD"
    hypervisor = cpuid(vcpu, 0x4000_0000)
    assert b"".join(n.to_bytes(4, "little") for n in hypervisor[1:]) == b"KVMKVMKVM\0\0\0"
    assert cpuid(vcpu, 0x4000_0001)[0] == 1 << 17
    needed = 1 << 1 | 1 << 9 | 1 << 19 | 1 << 20 | 1 << 25 | 1 << 26 | 1 << 30 | 1 << 31
    features = cpuid(vcpu, 1)
    assert features[2] & needed == needed
    assert features[2] >> 27 & 1 == 0
    assert features[2] >> 28 & 1 == 0, "AVX, which the engine executes wrongly"
    assert cpuid(vcpu, 7)[1] >> 18 & 1
    assert cpuid(vcpu, 7, 1) == (0, 0, 0, 0)
    extended = cpuid(vcpu, 0x8000_0001)
    assert all(extended[3] >> bit & 1 for bit in (20, 26, 29))


def test_cpuid_of_a_plain_guest_has_no_sev_and_osxsave_follows_cr4() -> None:
    guest = Guest(encrypted=False)
    vcpu = guest.launch("cpuid\n hlt")
    assert cpuid(vcpu, 0x8000_001F) == (0, 0, 0, 0)
    vcpu.set_registers(vcpu.get_registers().with_changes(cr4=guest.registers().cr4 | 1 << 18))
    assert cpuid(vcpu, 1)[2] >> 27 & 1


def msr(vcpu: Vcpu, index: int, value: int | None = None) -> int | None:
    """Read or write one MSR in the guest; None for #GP."""
    start = TEXT if value is None else TEXT + 3
    low, high = (0, 0) if value is None else (value & 0xFFFF_FFFF, value >> 32)
    state = vcpu.get_registers().with_changes(
        rip=start, rax=low | 0xDEAD << 32, rdx=high | 0xDEAD << 32, rcx=index | 0xBEEF << 32, rsp=STACK
    )
    vcpu.set_registers(state)
    stop = vcpu.run()
    while stop.reason is Reason.MSR:
        stop = vcpu.run()
    state = vcpu.get_registers()
    if state.rip == 0x2_0000 + 13 + 1:
        assert int.from_bytes(vcpu.read_linear(state.rsp, 16)[8:], "little") == start
        return None
    return state.rdx << 32 | state.rax if value is None else value


def test_msrs() -> None:
    guest = Guest()
    vcpu = guest.launch("rdmsr\n hlt\n wrmsr\n hlt")
    efer = guest.registers().efer
    assert msr(vcpu, 0xC001_0131) == 1
    assert msr(vcpu, 0xC000_0080) == efer
    for index, value in ((0xC000_0102, 0x1234_5678_9ABC_DEF0), (0xC000_0082, 0xFFFF_8000_0000_1000)):
        assert msr(vcpu, index, value) == value
        assert msr(vcpu, index) == value
    assert vcpu.get_registers().kernel_gs_base == 0x1234_5678_9ABC_DEF0
    for index in (0xC001_0130, 0x1234, 0x10):
        assert msr(vcpu, index) is None
        assert msr(vcpu, index, 1) is None
    assert msr(vcpu, 0xC001_0131, 1) is None
    assert msr(vcpu, 0xC000_0080, efer & ~(1 << 8)) is None
    assert msr(vcpu, 0xC000_0080, efer | 1 << 1) is None
    plain = Guest(encrypted=False).launch("rdmsr\n hlt\n wrmsr\n hlt")
    assert msr(plain, 0xC001_0131) is None


def test_efer_written_by_the_guest_changes_what_page_tables_mean() -> None:
    guest = Guest()
    for page in (STACK - PAGE, 0x5_0000, 0x5_1000):
        guest.tables.map(page, page, DATA & ~(1 << 63))
    vcpu = guest.launch(
        f"mov rbx, [{HEAP}]\n mov ecx, 0xc0000080\n rdmsr\n btr eax, 11\n wrmsr\n mov rbx, [{HEAP}]\n hlt"
    )
    fault = caught(vcpu)
    assert (fault.vector, fault.error_code, fault.cr2) == (14, 9, HEAP)
    assert not vcpu.get_registers().efer & EFER_NXE


def test_migration_control_is_an_event_for_the_host() -> None:
    guest = Guest()
    vcpu = guest.launch("rdmsr\n mov ebx, eax\n mov eax, 1\n xor edx, edx\n wrmsr\n rdmsr\n hlt", rcx=0x4B564D08)
    assert not guest.vm.migration_allowed
    assert vcpu.run() == Exit(Reason.MSR, msr=0x4B564D08, value=1)
    assert guest.vm.migration_allowed
    state = run_to_halt(vcpu)
    assert gprs(state, "rax rbx") == {"rax": 1, "rbx": 0}


def test_migration_control_has_one_bit() -> None:
    guest = Guest()
    fault = caught(guest.launch("wrmsr", rcx=0x4B564D08, rax=3))
    assert (fault.vector, fault.error_code, guest.vm.migration_allowed) == (13, 0, False)


def test_code_that_the_host_replaced_is_what_runs_next() -> None:
    guest = Guest()
    vcpu = guest.launch("mov eax, 1\n hlt")
    assert run_to_halt(vcpu).rax == 1
    guest.platform.dram.write_private(guest.vm.asid, guest.spa(TEXT), assemble("mov eax, 2\n hlt"))
    vcpu.set_registers(guest.registers())
    assert run_to_halt(vcpu).rax == 2


def test_code_whose_ciphertext_the_host_changed_runs_as_garbage() -> None:
    guest = Guest()
    vcpu = guest.launch("mov eax, 1\n hlt")
    run_to_halt(vcpu)
    guest.memory.write_raw(TEXT, bytes(16))
    vcpu.set_registers(guest.registers(rax=0))
    vcpu.run(100)
    assert vcpu.get_registers().rip != TEXT + 6


def test_instructions_that_the_guest_writes_itself() -> None:
    guest = Guest()
    guest.tables.map(TEXT, TEXT, CODE | RW)
    vcpu = guest.launch(
        "xor ebx, ebx\nagain:\n mov eax, 1\n inc ebx\n cmp ebx, 2\n je done\n"
        "mov byte ptr [rip + again + 1], 7\n jmp again\ndone: hlt"
    )
    assert run_to_halt(vcpu).rax == 7


def test_trapping_instructions_that_the_guest_writes_itself() -> None:
    guest = Guest()
    guest.tables.map(TEXT, TEXT, CODE | RW)
    # INC EBX; HLT over two NOPs that have been executed before.
    vcpu = guest.launch("again: nop\n nop\n nop\n mov dword ptr [rip + again], 0x90f4c3ff\n jmp again")
    assert run_to_halt(vcpu).rip == TEXT + 3


def test_code_written_through_another_mapping_and_through_the_shared_view() -> None:
    guest = Guest()
    guest.tables.map(HEAP + 0x10_0000, TEXT + PAGE, DATA)
    guest.contents[TEXT] = assemble(
        f"mov rdi, {TEXT + PAGE}\n call rdi\n mov dword ptr [{HEAP + 0x10_0000 + 1}], 5\n call rdi\n mov ebx, eax\n"
        f"mov rcx, [{SHARED + TEXT + PAGE}]\n call rdi\n mov [{SHARED + TEXT + PAGE}], rcx\n call rdi\n hlt"
    )
    guest.code(TEXT + PAGE, "mov eax, 1\n ret")
    state = run_to_halt(guest.launch())
    assert (state.rbx, state.rax) == (5, 5)


def test_another_vcpu_of_the_vm_sees_stores_at_once_also_into_code() -> None:
    guest = Guest()
    guest.tables.map(HEAP + 0x10_0000, TEXT, DATA)
    guest.code(TEXT, "mov eax, 1\n mov rbx, [rdi]\n hlt")
    guest.code(TEXT + PAGE, f"mov byte ptr [{HEAP + 0x10_0001}], 9\n mov qword ptr [rdi], 4\n hlt")
    first = guest.launch(rdi=HEAP)
    second = guest.vm.create_vcpu()
    second.set_registers(guest.registers(rip=TEXT + PAGE, rdi=HEAP))
    assert gprs(run_to_halt(first), "rax rbx") == {"rax": 1, "rbx": HEAP_WORD}
    run_to_halt(second)
    first.set_registers(guest.registers(rdi=HEAP))
    assert gprs(run_to_halt(first), "rax rbx") == {"rax": 9, "rbx": 4}


def test_two_vcpus_flip_the_view_of_one_page_under_each_other() -> None:
    guest = Guest()
    guest.code(TEXT, f"again: mov rax, [{HEAP}]\n mov rbx, [{HEAP + PAGE}]\n hlt\n jmp again")
    guest.code(TEXT + PAGE, f"again: mov rax, [{SHARED + HEAP}]\n hlt\n jmp again")
    first = guest.launch()
    raw = int.from_bytes(guest.memory.read_raw(HEAP, 8), "little")
    second = guest.vm.create_vcpu()
    second.set_registers(guest.registers(rip=TEXT + PAGE))
    for _ in range(5):
        assert run_to_halt(first).rax == HEAP_WORD
        assert run_to_halt(second).rax == raw


BUSY = """
again:
    imul rax, rax, 0x6255
    add rax, 0x3619
    movq xmm1, rax
    paddq xmm0, xmm1
    pxor xmm15, xmm0
    mov rdx, rax
    and edx, 0xff8
    add [rdi + rdx], rax
    rol r11, 7
    adc r11, rdx
    loop again
    hlt
"""


@pytest.mark.parametrize("cut", [1, 10, 11, 997, 5000])
def test_a_guest_moved_in_the_middle_of_its_work_ends_the_same(cut: int) -> None:
    straight = Guest()
    expected = run_to_halt(straight.launch(BUSY, rdi=HEAP, rcx=1000))
    guest = Guest()
    first = guest.launch(BUSY, rdi=HEAP, rcx=1000)
    assert first.run(cut) == Exit(Reason.LIMIT)
    second = guest.vm.create_vcpu()
    second.set_registers(first.get_registers())
    assert run_to_halt(second) == expected
    assert guest.private(HEAP, PAGE) == straight.private(HEAP, PAGE)


def test_every_register_survives_a_round_trip() -> None:
    rng = random.Random(5)
    names = [f"r{n}" for n in range(8, 16)] + ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"]
    guest = Guest()
    state = guest.registers(
        **{name: rng.getrandbits(64) for name in names},
        **{name: rng.getrandbits(47) for name in ("fs_base", "gs_base", "kernel_gs_base", "lstar", "cr2")},
        xmm=tuple(rng.getrandbits(128) for _ in range(16)),
        mxcsr=0x1FA0, rflags=0x40AD7, star=0x001B_0008 << 32, sfmask=0x4_7700, ds=0x1B, es=0x10, fs=0x1B, gs=0x23,
    )  # fmt: skip
    first, second = guest.vm.create_vcpu(), guest.vm.create_vcpu()
    first.set_registers(state)
    assert first.get_registers() == state
    second.set_registers(first.get_registers())
    assert second.get_registers() == state


def test_flags_that_the_engine_computes_late_are_carried() -> None:
    guest = Guest()
    first = guest.launch(
        "std\n mov al, 0x7f\n add al, 1\n hlt\n seto bl\n sets cl\n mov rdi, rsi\n lodsb\n hlt", rsi=HEAP + 8
    )
    state = run_to_halt(first)
    second = guest.vm.create_vcpu()
    second.set_registers(state)
    end = run_to_halt(second)
    assert (end.rbx & 0xFF, end.rcx & 0xFF, end.rsi) == (1, 1, HEAP + 7)


def test_user_mode_moves_too() -> None:
    guest = Guest()
    guest.code(0x7_0000, "again: inc rax\n jmp again")
    first = guest.launch("", rip=0x7_0000, cs=0x23, ss=0x1B, rsp=0x7_8000)
    assert first.run(10) == Exit(Reason.LIMIT)
    second = guest.vm.create_vcpu()
    second.set_registers(first.get_registers().with_changes(rip=HEAP))
    fault = caught(second)
    assert (fault.vector, fault.error_code, fault.cs) == (14, 0b10101, 0x23)


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


@pytest.mark.parametrize("part", PARTS)
def test_aes_gcm_instructions_give_what_the_standard_says(part: str) -> None:
    # FIPS 197, appendix B: one round is enough to tell a wrong byte order; PCLMULQDQ of x * x.
    guest = Guest(part)
    block = bytes.fromhex("193de3bea0f4e22b9ac68d2ae9f84808")
    round_key = bytes.fromhex("a0fafe1788542cb123a339392a6c7605")
    guest.contents[HEAP] = block + round_key
    vcpu = guest.launch(
        f"movdqu xmm0, [{HEAP}]\n movdqu xmm1, [{HEAP + 16}]\n aesenc xmm0, xmm1\n"
        "mov eax, 2\n movq xmm2, rax\n pclmulqdq xmm2, xmm2, 0\n hlt"
    )
    state = run_to_halt(vcpu)
    assert state.xmm[0].to_bytes(16, "little") == bytes.fromhex("a49c7ff2689f352b6b5bea43026a5049")
    assert state.xmm[2] == 4


def test_registers_default_to_the_documented_start() -> None:
    state = Registers.long_mode(0x1000, 0x2000, 0x3000)
    assert (state.rip, state.rsp, state.cr3, state.cs & 3, state.rflags) == (0x1000, 0x2000, 0x3000, 0, 2)
    assert (state.cr0, state.cr4, state.efer) == (0x8001_0033, 0x620, 0xD01)
