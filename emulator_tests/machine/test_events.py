"""EVENTINJ: what a hypervisor makes happen in a guest, and what VMRUN does not take.

Source: AMD64 APM volume 2, sections 15.20, 8.2.9 and 8.9.
"""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest

from emulator_tests.machine.guests import (
    DATA,
    GDT,
    HANDLERS,
    HEAP,
    IDT,
    IST1,
    KERNEL_CS,
    KERNEL_SS,
    MEMORY,
    PAGE,
    STACK,
    TEXT,
    USER_CS,
    USER_SS,
    USER_STACK,
    USER_TEXT,
    Guest,
    gate,
)
from mh_emulator.cpu.eventinj import EventInjection, Kind
from mh_emulator.cpu.exceptions import WITH_ERROR_CODE
from mh_emulator.cpu.registers import RFLAGS_IF, Registers, Table
from mh_emulator.dram.dram import Dram, DramFullError
from mh_emulator.kvm import Vcpu
from mh_emulator.kvm.exits import Exit, Reason

INTR, NMI, EXCEPTION, SOFTWARE = Kind.INTR, Kind.NMI, Kind.EXCEPTION, Kind.SOFTWARE
COUNTING = "again: inc rax\n jmp again"
IN_IDT, EXT = 2, 1


def state_of(guest: Guest, vcpu: Vcpu) -> Registers:
    return guest.inside(vcpu) if guest.es else vcpu.get_registers()


def landed(guest: Guest, vcpu: Vcpu) -> tuple[int, Registers]:
    """Run into a handler, which halts; return its vector, and the state there."""
    assert vcpu.run() == Exit(Reason.HLT)
    state = state_of(guest, vcpu)
    return state.rip - 1 - HANDLERS, state


def words(guest: Guest, address: int, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}Q", guest.private(address, 8 * count))


def reported(guest: Guest, vcpu: Vcpu) -> tuple[int, int]:
    """Run into a handler of an exception with an error code; return both."""
    vector, state = landed(guest, vcpu)
    return vector, words(guest, state.rsp, 1)[0]


@pytest.mark.parametrize("es", [False, True], ids=["sev", "sev-es"])
@pytest.mark.parametrize(
    ("event", "vector"),
    [
        (EventInjection(INTR, 0), 0),
        (EventInjection(INTR, 14), 14),
        (EventInjection(INTR, 3, 0), 3),
        (EventInjection(INTR, 255, 0xFFFF_FFFF), 255),
        (EventInjection(NMI, 77), 2),
        (EventInjection(NMI, 2, 5), 2),
        (EventInjection(EXCEPTION, 14, 4), 14),
        (EventInjection(EXCEPTION, 14), 14),
        (EventInjection(EXCEPTION, 28), 28),
        (EventInjection(EXCEPTION, 3, 9), 3),
        (EventInjection(SOFTWARE, 0x80), 0x80),
        (EventInjection(SOFTWARE, 13, 1), 13),
    ],
)
def test_an_error_code_is_pushed_where_ev_is_set_and_nowhere_else(
    event: EventInjection, vector: int, *, es: bool
) -> None:
    guest = Guest(es=es)
    vcpu = guest.launch(COUNTING, rflags=0x202)
    assert vcpu.run(20).reason is Reason.LIMIT
    before = state_of(guest, vcpu)
    vcpu.inject_event(event)
    assert landed(guest, vcpu)[0] == vector
    state = state_of(guest, vcpu)
    pushed = [] if event.error_code is None else [event.error_code]
    frame = (*pushed, before.rip, KERNEL_CS, before.rflags, STACK, KERNEL_SS)
    assert state.rsp == STACK - 8 * len(frame)
    assert words(guest, state.rsp, len(frame)) == frame
    # Of the 10 rounds none more was begun.
    assert (state.rax, state.cr2) == (before.rax, before.cr2) == (10, 0)


@pytest.mark.parametrize("kind", [INTR, NMI])
def test_interrupts_that_are_off_do_not_matter(kind: Kind) -> None:
    guest = Guest()
    vcpu = guest.launch("cli\n hlt\n hlt", rflags=2)
    assert vcpu.run().reason is Reason.HLT
    vcpu.inject_event(EventInjection(kind, 2))
    vector, state = landed(guest, vcpu)
    assert (vector, state.rsp) == (2, STACK - 40)
    assert not state.rflags & RFLAGS_IF


