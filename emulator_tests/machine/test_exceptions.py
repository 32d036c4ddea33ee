"""Exceptions reach the guest's own handlers, with the frames that hardware makes."""

from __future__ import annotations

import struct

import pytest

from emulator_tests.machine.guests import (
    GDT,
    HANDLERS,
    HEAP,
    IDT,
    IST1,
    KERNEL_CS,
    KERNEL_SS,
    RSP0,
    STACK,
    TEXT,
    TSS,
    USER_CS,
    USER_SS,
    USER_STACK,
    USER_TEXT,
    Fault,
    Guest,
    caught,
    gate,
    run_to_halt,
)
from mh_emulator.cpu.registers import RFLAGS_IF, RFLAGS_TF, SystemSegment, Table
from mh_emulator.kvm.exits import Reason

HOLE = 0x9_0000


def set_gate(guest: Guest, vector: int, data: bytes) -> None:
    guest.patch(IDT + 16 * vector, data)


def as_user(guest: Guest, text: str) -> Fault:
    guest.code(USER_TEXT, text)
    return caught(guest.launch("", rip=USER_TEXT, cs=USER_CS, ss=USER_SS, rsp=USER_STACK, rflags=0x202))


@pytest.mark.parametrize(
    ("text", "vector", "error_code", "offset"),
    [
        ("xor ecx, ecx\n div ecx", 0, None, 2),
        ("nop\n ud2", 6, None, 1),
        ("nop\n vmcall", 6, None, 1),
        ("mov eax, 0x4c\n mov ds, eax", 13, 0x4C, 5),
        ("mov eax, 0x38\n mov ss, eax", 13, 0x38, 5),
        (f"push 0x38\n push {HEAP}\n retfq", 11, 0x38, None),
        ("mov eax, 0xfff\n ltr ax", 13, 0xFFC, 5),
        ("int3", 3, None, 1),
        ("nop\n int 0x30", 0x30, None, 3),
        ("nop\n int 0x0d", 0x0D, None, 3),
    ],
)
def test_vector_error_code_and_return_address(
    text: str, vector: int, error_code: int | None, offset: int | None
) -> None:
    guest = Guest()
    vcpu = guest.launch(text + "\nhlt", rflags=0x202)
    if text.startswith("nop\n int 0x0d"):
        # INT 13 pushes no error code, so this frame is the short one.
        assert vcpu.run().reason is Reason.HLT
        state = vcpu.get_registers()
        words = struct.unpack("<5Q", vcpu.read_linear(state.rsp, 40))
        assert (state.rip, words) == (HANDLERS + 14, (TEXT + 3, KERNEL_CS, 0x202, STACK, KERNEL_SS))
        return
    fault = caught(vcpu)
    assert (fault.vector, fault.error_code) == (vector, error_code)
    if offset is not None:
        assert fault.rip == TEXT + offset
        assert (fault.cs, fault.ss, fault.rsp) == (KERNEL_CS, KERNEL_SS, STACK)


def test_a_hundred_exceptions_in_a_row_stay_what_they_are() -> None:
    guest = Guest()
    guest.code(HANDLERS + 0x800, "add qword ptr [rsp + 8], 2\n add rsp, 8\n inc r15\n iretq")
    guest.code(HANDLERS + 0xC00, "add qword ptr [rsp], 2\n inc r14\n iretq")
    set_gate(guest, 13, gate(HANDLERS + 0x800))
    set_gate(guest, 0, gate(HANDLERS + 0xC00))
    vcpu = guest.launch(
        "mov eax, 0x4c\n xor ecx, ecx\n mov ebx, 50\nagain:\n mov ds, eax\n div ecx\n dec ebx\n jnz again\n hlt"
    )
    state = run_to_halt(vcpu)
    assert (state.r15, state.r14, state.rsp) == (50, 50, STACK)


