"""Pages of a guest that are to come: whoever needs one leaves, and goes on as if it had been there.

Source: userfaultfd(2); AMD64 APM volume 2, section 15.7.2 (EXITINTINFO).
"""

from __future__ import annotations

import pytest

from emulator_tests.machine.guests import (
    GDT,
    HANDLERS,
    HEAP,
    HEAP_WORD,
    IDT,
    PAGE,
    STACK,
    TABLES,
    TEXT,
    TSS,
    Guest,
    caught,
    gate,
    run_to_halt,
)
from emulator_tests.machine.test_interrupts import Line
from mh_emulator.cpu.registers import RFLAGS_IF, Registers
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit, Reason

VECTOR = 0x41
USES = f"mov rax, [{HEAP}]\n mov [{HEAP} + 8], rax\n push rax\n pop rbx\n hlt"


def withdraw(guest: Guest, *gpas: int) -> None:
    guest.vm.await_pages(gpas)


def run(guest: Guest, vcpu: Vcpu) -> tuple[list[int], Registers]:
    """To a HLT that is not a handler's: which pages were asked for, each of which comes then; and where it stands."""
    asked = []
    while guest.vm.absent:
        exit_ = vcpu.run()
        if exit_.reason is not Reason.MEMORY_FAULT:
            break
        assert exit_ == Exit(Reason.MEMORY_FAULT, gpa=exit_.gpa, size=PAGE)
        guest.vm.absent.remove(exit_.gpa)
        asked.append(exit_.gpa)
    return asked, vcpu.get_registers()


@pytest.mark.parametrize("encrypted", [True, False])
def test_what_code_needs_is_asked_for_once(*, encrypted: bool) -> None:
    guest = Guest(encrypted=encrypted)
    vcpu = guest.launch(USES)
    withdraw(guest, HEAP, HEAP + PAGE, STACK - PAGE)
    asked, _ = run(guest, vcpu)
    state = vcpu.get_registers()
    assert asked == [HEAP, STACK - PAGE]
    assert guest.vm.absent == {HEAP + PAGE}
    assert (state.rax, state.rbx) == (HEAP_WORD, HEAP_WORD)
    assert vcpu.read_linear(HEAP + 8, 8) == HEAP_WORD.to_bytes(8, "little")


def test_nothing_has_happened_before() -> None:
    guest = Guest()
    vcpu = guest.launch(f"inc qword ptr [{HEAP + PAGE - 4}]\n hlt")
    withdraw(guest, HEAP + PAGE)
    before = vcpu.get_registers()
    assert vcpu.run() == Exit(Reason.MEMORY_FAULT, gpa=HEAP + PAGE, size=PAGE)
    assert vcpu.run() == Exit(Reason.MEMORY_FAULT, gpa=HEAP + PAGE, size=PAGE)
    assert vcpu.get_registers() == before
    assert guest.word(HEAP + PAGE - 8) == HEAP_WORD
    guest.vm.absent.clear()
    assert run_to_halt(vcpu).rip > TEXT


def test_instructions_and_tables() -> None:
    guest = Guest()
    tables = {address & -PAGE for address in guest.tables.entries}
    vcpu = guest.launch("jmp 1f\n .zero 4096\n1: mov eax, 5\n hlt")
    withdraw(guest, TEXT, TEXT + PAGE, *tables)
    asked, state = run(guest, vcpu)
    assert (state.rax, state.rip) == (5, TEXT + 5 + PAGE + 6)
    assert {TEXT, TEXT + PAGE, TABLES} < set(asked) <= {TEXT, TEXT + PAGE, *tables}
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("needed", [IDT, GDT, STACK - PAGE, HANDLERS])
def test_an_exception_comes_when_its_way_is_there(needed: int) -> None:
    guest = Guest()
    vcpu = guest.launch("ud2")
    withdraw(guest, needed)
    assert vcpu.run() == Exit(Reason.MEMORY_FAULT, gpa=needed, size=PAGE)
    guest.vm.absent.clear()
    fault = caught(vcpu)
    assert (fault.vector, fault.rip) == (6, TEXT)


@pytest.mark.parametrize("needed", [IDT, GDT, STACK - PAGE, HANDLERS])
def test_an_interrupt_is_not_lost(needed: int) -> None:
    """It has been taken from its device, which gives it once."""
    guest, devices = Guest(), Line([VECTOR])
    guest.code(HANDLERS, "inc r8\n iretq")
    guest.patch(IDT + 16 * VECTOR, gate(HANDLERS))
    guest.vm.devices = devices
    vcpu = guest.launch("sti\n nop\n rdtsc\n nop\n hlt", r8=0)
    withdraw(guest, needed)
    asked, _ = run(guest, vcpu)
    assert asked == [needed]
    state = vcpu.get_registers() if vcpu.get_registers().r8 else run_to_halt(vcpu)
    assert (state.r8, devices.taken) == (1, [VECTOR])
    assert state.rflags & RFLAGS_IF


def test_devices_are_asked_for_what_has_no_slot_only() -> None:
    guest, devices = Guest(), Line([])
    guest.vm.devices = devices
    vcpu = guest.launch(f"mov rax, [{HEAP}]\n hlt")
    withdraw(guest, HEAP)
    assert run(guest, vcpu)[0] == [HEAP]
    assert devices.asked == 0
    assert TSS not in guest.vm.absent