@pytest.mark.parametrize("es", [False, True], ids=["sev", "sev-es"])
@pytest.mark.parametrize(
    "event",
    [
        *(EventInjection(kind, 14) for kind in (1, 5, 6, 7)),
        *(EventInjection(EXCEPTION, vector) for vector in (2, 5, 32, 255)),
    ],
)
def test_what_vmrun_does_not_take_changes_nothing(event: EventInjection, *, es: bool) -> None:
    guest = Guest(es=es)
    vcpu = guest.launch(COUNTING)
    assert vcpu.run(20).reason is Reason.LIMIT
    before, memory = state_of(guest, vcpu), guest.memory.read_raw(0, MEMORY)
    vcpu.inject_event(event)
    assert vcpu.run(20) == Exit(Reason.FAIL_ENTRY)
    assert (state_of(guest, vcpu), guest.memory.read_raw(0, MEMORY)) == (before, memory)
    assert vcpu.run(20).reason is Reason.LIMIT
    assert state_of(guest, vcpu).rax == 20


@pytest.mark.parametrize("fields", [{"kind": 8}, {"kind": -1}, {"vector": 256}, {"error_code": 1 << 32}])
def test_fields_have_a_width(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"is no EVENTINJ field$"):
        EventInjection(**{"kind": 0, "vector": 0, **fields})


def test_the_last_one_happens_and_it_happens_once() -> None:
    guest = Guest()
    guest.code(HANDLERS + 0x800, "inc r15\n iretq")
    guest.patch(IDT + 16 * 40, gate(HANDLERS + 0x800))
    vcpu = guest.launch(COUNTING)
    vcpu.inject_event(EventInjection(INTR, 41))
    vcpu.inject_event(EventInjection(INTR, 40))
    for _ in range(2):
        assert vcpu.run(50).reason is Reason.LIMIT
    state = vcpu.get_registers()
    assert (state.r15, state.rax) == (1, 49)


def test_stack_of_the_gate() -> None:
    guest = Guest()
    guest.patch(IDT + 16 * 60, gate(HANDLERS + 60, ist=1))
    vcpu = guest.launch()
    vcpu.inject_event(EventInjection(INTR, 60, 1))
    vector, state = landed(guest, vcpu)
    assert (vector, state.rsp) == (60, IST1 - 48)


def user(guest: Guest) -> Vcpu:
    guest.code(USER_TEXT, COUNTING)
    return guest.launch("", rip=USER_TEXT, cs=USER_CS, ss=USER_SS, rsp=USER_STACK)


@pytest.mark.parametrize(
    ("event", "vector", "code_or_rip"),
    [
        (EventInjection(INTR, 0x30), 0x30, USER_TEXT),
        (EventInjection(EXCEPTION, 6), 6, USER_TEXT),
        (EventInjection(SOFTWARE, 0x31, next_rip=77), 0x31, 77),
        (EventInjection(SOFTWARE, 0x30), 13, 0x30 << 3 | IN_IDT),
        (EventInjection(EXCEPTION, 3), 13, 3 << 3 | IN_IDT),
        (EventInjection(EXCEPTION, 4), 13, 4 << 3 | IN_IDT),
    ],
)
def test_only_what_an_instruction_raises_needs_the_gates_privilege(
    event: EventInjection, vector: int, code_or_rip: int
) -> None:
    guest = Guest()
    guest.patch(IDT + 16 * 0x31, gate(HANDLERS + 0x31, dpl=3))
    vcpu = user(guest)
    vcpu.inject_event(event)
    assert reported(guest, vcpu) == (vector, code_or_rip)