def test_the_stack_is_aligned_before_the_frame() -> None:
    fault = caught(Guest().launch("ud2", rsp=STACK - 5))
    assert fault.rsp == STACK - 5
    assert fault.handler.rsp == STACK - 16 - 40


@pytest.mark.parametrize(("kind", "kept"), [(0xE, 0), (0xF, RFLAGS_IF)])
def test_interrupt_gates_turn_interrupts_off_and_trap_gates_do_not(kind: int, kept: int) -> None:
    guest = Guest()
    set_gate(guest, 6, gate(HANDLERS + 6, kind=kind))
    fault = caught(guest.launch("ud2", rflags=0x2 | RFLAGS_IF))
    assert fault.rflags & RFLAGS_IF
    assert fault.handler.rflags & (RFLAGS_IF | RFLAGS_TF) == kept


def test_a_gate_with_ist_switches_stacks_without_a_change_of_privilege() -> None:
    guest = Guest()
    set_gate(guest, 6, gate(HANDLERS + 6, ist=1))
    fault = caught(guest.launch("ud2"))
    assert fault.handler.rsp == IST1 - 40
    assert (fault.rsp, fault.ss, fault.handler.ss) == (STACK, KERNEL_SS, KERNEL_SS)


def test_user_code_enters_the_supervisor_through_rsp0_and_comes_back() -> None:
    guest = Guest()
    guest.code(HANDLERS + 0x800, "inc r15\n add qword ptr [rsp], 2\n iretq")
    set_gate(guest, 6, gate(HANDLERS + 0x800))
    fault = as_user(guest, "ud2\n ud2\n hlt")
    # HLT is the supervisor's, so it ends in #GP, from user mode again.
    assert (fault.vector, fault.error_code, fault.rip) == (13, 0, USER_TEXT + 4)
    assert (fault.cs, fault.ss, fault.rsp) == (USER_CS, USER_SS, USER_STACK)
    assert (fault.handler.cs, fault.handler.ss, fault.handler.rsp) == (KERNEL_CS, 0, RSP0 - 48)
    assert fault.handler.r15 == 2


@pytest.mark.parametrize(
    "text",
    [
        "mov rax, cr0",
        "mov rax, cr3",
        "mov ecx, 0xc0000080\n rdmsr",
        "wrmsr",
        "in al, 0x60",
        "out dx, al",
        "lidt [rax]",
        "cli",
    ],
)
def test_privileged_instructions_in_user_code(text: str) -> None:
    fault = as_user(Guest(), text)
    assert (fault.vector, fault.error_code) == (13, 0)


def test_user_code_may_raise_only_what_the_gate_lets_it() -> None:
    guest = Guest()
    set_gate(guest, 0x30, gate(HANDLERS + 0x30, dpl=3))
    fault = as_user(guest, "int 0x30")
    assert (fault.vector, fault.rip, fault.cs) == (0x30, USER_TEXT + 2, USER_CS)
    fault = as_user(Guest(), "nop\n int 0x31")
    assert (fault.vector, fault.error_code, fault.rip) == (13, 0x31 << 3 | 2, USER_TEXT + 1)


@pytest.mark.parametrize(
    ("change", "vector", "error_code"),
    [
        (gate(0, present=False), 11, 6 << 3 | 3),
        (gate(0, kind=0xC), 13, 6 << 3 | 3),
        (gate(HANDLERS, cs=0), 13, 1),
        (gate(HANDLERS, cs=0x30), 13, 0x31),
        (gate(HANDLERS, cs=0x38), 11, 0x39),
        (gate(HANDLERS, cs=KERNEL_SS), 13, 0x11),
        (gate(HANDLERS, cs=0x40), 13, 0x41),
        (gate(HANDLERS, ist=2), 12, 1),
        (gate(HANDLERS, cs=USER_CS & ~3), 13, 0x21),
    ],
    ids=["absent", "call gate", "null", "32-bit", "code absent", "data", "beyond", "bad stack", "outward"],
)
def test_a_bad_gate_of_a_benign_exception_is_reported_itself(change: bytes, vector: int, error_code: int) -> None:
    guest = Guest()
    set_gate(guest, 6, change)
    guest.patch(TSS + 0x2C, (0x9000_0000_0000).to_bytes(8, "little"))
    fault = caught(guest.launch("nop\n ud2"))
    assert (fault.vector, fault.error_code, fault.rip) == (vector, error_code, TEXT + 1)


def test_a_short_idt() -> None:
    fault = caught(Guest().launch("nop\n int 0x30", idtr=Table(IDT, 0x2FF)))
    assert (fault.vector, fault.error_code, fault.rip) == (13, 0x30 << 3 | 2, TEXT + 1)


def test_a_short_tss() -> None:
    guest = Guest()
    set_gate(guest, 6, gate(HANDLERS + 6, ist=1))
    fault = caught(guest.launch("ud2", tr=SystemSegment(0x28, TSS, 0x2A, 0x8B00)))
    assert (fault.vector, fault.error_code) == (10, 0x29)


def double(guest: Guest) -> None:
    set_gate(guest, 8, gate(HANDLERS + 8, ist=1))


def test_a_page_fault_on_the_way_to_a_page_fault_handler_is_a_double_fault() -> None:
    guest = Guest()
    double(guest)
    fault = caught(guest.launch(f"mov rsp, {HOLE + 0x800}\n mov rax, [{HEAP - 0x10_0000 + 0x7000}]\n push rax"))
    assert (fault.vector, fault.error_code) == (8, 0)
    assert fault.cr2 >> 12 == HOLE >> 12


def test_a_contributory_fault_on_the_way_to_another_is_a_double_fault() -> None:
    guest = Guest()
    double(guest)
    set_gate(guest, 13, gate(HANDLERS, present=False))
    fault = caught(guest.launch("mov eax, 0x4c\n mov ds, eax"))
    assert (fault.vector, fault.error_code, fault.rip) == (8, 0, TEXT + 5)


def test_a_page_fault_on_the_way_to_a_contributory_one_is_served_first() -> None:
    guest = Guest()
    set_gate(guest, 14, gate(HANDLERS + 14, ist=1))
    fault = caught(guest.launch(f"mov rsp, {HOLE + 0x800}\n mov eax, 0x4c\n mov ds, eax"))
    assert (fault.vector, fault.error_code, fault.cr2) == (14, 2, HOLE + 0x800 - 48)


def test_a_fault_on_the_way_to_the_double_fault_handler_shuts_down() -> None:
    guest = Guest()
    set_gate(guest, 8, gate(HANDLERS, present=False))
    set_gate(guest, 13, gate(HANDLERS, present=False))
    vcpu = guest.launch("mov eax, 0x4c\n mov ds, eax")
    assert vcpu.run().reason is Reason.SHUTDOWN
    assert vcpu.get_registers().rip == TEXT + 5


def test_without_an_idt_the_first_exception_shuts_down() -> None:
    assert Guest().launch("ud2", idtr=Table(0, 0)).run().reason is Reason.SHUTDOWN


def test_the_guest_loads_its_own_tables() -> None:
    guest = Guest()
    pointers = struct.pack("<HQ6xHQ", 0x3F, GDT, 0xFFF, IDT)
    guest.contents[HEAP] = pointers
    vcpu = guest.launch(
        f"mov rax, {HEAP}\n lgdt [rax]\n lidt [rax + 16]\n mov eax, {KERNEL_SS}\n mov ss, eax\n"
        f"push {KERNEL_CS}\n lea rax, [rip + next]\n push rax\n retfq\nnext: ud2",
        gdtr=Table(), idtr=Table(), tr=SystemSegment(), cs=0x10, ss=0x18,
    )  # fmt: skip
    fault = caught(vcpu)
    assert (fault.vector, fault.cs, fault.ss) == (6, KERNEL_CS, KERNEL_SS)