def test_address_behind_the_instruction() -> None:
    """It is pushed where the event is delivered; where it is refused, the fault is the instruction's."""
    guest = Guest()
    vcpu = guest.launch()
    vcpu.inject_event(EventInjection(SOFTWARE, 9, next_rip=TEXT + 0x123))
    _, state = landed(guest, vcpu)
    assert words(guest, state.rsp, 1) == (TEXT + 0x123,)
    refused = Guest()
    vcpu = refused.launch(idtr=Table(IDT, 0x0FF))
    vcpu.inject_event(EventInjection(SOFTWARE, 0x55, next_rip=TEXT + 0x123))
    _, state = landed(refused, vcpu)
    assert words(refused, state.rsp, 2) == (0x55 << 3 | IN_IDT, TEXT)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (EventInjection(EXCEPTION, 0), (8, 0)),
        (EventInjection(EXCEPTION, 13, 0), (8, 0)),
        (EventInjection(EXCEPTION, 13), (8, 0)),
        (EventInjection(EXCEPTION, 14, 0), (8, 0)),
        (EventInjection(EXCEPTION, 6), (11, 6 << 3 | IN_IDT | EXT)),
        (EventInjection(INTR, 13), (11, 13 << 3 | IN_IDT | EXT)),
        (EventInjection(INTR, 14, 0), (11, 14 << 3 | IN_IDT | EXT)),
        (EventInjection(INTR, 9), (11, 9 << 3 | IN_IDT | EXT)),
        (EventInjection(NMI), (11, 2 << 3 | IN_IDT | EXT)),
        (EventInjection(SOFTWARE, 13), (11, 13 << 3 | IN_IDT)),
        (EventInjection(EXCEPTION, 3), (11, 3 << 3 | IN_IDT)),
    ],
)
def test_only_exceptions_make_double_faults(event: EventInjection, expected: tuple[int, int]) -> None:
    """Gates that are absent: a second fault, #NP, during the delivery of the first event."""
    guest = Guest()
    for vector in (0, 2, 3, 6, 9, 13, 14):
        guest.patch(IDT + 16 * vector, gate(0, present=False))
    vcpu = guest.launch()
    vcpu.inject_event(event)
    assert reported(guest, vcpu) == expected


@pytest.mark.parametrize(
    ("event", "shuts_down"),
    [
        (EventInjection(EXCEPTION, 8, 0), True),
        (EventInjection(INTR, 8), False),
        (EventInjection(INTR, 8, 0), False),
        (EventInjection(SOFTWARE, 8), False),
    ],
)
def test_only_a_double_fault_that_is_one_shuts_down(event: EventInjection, *, shuts_down: bool) -> None:
    guest = Guest()
    guest.patch(IDT + 16 * 8, gate(0, present=False))
    vcpu = guest.launch()
    vcpu.inject_event(event)
    assert vcpu.run().reason is (Reason.SHUTDOWN if shuts_down else Reason.HLT)


@pytest.mark.parametrize("es", [False, True], ids=["sev", "sev-es"])
@pytest.mark.parametrize("kind", [INTR, NMI, EXCEPTION, SOFTWARE])
def test_without_an_idt_every_event_shuts_down(kind: Kind, *, es: bool) -> None:
    guest = Guest(es=es)
    vcpu = guest.launch(idtr=Table(GDT, 0))
    vcpu.inject_event(EventInjection(kind, 13, 0))
    assert vcpu.run() == Exit(Reason.SHUTDOWN)


def fill(dram: Dram) -> None:
    """Take all memory that is left."""
    with suppress(DramFullError):
        while True:
            dram.allocate()


@pytest.mark.parametrize("es", [False, True], ids=["sev", "sev-es"])
def test_host_without_memory_for_a_page_of_the_guest(*, es: bool) -> None:
    """No error of Python's, and the access is done when there is memory."""
    guest = Guest(es=es)
    guest.code(HANDLERS + 0x800, f"mov rcx, {MEMORY}\n mov [rcx], rcx\n mov rax, [rcx]\n hlt")
    guest.patch(IDT + 16 * 50, gate(HANDLERS + 0x800))
    guest.tables.map(MEMORY, MEMORY, DATA)
    vcpu = guest.launch()
    guest.vm.set_user_memory_region(1, MEMORY, PAGE, guest.platform.memory(PAGE), 0)
    fill(guest.platform.dram)
    vcpu.inject_event(EventInjection(INTR, 50))
    for _ in range(2):
        assert vcpu.run() == Exit(Reason.NO_MEMORY)
    assert state_of(guest, vcpu).rcx == MEMORY
    guest.vm.set_user_memory_region(1, MEMORY, 0, guest.memory, 0)
    guest.vm.set_user_memory_region(1, MEMORY, PAGE, guest.memory, HEAP)
    assert vcpu.run() == Exit(Reason.HLT)
    assert state_of(guest, vcpu).rax == MEMORY


def test_exceptions_with_an_error_code() -> None:
    """The mask of Xen: #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC and #SX, and not #HV."""
    assert sum(1 << vector for vector in WITH_ERROR_CODE) == 0x6022_7D00
